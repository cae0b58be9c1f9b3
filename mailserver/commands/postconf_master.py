"""postconf(1) on master.cf: -M shows and edits rows, -F their fields, -P their `-o` settings."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from mailserver.commands.errors import CommandError
from mailserver.commands.postconf_options import Options, assignment
from mailserver.config import edit
from mailserver.config.config import Config
from mailserver.config.master import FIELDS, Row, command_line, format_row, parse_master
from mailserver.config.syntax import ConfigError
from mailserver.tables.words import WHITE_SPACE, split_words

_REQUESTS: Final = {
    "M": "service_name[/type]",
    "F": "service_name[/type[/field]]",
    "P": "service_name[/type[/parameter]]",
}

Change = Callable[[str], str]
Format = Callable[[str, str], str]  # a line for a name and its value
_PARTS: Final = {"M": 2, "F": 3, "P": 3}
_SHAPES: Final = {
    "M": "-Me, -MX or -M# requires service_name/type",
    "F": "-Fe or -FX requires service_name/type/field_name",
    "P": "-Pe or -PX requires service_name/type/parameter_name",
}


def show(
    options: Options, config: Config, names: Sequence[str], line: Format, warn: Callable[[str], None]
) -> Iterator[str]:
    """What is asked for in the order of the file, all rows where nothing is. Raises CommandError."""
    letter = _letter(options)
    unmatched = dict.fromkeys(names)
    for pattern in names:
        parts = pattern.split("/")
        if len(parts) > _PARTS[letter]:
            raise CommandError(f"-{letter} option requires {_REQUESTS[letter]}")
        if letter == "F" and len(parts) == _PARTS[letter]:
            _require_field(parts[2])
    for row in config.services:
        seen: dict[str, None] = {}
        for pattern in names or ("*",):
            found = _row_lines(options, config, row, pattern, line) if _matches(pattern, row) else ()
            for text in found:
                unmatched.pop(pattern, None)
                seen[text] = None
        yield from seen
    for pattern in unmatched:
        warn(f'unmatched request: "{pattern}"')


def _letter(options: Options) -> str:
    return next(letter for letter in "MFP" if letter in options.letters)


def _matches(pattern: str, row: Row) -> bool:
    return _key_matches(pattern, f"{row.service}/{row.type}")


def _key_matches(pattern: str, key: str) -> bool:
    """Whether `name/type[/…]` of a request, with * for anything, is this row's."""
    parts = [*pattern.split("/")[:2], "*"][:2]
    service, _, kind = key.rpartition("/")
    return fnmatch.fnmatchcase(service, parts[0]) and fnmatch.fnmatchcase(kind, parts[1])


def _row_lines(options: Options, config: Config, row: Row, pattern: str, line: Format) -> Iterable[str]:
    expand = _expander(config, row) if "x" in options.letters else lambda value: value
    if "M" in options.letters:
        return [format_row(row, "f" in options.letters, expand)]
    wanted = pattern.split("/", 2)[2] if pattern.count("/") >= 2 else "*"
    if "F" in options.letters:
        values = _fields(row)
    else:
        values = {name: expand(value) for name, value in sorted(row.overrides.items())}
    prefix = f"{row.service}/{row.type}"
    return [
        line(f"{prefix}/{name}", value) for name, value in values.items() if fnmatch.fnmatchcase(name, wanted)
    ]


def _expander(config: Config, row: Row) -> Callable[[str], str]:
    view = config.with_overrides(row)
    return lambda value: view.expanded(value)


def _fields(row: Row) -> dict[str, str]:
    values = {name: getattr(row, name) for name in FIELDS}
    values["command"] = command_line(row)
    return values


# ---------------------------------------------------------------- editing


def change(
    options: Options, rows: Sequence[Row], names: Sequence[str], warn: Callable[[str], None]
) -> Change:
    """What the options make of the text of a master.cf with these rows. Raises CommandError, ConfigError."""
    letter = _letter(options)
    if not names:
        raise CommandError(
            "-e requires name=value argument" if "e" in options.letters else "missing service argument"
        )
    if "e" in options.letters:
        pairs = [assignment(name, f"-{letter}e") for name in names]
        _require_shape(letter, [name for name, _ in pairs])
        if letter == "M":
            return _in_turn([_set_row(name, value) for name, value in pairs])
        set_one = _set_field if letter == "F" else _set_parameter
        edits = [(f"{name}={value}", set_one(name, value)) for name, value in pairs]
        return _edit_rows(rows, edits, warn)
    _require_shape(letter, names)
    if letter == "P":
        return _edit_rows(rows, [(name, _remove_parameter(name)) for name in names], warn)

    def named(key: str) -> bool:
        return any(_key_matches(name, key) for name in names)

    make = edit.remove_rows if "X" in options.letters else edit.comment_out_rows
    return lambda text: make(text, named)


def _require_shape(letter: str, names: Iterable[str]) -> None:
    for name in names:
        if len([part for part in name.split("/") if part]) != _PARTS[letter]:
            raise CommandError(_SHAPES[letter])


def _in_turn(changes: Sequence[Change]) -> Change:
    def change_all(text: str) -> str:
        for each in changes:
            text = each(text)
        return text

    return change_all


def _set_row(name: str, value: str) -> Change:
    """-Me: the row is there, in the place of the one of its name. Raises CommandError."""
    try:
        rows, _ = parse_master(value, "command line")
    except ConfigError as error:
        raise CommandError(f'{str(error).partition(": ")[2]}: "{name}={value}"') from error
    if len(rows) != 1 or not _matches(name, rows[0]):
        raise CommandError(f'"{name}={value}": write service_name/type=service_name type ...')
    row = rows[0]
    return lambda text: edit.set_row(text, row.service, row.type, format_row(row, fold=True))


RowEdit = Callable[[Row], Row]


def _edit_rows(
    rows: Sequence[Row], edits: Sequence[tuple[str, RowEdit]], warn: Callable[[str], None]
) -> Change:
    """Each edit done to the rows that it names. Raises CommandError."""
    edited = {(row.service, row.type): row for row in rows}
    touched: dict[tuple[str, str], None] = {}
    for name, edit_row in edits:
        keys = [key for key, row in edited.items() if _matches(name, row)]
        if not keys:
            warn(f'unmatched service_name/type: "{name}"')
        for key in keys:
            edited[key] = edit_row(edited[key])
            touched[key] = None
    texts = {key: format_row(edited[key], fold=True) for key in touched}
    return _in_turn([_put_row(*key, text) for key, text in texts.items()])


def _put_row(service: str, kind: str, text: str) -> Change:
    return lambda old: edit.set_row(old, service, kind, text)


def _require_field(field: str) -> None:
    if field not in FIELDS and field != "*":
        raise CommandError(f'invalid service attribute name: "{field}"')


def _set_field(name: str, value: str) -> RowEdit:
    """-Fe: that field has the value. Raises CommandError."""
    field = name.split("/")[2]
    _require_field(field)
    if field == "command":
        words = split_words(value, WHITE_SPACE) or ("",)
        return lambda row: _checked(replace(row, command=words[0], arguments=tuple(words[1:])), field, value)
    values: dict[str, Any] = {field: value}
    return lambda row: _checked(replace(row, **values), field, value)


def _checked(row: Row, field: str, value: str) -> Row:
    """The row as it will be read. Raises CommandError where it cannot be."""
    try:
        (read,), _ = parse_master(format_row(row), "")
    except (ConfigError, ValueError) as error:
        raise CommandError(f'invalid {field} field "{value}" in "{value}"') from error
    return read


def _set_parameter(name: str, value: str) -> RowEdit:
    """-Pe: the service has that `-o` setting. Raises CommandError."""
    if re.search(r"\s", value):
        raise CommandError("-Pe does not accept whitespace in parameter value")
    parameter = name.split("/")[2]
    return lambda row: _with_setting(row, parameter, value)


def _remove_parameter(name: str) -> RowEdit:
    """-PX: the service has no such `-o` setting."""
    parameter = name.split("/")[2]
    return lambda row: _with_setting(row, parameter, None)


def _with_setting(row: Row, parameter: str, value: str | None) -> Row:
    """The row with the setting in its old place, else behind the other options; without it for None."""
    out: list[str] = []
    words = list(row.arguments)
    end = next((n for n, word in enumerate(words) if not _is_option(words, n)), len(words))
    position = 0
    while position < end:
        if words[position] != "-o":
            out.append(words[position])
            position += 1
            continue
        if words[position + 1].strip("{ ").partition("=")[0].strip() != parameter:
            out += words[position : position + 2]
        elif value is not None:
            out += ["-o", f"{parameter}={value}"]
            value = None
        position += 2
    out += ["-o", f"{parameter}={value}"] if value is not None else []
    return replace(row, arguments=tuple(out + words[end:]))


def _is_option(words: Sequence[str], position: int) -> bool:
    """Whether that word is an option, or the value of `-o` before it."""
    return (words[position].startswith("-") and words[position] != "--") or (
        position > 0 and words[position - 1] == "-o"
    )
