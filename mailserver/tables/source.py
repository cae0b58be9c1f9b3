"""The text that indexed tables are made from: `key value` lines, and aliases' `name: value`.

Keys are folded to lower case and the first of two equal ones wins, as with postmap(1) and
postalias(1). A malformed line is reported and skipped; of the key that it seems to be about nobody
can say "not found".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from mailserver.tables.words import logical_lines


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One entry of a source text; `line` counts from 1."""

    key: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is no entry, and why. `key` is the key it seems to be about, or its beginning."""

    line: int
    problem: str
    key: str


@dataclass(slots=True)
class Source:
    """A source text, parsed: the entry of each key, and what was wrong."""

    lines: dict[str, SourceLine] = field(default_factory=dict)
    malformed: list[Malformed] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)


Grammar = Callable[[str], Iterator[SourceLine | Malformed]]

_MAP_LINE: Final = re.compile(r'((?:"(?:\\.|[^"\\])*"|\\.|[^\s"\\])+)(?:\s+(.*))?', re.DOTALL)
_ALIAS_NAME: Final = re.compile(r'\s*+(?:"((?:\\.|[^"\\])*)"\s*+|([^":]*+)):\s*(.*)', re.DOTALL)


def map_lines(text: str) -> Iterator[SourceLine | Malformed]:
    """The entries of a postmap(1) source. A quoted part of a key may hold white space; quotes stay."""
    for line in logical_lines(text, keeps_indent=True):
        match = _MAP_LINE.fullmatch(line.text)
        if match is None:
            match = re.fullmatch(r"(\S+)(?:\s+(.*))?", line.text, re.DOTALL)
        if match is None or not match[2]:
            yield Malformed(line.number, "expected format: key whitespace value", _first_word(line.text))
        else:
            yield SourceLine(match[1], match[2], line.number)


def alias_lines(text: str) -> Iterator[SourceLine | Malformed]:
    """The entries of an aliases(5) file. Quotes around a name are removed; the value is left as it is."""
    for line in logical_lines(text, keeps_indent=True):
        match = _ALIAS_NAME.fullmatch(line.text)
        name = (match[1] if match[1] is not None else match[2].rstrip()) if match else ""
        if match is None or not name or not match[3]:
            yield Malformed(line.number, "need name:value pair", _first_word(line.text))
        elif match[1] is None and re.search(r"[\s,;<>()@\[\]]", name):
            problem = "name must be local" if "@" in name else "need name:value pair"
            yield Malformed(line.number, problem, _first_word(line.text))
        else:
            yield SourceLine(re.sub(r"\\(.)", r"\1", name), match[3], line.number)


def _first_word(text: str) -> str:
    match = re.match(r'"?([^\s:"]*)', text)
    return match[1].lower() if match else ""


def read_source(
    text: str, grammar: Grammar = map_lines, fold: bool = True, last_wins: bool = False
) -> Source:
    """The parsed text: the first (or last) entry of each key, and the problems in their order."""
    source = Source()
    for item in grammar(text):
        if isinstance(item, Malformed):
            source.malformed.append(item)
            continue
        key = item.key.lower() if fold else item.key
        if key in source.lines:
            source.duplicates.append(key)
        if last_wins or key not in source.lines:
            source.lines[key] = SourceLine(key, item.value, item.line)
    return source
