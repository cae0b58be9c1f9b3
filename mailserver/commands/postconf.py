"""`postconf`: show and edit main.cf and master.cf. postconf(1).

Listing never stops at a parameter that is not honoured; `mailserver check` is where to read of those.
An edit writes the file aside and renames it, and keeps comments and order.
"""

from __future__ import annotations

import fnmatch
import getopt
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailserver.commands.errors import nobody_reads
from mailserver.config import consistency, edit
from mailserver.config.config import Config
from mailserver.config.master import FIELDS, Row, format_row, parse_master
from mailserver.config.parameters import PARAMETERS
from mailserver.config.read import ConfigError, config_directory, read_unchecked
from mailserver.config.syntax import Setting
from mailserver.tables.open import TABLE_TYPES

OPTIONS: Final = "aAc:C:deEfFhHlmMno:pPvxX#"
_USAGE: Final = (
    "usage: postconf [-a (server SASL types)] [-A (client SASL types)] [-c config_dir]"
    " [-d (parameter defaults)] [-e (edit configuration)] [-f (fold lines)] [-F (master.cf fields)]"
    " [-h (no names)] [-H (no values)] [-l (lock types)] [-m (map types)] [-M (master.cf)]"
    " [-n (non-default parameters)]"
    " [-o name=value (override parameter value)] [-p (main.cf, default)] [-P (master.cf parameters)]"
    " [-v (verbose)] [-x (expand parameter values)] [-X (exclude)] [-# (comment-out)] [name...]"
)
_HELP: Final = """\
usage: postconf [options] [name ...]

Shows parameters of main.cf, all or those that are named, or edits them.
  -n             those that main.cf sets           -d  the defaults
  -h             values only    -H  names only     -x  with $name expanded    -f  long lines folded
  -e NAME=VALUE  set (also without -e)             -X NAME  remove            -# NAME  comment out
  -M [NAME/TYPE] rows of master.cf                 -F  their fields           -P  their -o settings
  -Me NAME/TYPE='ROW', -MX and -M# NAME/TYPE       edit rows
  -m             table types    -l  lock types     -a -A  SASL types
  -c DIR         the directory of main.cf          -o NAME=VALUE  as if main.cf said so

examples:
  postconf -n
  postconf -hx mydestination
  postconf -e 'mynetworks = 127.0.0.0/8, 192.0.2.0/24'
"""
_WIDTH: Final = 80


class Fatal(Exception):
    """The command cannot go on; the text is what stands behind `fatal: `."""


@dataclass(slots=True)
class Options:
    """The command line: its letters, and what they take."""

    letters: frozenset[str] = frozenset()
    directory: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--help"]:
        print(_HELP, end="")
        return 0
    try:
        options, names = _parse(arguments)
        _perform(options, names)
        sys.stdout.flush()
    except (Fatal, ConfigError) as error:
        print(f"postconf: fatal: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return nobody_reads()
    except OSError as error:
        print(f"postconf: fatal: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: list[str]) -> tuple[Options, list[str]]:
    try:
        pairs, names = getopt.getopt(arguments, OPTIONS)
    except getopt.GetoptError as error:
        print(f"postconf: invalid option -- '{error.opt}'", file=sys.stderr)
        raise Fatal(_USAGE) from error
    options = Options(frozenset(letter[1] for letter, _ in pairs))
    for letter, value in pairs:
        if letter == "-c":
            options.directory = value
        elif letter == "-o":
            name, text = _assignment(value, "-o")
            options.overrides[name] = text
    if len(options.letters & set("eX#")) > 1 or len(options.letters & set("MFP")) > 1:
        raise Fatal("specify one of -e, -X, or -#, and one of -M, -F, or -P")
    return options, names


def _assignment(text: str, option: str = "-e") -> tuple[str, str]:
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not equals:
        raise Fatal(f"missing '=' after attribute name: \"{text}\"")
    if not name or any(character.isspace() for character in name):
        raise Fatal(f'missing attribute name: "{text}"')
    if "\n" in value:
        raise Fatal(f"{option} accepts no multi-line input")
    return name, value


def _perform(options: Options, names: Sequence[str]) -> None:
    letters = options.letters
    simple = {"m": TABLE_TYPES, "l": ("dotlock", "fcntl"), "a": ("dovecot",), "A": ("cyrus",)}
    for letter, lines in simple.items():
        if letter in letters:
            print("\n".join(lines))
            return
    if letters & set("MFP"):
        _master(options, names)
    elif letters & set("X#"):
        _remove(options, names)
    elif "e" in letters or any("=" in name for name in names):
        _edit(options, names)
    else:
        _show(options, names)


def _edit(options: Options, names: Sequence[str]) -> None:
    if not names:
        raise Fatal("-e requires name=value argument")
    values = dict(_assignment(name) for name in names)
    _change(options, "main.cf", lambda text: edit.set_values(text, values))


def _remove(options: Options, names: Sequence[str]) -> None:
    letter = "X" if "X" in options.letters else "#"
    if not names or any("=" in name for name in names):
        raise Fatal(f"-{letter} requires parameter names without value")
    change = edit.remove if letter == "X" else edit.comment_out
    _change(options, "main.cf", lambda text: change(text, frozenset(names)))


def _change(options: Options, name: str, change: Callable[[str], str]) -> None:
    path = os.path.join(config_directory(options.directory, os.environ), name)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
    except OSError as error:
        raise Fatal(f"open {path}: {error.strerror}") from error
    edit.replace_file(path, change(text))


def _config(options: Options) -> Config:
    config = read_unchecked(options.directory, os.environ)
    if not options.overrides:
        return config
    own = {name: Setting(name, value, "-o") for name, value in options.overrides.items()}
    return Config(config.directory, {**config.settings, **own}, config.services, config.warnings, config.host)


def _show(options: Options, names: Sequence[str]) -> None:
    config = _config(options)
    for warning in config.warnings:
        _warn(warning)
    for name in names or _all_names(options, config):
        if not config.is_known(name):
            _warn(f"{name}: unknown parameter")
            continue
        print(_formatted(options, name, _value(options, config, name)))
    for setting in consistency.unused(config):
        _warn(f"{setting.where.rpartition(':')[0]}: unused parameter: {setting.name}={setting.value}")


def _all_names(options: Options, config: Config) -> Iterable[str]:
    """What is listed where no name is given: all; with -n what main.cf sets."""
    unused = {setting.name for setting in consistency.unused(config)}
    own = {
        name
        for name, setting in config.settings.items()
        if "main.cf" in setting.where or name in options.overrides
    }
    if "n" in options.letters:
        return sorted((own - unused) | {"config_directory"})
    return sorted(set(PARAMETERS) | (set() if "d" in options.letters else own - unused))


def _value(options: Options, config: Config, name: str) -> str:
    if "d" in options.letters:
        config = Config(config.directory, {}, config.services, host=config.host)
        if not config.is_known(name):
            return ""
    if "x" not in options.letters:
        return config.raw(name)
    for undefined in sorted(config.undefined(name)):
        _warn(f"{config.directory}/main.cf: undefined parameter: {undefined}")
    return config.string(name)


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


def _master(options: Options, names: Sequence[str]) -> None:
    if options.letters & set("eX#"):
        _edit_master(options, names)
        return
    config = read_unchecked(options.directory, os.environ)
    for pattern in names or ("*",):
        rows = [row for row in config.services if _matches(pattern, row)]
        if not rows:
            _warn(f'unmatched request: "{pattern}"')
        for row in rows:
            for line in _row_lines(options, row, pattern):
                print(line)


def _matches(pattern: str, row: Row) -> bool:
    return _key_matches(pattern, f"{row.service}/{row.type}")


def _key_matches(pattern: str, key: str) -> bool:
    """Whether `name/type[/…]` of a request, with * for anything, is this row's."""
    parts = [*pattern.split("/")[:2], "*"][:2]
    service, _, kind = key.rpartition("/")
    return fnmatch.fnmatchcase(service, parts[0]) and fnmatch.fnmatchcase(kind, parts[1])


def _row_lines(options: Options, row: Row, pattern: str) -> Iterable[str]:
    if "M" in options.letters:
        return [format_row(row, fold="f" in options.letters)]
    wanted = pattern.split("/")[2] if pattern.count("/") >= 2 else "*"
    values = _fields(row) if "F" in options.letters else dict(sorted(row.overrides.items()))
    prefix = f"{row.service}/{row.type}"
    return [
        _formatted(options, f"{prefix}/{name}", value)
        for name, value in values.items()
        if fnmatch.fnmatchcase(name, wanted)
    ]


def _fields(row: Row) -> dict[str, str]:
    values = {name: getattr(row, name) for name in FIELDS}
    values["command"] = " ".join([row.command, *row.arguments])
    return values


def _edit_master(options: Options, names: Sequence[str]) -> None:
    """-Me, -MX and -M#: whole rows."""
    if "M" not in options.letters:
        raise Fatal("-F and -P show only: edit the row with -Me")
    if not names:
        raise Fatal("-M with -e, -X or -# requires service_name/type arguments")
    if "e" in options.letters:
        for name in names:
            _set_row(options, name)
        return
    change = edit.remove_rows if "X" in options.letters else edit.comment_out_rows

    def named(key: str) -> bool:
        return any(_key_matches(name, key) for name in names)

    _change(options, "master.cf", lambda text: change(text, named))


def _set_row(options: Options, text: str) -> None:
    name, row_text = _assignment(text, "-Me")
    rows, _ = parse_master(row_text, "command line")
    if len(rows) != 1 or not _matches(name, rows[0]):
        raise Fatal(f'"{text}": write service_name/type=service_name type ...')
    row = rows[0]
    new = format_row(row, fold=True)
    _change(options, "master.cf", lambda old: edit.set_row(old, row.service, row.type, new))


def _warn(text: str) -> None:
    print(f"postconf: warning: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
