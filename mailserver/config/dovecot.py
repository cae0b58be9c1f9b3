"""The grammar of dovecot.conf, 2.3's and where it is easy 2.4's, and what it means here.

`key = value`, `section name { … }`, `!include`, `!include_try`, `<file`, quotes, `\\` at the end of
a line, `$key` for an earlier value. The top level, `passdb` and `userdb`, shared and public namespaces
and the ACL plugin's settings are used: the rest of the sections tune what this program does not have,
and give a warning where they say something.
Files are read through `read`, so that the grammar itself touches no disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from mailserver.config.dovecot_namespaces import PLUGIN_SETTINGS, namespace
from mailserver.config.dovecot_tree import Section
from mailserver.config.parameters import PARAMETERS
from mailserver.config.syntax import ConfigError, Setting

DEEPEST_INCLUDE: Final = 16

# 2.4's names for 2.3's settings.
RENAMED: Final = {
    "ssl_server_cert_file": "ssl_cert",
    "ssl_server_key_file": "ssl_key",
    "ssl_server_dh_file": "ssl_dh",
    "mail_home_dir": "mail_home",
}
# Sections whose contents change nothing here: other services, and the names of folders.
QUIET_SECTIONS: Final = frozenset({"mailbox", "dict", "map", "metric", "event_exporter"})
SYSTEM_DRIVERS: Final = frozenset({"shadow", "passwd", "bsdauth"})
PAM_SERVICE: Final = "dovecot"  # where args name none
_LINE: Final = re.compile(r"([^\s={}]+)\s*=\s*(.*)", re.DOTALL)
_SECTION: Final = re.compile(r'(\S+)(?:\s+("[^"]*"|[^{]*?))?\s*\{', re.DOTALL)

# The paths that a pattern of !include names, and a file's text; both raise OSError.
Glob = Callable[[str], Sequence[str]]
ReadText = Callable[[str], str]


class Parser:
    """Reads a dovecot.conf and what it includes into a tree of sections."""

    def __init__(self, read: ReadText, glob: Glob) -> None:
        self._read = read
        self._glob = glob
        self.top = Section("", "", "")
        self._open = [self.top]

    def parse(self, path: str, depth: int = 0) -> None:
        """The file's settings stand in `top`, behind those of the files before it. Raises ConfigError."""
        if depth > DEEPEST_INCLUDE:
            raise ConfigError(f"{path}: included from itself, or more than {DEEPEST_INCLUDE} deep")
        for where, line in _lines(self._read(path), path):
            self._line(line, where, os.path.dirname(path), depth)

    def finish(self) -> Section:
        """The top level. Raises ConfigError where a section was not closed."""
        if len(self._open) > 1:
            raise ConfigError(f"{self._open[-1].where}: section {self._open[-1].kind} has no closing brace")
        return self.top

    def _line(self, line: str, where: str, directory: str, depth: int) -> None:
        word, _, rest = line.partition(" ")
        if word in ("!include", "!include_try"):
            self._include(os.path.join(directory, rest.strip()), where, word == "!include", depth)
        elif line == "}":
            if len(self._open) == 1:
                raise ConfigError(f"{where}: a closing brace without a section: remove it")
            self._open.pop()
        elif "=" not in line.partition("{")[0] and (match := _SECTION.match(line)):
            self._enter(match, line, where)
        elif match := _LINE.fullmatch(line):
            self._open[-1].settings.append(Setting(match[1], self._value(match[2]), where))
        else:
            raise ConfigError(f'{where}: "{line}": write key = value')

    def _include(self, pattern: str, where: str, required: bool, depth: int) -> None:
        paths = self._glob(pattern)
        if not paths and required and not re.search(r"[*?\[]", pattern):
            raise ConfigError(f"{where}: {pattern}: No such file: remove the !include, or create the file")
        for path in paths:
            self.parse(path, depth + 1)

    def _enter(self, match: re.Match[str], line: str, where: str) -> None:
        section = Section(match[1], (match[2] or "").strip('" '), where)
        self._open[-1].sections.append(section)
        rest = line[match.end() :].strip()
        if rest.endswith("}"):
            rest = rest[:-1].strip()
        else:
            self._open.append(section)
        if rest and (setting := _LINE.fullmatch(rest)):
            section.settings.append(Setting(setting[1], self._value(setting[2]), where))

    def _value(self, text: str) -> str:
        """Quotes and the `<` of a file removed, `$key` replaced by its earlier value."""
        text = text.strip()
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        return re.sub(r"\$(\w+)", lambda match: self._earlier(match[1]), text).strip()

    def _earlier(self, name: str) -> str:
        for setting in reversed(self.top.settings):
            if setting.name == name:
                return setting.value
        return ""


def _lines(text: str, path: str) -> Iterator[tuple[str, str]]:
    """The lines with their places, comments and continuations dealt with."""
    pending, start = "", 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = _without_comment(raw).strip()
        start = start if pending else number
        if line.endswith("\\"):
            pending += line[:-1].rstrip() + " "
            continue
        line, pending = (pending + line).strip(), ""
        if line:
            yield f"{path}:{start}", line


def _without_comment(line: str) -> str:
    quote = ""
    for position, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "#" and (position == 0 or line[position - 1].isspace()):
            return line[:position]
    return line


def meaning(top: Section) -> tuple[list[Setting], list[str]]:
    """The parameters that a dovecot.conf sets, in main.cf's names, and warnings."""
    settings: dict[str, Setting] = {}
    warnings: list[str] = []
    for setting in top.settings:
        _top_level(setting, settings, warnings)
    _mail_location(settings)
    for section in sorted(top.sections, key=lambda section: section.kind == "userdb"):
        _section(section, settings, warnings)
    return list(settings.values()), warnings


def _top_level(setting: Setting, settings: dict[str, Setting], warnings: list[str]) -> None:
    name = RENAMED.get(setting.name, setting.name)
    value = setting.value
    if name == "auth_allow_cleartext":
        name, value = "disable_plaintext_auth", "no" if value == "yes" else "yes"
    if name in ("ssl_cert", "ssl_key"):
        value = value.removeprefix("<").strip()
    parameter = PARAMETERS.get(name)
    known = name in ("mail_driver", "mail_path", "mail_inbox_path")
    if known or (parameter is not None and parameter.source != "postfix"):
        settings[name] = Setting(name, value.replace("$", "$$"), setting.where)
    elif parameter is None:
        warnings.append(f"{setting.where}: {setting.name}: this program does not know it: ignored")


def _mail_location(settings: dict[str, Setting]) -> None:
    """2.4's mail_driver, mail_path and mail_inbox_path as 2.3's mail_location."""
    driver, path, inbox = (
        settings.pop(name, None) for name in ("mail_driver", "mail_path", "mail_inbox_path")
    )
    if driver is None or path is None:
        return
    value = f"{driver.value}:{path.value}" + (f":INBOX={inbox.value}" if inbox is not None else "")
    settings["mail_location"] = Setting("mail_location", value, path.where)


def _section(section: Section, settings: dict[str, Setting], warnings: list[str]) -> None:
    if section.kind in ("passdb", "userdb"):
        _account_source(section, settings)
    elif section.kind == "protocols":
        names = " ".join(item.name for item in section.settings if item.value == "yes")
        settings["protocols"] = Setting("protocols", names, section.where)
    elif section.kind == "namespace":
        namespace(section, settings, warnings)
    elif section.kind == "plugin":
        for setting in section.settings:
            if setting.name in PLUGIN_SETTINGS:
                settings[setting.name] = Setting(
                    setting.name, setting.value.replace("$", "$$"), setting.where
                )
    elif section.kind not in QUIET_SECTIONS:
        if section.kind == "service" and section.name == "auth":
            _auth_listener(section, settings)
        for setting in _deep(section):
            warnings.append(f"{setting.where}: {section.kind} {section.name}: {setting.name}: not used here")


def _deep(section: Section) -> Iterator[Setting]:
    yield from section.settings
    for inner in section.sections:
        if inner.kind not in ("unix_listener", "fifo_listener"):
            yield from _deep(inner)


def _auth_listener(section: Section, settings: dict[str, Setting]) -> None:
    """The first socket outside Dovecot's own directory at which other programs have logins checked."""
    for inner in section.sections:
        path = inner.name
        is_for_clients = not path.endswith(("-userdb", "-master", "-login", "-token", "login", "-legacy"))
        if inner.kind != "unix_listener" or not os.path.isabs(path) or not is_for_clients:
            continue
        values = {setting.name: setting.value for setting in inner.settings}
        if values.get("mode", "0660").strip("0") == "":
            continue
        settings["auth_listener"] = Setting("auth_listener", path.replace("$", "$$"), inner.where)
        for name in ("mode", "user", "group"):
            if values.get(name):
                full = f"auth_listener_{name}"
                settings[full] = Setting(full, values[name].replace("$", "$$"), inner.where)
        return


def _account_source(section: Section, settings: dict[str, Setting]) -> None:
    """A passdb or userdb as a word of account_sources. Raises ConfigError for one of another kind."""
    values = {setting.name: setting.value for setting in section.settings}
    driver = values.get("driver", section.name).strip()
    if driver in ("prefetch", "static") and section.kind == "userdb":
        return
    if driver == "pam":
        _pam(section, values, settings)
        return
    if driver in SYSTEM_DRIVERS:
        # PAM's users are passwd's: a userdb adds nobody to them.
        if section.kind == "passdb" or "pam" not in _sources(settings):
            _add_source(settings, "system", section.where)
        return
    if driver != "passwd-file":
        raise ConfigError(
            f"{section.where}: {section.kind}: driver {driver or '(none)'} is not supported:"
            " use passwd-file, pam, shadow or passwd"
        )
    _add_source(settings, "passwd-file", section.where)
    scheme = values.get("default_password_scheme") or re.search(r"scheme=(\S+)", values.get("args", ""))
    if scheme and section.kind == "passdb":
        word = scheme if isinstance(scheme, str) else scheme[1]
        settings["default_pass_scheme"] = Setting("default_pass_scheme", word, section.where)
    path = values.get("passwd_file_path") or _path_in_args(values.get("args", ""))
    if path:
        settings["passwd_file"] = Setting("passwd_file", path.replace("$", "$$"), section.where)


def _pam(section: Section, values: dict[str, str], settings: dict[str, Setting]) -> None:
    """`args = [session=yes] [setcred=yes] [max_requests=N] [SERVICE]`, and 2.4's passdb_pam… settings."""
    words = [word for word in values.get("args", "").split() if "=" not in word and word != "*"]
    service = values.get("service_name") or values.get("passdb_pam_service_name") or " ".join(words[-1:])
    if "%" in service or not service:
        service = PAM_SERVICE
    settings["pam_service"] = Setting("pam_service", service, section.where)
    _add_source(settings, "pam", section.where)


def _sources(settings: dict[str, Setting]) -> list[str]:
    before = settings.get("account_sources")
    return before.value.split() if before is not None else []


def _path_in_args(args: str) -> str:
    paths = [word for word in args.split() if word.startswith("/")]
    return paths[-1] if paths else ""


def _add_source(settings: dict[str, Setting], word: str, where: str) -> None:
    words = _sources(settings)
    if word not in words:
        settings["account_sources"] = Setting("account_sources", " ".join([*words, word]), where)
