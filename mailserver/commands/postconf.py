"""`postconf`: show and edit main.cf and master.cf. postconf(1).

Listing never stops at a parameter that is not honoured; `mailserver check` is where to read of those.
An edit writes the file aside and renames it, and keeps comments and order.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from mailserver.commands import postconf_master
from mailserver.commands.errors import CommandError
from mailserver.commands.postconf_options import COMMAND, Options, assignments, parse
from mailserver.config import bounce_templates, consistency, edit
from mailserver.config.config import Config
from mailserver.config.parameters import PARAMETERS, TRANSPORT_FAMILY, find_parameter
from mailserver.config.read import config_directory, read_unchecked
from mailserver.config.syntax import Setting
from mailserver.durable import replace_file
from mailserver.message.bounce_template import as_text
from mailserver.tables.open import TABLE_TYPES

_WIDTH: Final = 80
_TRANSPORTS: Final = ("local", "virtual", "smtp", "lmtp", "pipe", "error", "discard")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return COMMAND.run(_run, argv)


def _run(arguments: list[str]) -> int:
    options, names = parse(arguments)
    letters = options.letters
    simple = {"m": TABLE_TYPES, "l": ("fcntl", "dotlock"), "a": ("dovecot",), "A": ("cyrus",)}
    for letter, lines in simple.items():
        if letter in letters:
            print("\n".join(lines))
            return 0
    if letters & set("bt"):
        _show_templates(options, names)
    elif "T" in letters:
        return _show_tls(options.query)
    elif letters & set("MFP"):
        _master(options, names)
    elif letters & set("X#"):
        _remove(options, names)
    elif "e" in letters:
        _edit(options, names)
    else:
        _show(options, names)
    return 0


def _show_templates(options: Options, names: Sequence[str]) -> None:
    """-t: the templates of delivery reports; -b: their texts as they are sent. Raises ConfigError."""
    config = read_unchecked(options.directory, os.environ)
    path = names[0] if names else config.string("bounce_template_file")
    found = bounce_templates.read_templates(path, _warn)
    if "t" in options.letters:
        print("\n".join(as_text(name, template) for name, template in found.items()), end="")
        return
    texts = {name: bounce_templates.expanded(template, config).text for name, template in found.items()}
    parts = (f"expanded_{name.removesuffix('_template')}_text = <<EOF\n{texts[name]}EOF\n" for name in texts)
    print("\n".join(parts), end="")


def _show_tls(query: str) -> int:
    """-T: the TLS library and what it has; the exit status."""
    from OpenSSL import SSL

    if query in ("compile-version", "run-version"):
        print(SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode())
    elif query == "public-key-algorithms":
        print("ecdsa\nrsa")
    else:
        _warn(f"unknown 'postconf -T' mode: {query}")
        return 1
    return 0


def _edit(options: Options, names: Sequence[str]) -> None:
    if not names:
        raise CommandError("-e requires name=value argument")
    values = assignments(names, _warn)
    _change(options, "main.cf", lambda text: edit.set_values(text, values))


def _remove(options: Options, names: Sequence[str]) -> None:
    letter = "X" if "X" in options.letters else "#"
    if not names:
        raise CommandError("missing service argument")
    change = edit.remove if letter == "X" else edit.comment_out
    _change(options, "main.cf", lambda text: change(text, frozenset(names)))


def _master(options: Options, names: Sequence[str]) -> None:
    config = read_unchecked(options.directory, os.environ)
    if options.letters & set("eX#"):
        _change(options, "master.cf", postconf_master.change(options, config.services, names, _warn))
        return
    _flag_undefined(config)
    for line in postconf_master.show(
        options, config, names, lambda name, value: _formatted(options, name, value), _warn
    ):
        print(line)
    _flag_unused_in_master(config)


def _change(options: Options, name: str, change: Callable[[str], str]) -> None:
    path = os.path.join(config_directory(options.directory, os.environ), name)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
    except OSError as error:
        raise CommandError(f"open {path}: {error.strerror}") from error
    replace_file(path, change(text))


def _config(options: Options) -> Config:
    if "d" in options.letters:
        return Config(config_directory(options.directory, os.environ), {})
    config = read_unchecked(options.directory, os.environ)
    where = f"{config.directory}/main.cf:0"
    own = {name: Setting(name, value, where) for name, value in options.overrides.items()}
    return Config(config.directory, {**config.settings, **own}, config.services, config.warnings, config.host)


def _show(options: Options, names: Sequence[str]) -> None:
    config = _config(options)
    for warning in config.warnings:
        _warn(warning)
    _flag_undefined(config)
    unused = {setting.name for setting in consistency.unused(config)}
    for name in names or sorted(_all_names(options, config, unused)):
        if name in unused or not config.is_known(name):
            _warn(f"{name}: unknown parameter")
            continue
        print(_formatted(options, name, config.string(name) if "x" in options.letters else config.raw(name)))
    for setting in consistency.unused(config):
        _warn(f"{setting.where.rpartition(':')[0]}: unused parameter: {setting.name}={setting.value}")
    _flag_unused_in_master(config)


def _flag_undefined(config: Config) -> None:
    """A warning for each name that main.cf mentions and nobody defines."""
    path = f"{config.directory}/main.cf"
    own = [name for name, setting in config.settings.items() if setting.where.startswith(f"{path}:")]
    for undefined in dict.fromkeys(each for name in own for each in sorted(config.undefined(name))):
        _warn(f"{path}: undefined parameter: {undefined}")


def _flag_unused_in_master(config: Config) -> None:
    """A warning for each setting of a row of master.cf that nobody looks at."""
    for row in config.services:
        for setting in consistency.unused(config.with_overrides(row)):
            if setting.name in row.overrides:
                _warn(f"{config.directory}/master.cf: unused parameter: {setting.name}={setting.value}")


def _all_names(options: Options, config: Config, unused: set[str]) -> set[str]:
    """What is listed where no name is given: the classes of -C; with -n of those what main.cf sets."""
    services = set(_service_names(config))
    user = {name for name in config.settings if find_parameter(name) is None} - unused
    classes = {"builtin": set(PARAMETERS) - services, "service": services, "user": user}
    wanted = options.classes & set(classes) if "all" not in options.classes else set()
    found = set[str]().union(*(classes[each] for each in wanted or classes))
    if "n" not in options.letters:
        return found
    own = {
        name
        for name, setting in config.settings.items()
        if "main.cf" in setting.where or name in options.overrides
    }
    others = set() if wanted else own - unused  # limits of transports that master.cf has no row for
    return found & (own | {"config_directory"}) | others


def _service_names(config: Config) -> Iterator[str]:
    """The limits that the transports of master.cf have."""
    for row in config.services:
        if row.type == "unix" and row.program in _TRANSPORTS:
            for ending in TRANSPORT_FAMILY:
                if ending != "_time_limit" or row.program == "pipe":
                    yield row.service + ending


def _formatted(options: Options, name: str, value: str) -> str:
    if "H" in options.letters:
        return name
    value = " ".join(value.split())
    if "h" in options.letters:
        return value
    line = f"{name} = {value}".rstrip()
    if "f" not in options.letters or len(line) <= _WIDTH:
        return line
    folded = textwrap.wrap(
        line, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(folded)


def _warn(text: str) -> None:
    print(f"postconf: warning: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
