"""The grammar of master.cf. master(5).

    service type private unpriv chroot wakeup maxproc command argument…
        -o name=value
        -o { name = value with spaces }

A row continues on indented lines; `-` stands for a default. Postfix's own rows (pickup,
cleanup, unix transports …) are rows like all others; who listens is decided by
`config.listeners`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mailserver.config.syntax import ConfigError
from mailserver.tables.words import WHITE_SPACE, BraceError, logical_lines, split_words, unbrace

TYPES: Final = frozenset({"inet", "unix", "fifo", "pass", "unix-dgram"})
FIELDS: Final = ("service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command")
_WIDTHS: Final = (10, 5, 7, 7, 7, 7, 7)
_LINE_LIMIT: Final = 80  # columns of a folded row


@dataclass(frozen=True, slots=True)
class Row:
    """One service. `arguments` are those of the command, `overrides` its `-o` settings."""

    service: str
    type: str
    private: str
    unprivileged: str
    chroot: str
    wakeup: str
    process_limit: str
    command: str
    arguments: tuple[str, ...]
    overrides: Mapping[str, str]
    where: str  # path:line

    @property
    def program(self) -> str:
        """The command without its directory."""
        return os.path.basename(self.command)

    @property
    def process_maximum(self) -> int | None:
        """The most processes of this service, None for the default, 0 for no limit."""
        return None if self.process_limit == "-" else int(self.process_limit)


def parse_master(text: str, path: str) -> tuple[tuple[Row, ...], list[str]]:
    """The rows in their order, and warnings; the last of two rows with one name and type counts.

    Raises ConfigError.
    """
    rows: dict[tuple[str, str], Row] = {}
    warnings: list[str] = []
    for line in logical_lines(text):
        where = f"{path}:{line.number}"
        if line.continues_nothing:
            raise ConfigError(f'{where}: logical line must not start with whitespace: "{line.text}"')
        row = _row(line.text, where)
        key = row.service, row.type
        if key in rows:
            warnings.append(f"{where}: duplicate service name {row.service} of {rows[key].where}: remove one")
        rows[key] = row
    return tuple(rows.values()), warnings


def _row(text: str, where: str) -> Row:
    words = split_words(text, WHITE_SPACE)
    if len(words) < len(FIELDS):
        raise ConfigError(f"{where}: bad field count: write {' '.join(FIELDS)}")
    fields = dict(zip(FIELDS, words, strict=False))
    if fields["type"] not in TYPES:
        raise ConfigError(
            f"{where}: bad transport type: {fields['type']}: write one of {', '.join(sorted(TYPES))}"
        )
    for name in ("private", "unprivileged", "chroot"):
        if fields[name] not in ("y", "n", "-"):
            raise ConfigError(f"{where}: field {name}: bad value: {fields[name]}: write y, n or -")
    for name, value in (
        ("wakeup", fields["wakeup"].removesuffix("?")),
        ("process_limit", fields["process_limit"]),
    ):
        if value != "-" and not value.isdecimal():
            raise ConfigError(f"{where}: field {name}: bad value: {fields[name]}: write a number or -")
    arguments = words[len(FIELDS) :]
    return Row(**fields, arguments=arguments, overrides=dict(_overrides(arguments, where)), where=where)


def _overrides(arguments: tuple[str, ...], where: str) -> Iterator[tuple[str, str]]:
    """The `-o name=value` settings. What stands in argv= of pipe(8) is none of them."""
    words = iter(arguments)
    for word in words:
        if word.startswith("argv="):
            return
        if word == "-o" or (word.startswith("-o") and "=" in word):
            yield _override(word[2:] or next(words, ""), where)


def _override(text: str, where: str) -> tuple[str, str]:
    try:
        setting = unbrace(text) if text.startswith("{") else text
    except BraceError as error:
        raise ConfigError(f"{where}: {error}") from error
    name, equals, value = setting.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f'{where}: -o "{text}": write -o name=value, or -o {{ name = value }}')
    return name.strip(WHITE_SPACE), value.strip(WHITE_SPACE)


def format_row(row: Row, fold: bool = False, expand: Callable[[str], str] = lambda value: value) -> str:
    """The row as `postconf -M` prints it; `expand` is for the values of `-o` settings.

    Folded, each option with a value has a line of its own, and what follows fills lines.
    """
    fields = [getattr(row, name) for name in FIELDS[:-1]]
    head = " ".join(column.ljust(width) for column, width in zip(fields, _WIDTHS, strict=True))
    text = f"{head} {row.command}"
    length, must_break = len(text), False
    for group, is_option in _groups(row.arguments, expand):
        if fold and (must_break or is_option or length + 1 + len(group) >= _LINE_LIMIT):
            text, length = f"{text}\n    {group}", 4 + len(group)
        else:
            text, length = f"{text} {group}", length + 1 + len(group)
        must_break = is_option
    return text


def command_line(row: Row) -> str:
    """The command with its arguments, as `postconf -F` prints them."""
    return " ".join([row.command, *(group for group, _ in _groups(row.arguments, lambda value: value))])


def _groups(arguments: tuple[str, ...], expand: Callable[[str], str]) -> Iterator[tuple[str, bool]]:
    """What stays on one line: `-o` with its value (then True), else one argument."""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word == "--":
            yield word, False
            break
        if word == "-o":
            name, value = _override(next(words, ""), "")
            setting = f"{name}={expand(value)}"
            yield f"-o {{{setting}}}" if re.search(r"\s", setting) else f"-o {setting}", True
        else:
            yield word, False
    yield from ((word, False) for word in words)
