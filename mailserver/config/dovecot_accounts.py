"""Who may log in, of a dovecot.conf: its passdb and userdb, and the socket of `service auth`."""

from __future__ import annotations

import os
import re
from typing import Final

from mailserver.config.dovecot_tree import Section
from mailserver.config.syntax import ConfigError, Setting

SYSTEM_DRIVERS: Final = frozenset({"shadow", "passwd", "bsdauth"})
PAM_SERVICE: Final = "dovecot"  # where args name none


def auth_listener(section: Section, settings: dict[str, Setting]) -> None:
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


def account_source(section: Section, settings: dict[str, Setting]) -> None:
    """A passdb or userdb as a word of account_sources. Raises ConfigError for one of another kind."""
    values = {setting.name: setting.value for setting in section.settings}
    driver = values.get("driver", section.name).strip()
    if driver in ("prefetch", "static") and section.kind == "userdb":
        _default_home(section, values, settings)
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


def _default_home(section: Section, values: dict[str, str], settings: dict[str, Setting]) -> None:
    """`args = uid=vmail home=/srv/mail/%u` of 2.3, `fields { home = … }` of 2.4: mail_home says the same."""
    fields = next((each.values() for each in section.sections if each.kind == "fields"), {})
    words = dict(word.partition("=")[::2] for word in values.get("args", "").split())
    home = fields.get("home") or words.get("home", "")
    if home:
        settings.setdefault("mail_home", Setting("mail_home", home.replace("$", "$$"), section.where))


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
