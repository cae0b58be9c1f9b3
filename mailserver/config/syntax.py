"""The grammar of main.cf and the expansion of `$name`. postconf(5), "File format" and "$name".

    name = value
        continued          joined by one space; comments and empty lines do not end it

    $name ${name} $(name)             the value
    ${name?text} ${name:text}         text where name has a value; where it has none (or an empty one)
    ${name?{one}:{other}}             one or the other
    ${{a} == {b} ? {one} : {other}}   == != < <= > >=, numbers compared as numbers;
                                      with `level` behind the operator as versions (3.9 < 3.10)
    $$                                a dollar sign

Everything here is text in, values out; nothing reads a file.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from mailserver.tables.words import WHITE_SPACE, BraceError, closing_brace, logical_lines, unbrace

DEEPEST_NESTING: Final = 100

_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_OPERATOR: Final = re.compile(r"\s*(==|!=|<=|>=|<|>)(level)?\s*")
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class ConfigError(Exception):
    """The configuration cannot be used. The text is `path:line: what: how to fix`."""


class ExpansionError(ValueError):
    """A `$` that cannot be expanded. The text says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One `name = value` of a file; `where` is `path:line`, or says what else it came from."""

    name: str
    value: str
    where: str


def parse_main(text: str, path: str) -> tuple[list[Setting], list[str]]:
    """The settings of a main.cf in their order, duplicates included, and warnings. Raises ConfigError."""
    settings: list[Setting] = []
    warnings: list[str] = []
    lines: dict[str, str] = {}
    for line in logical_lines(text):
        where = f"{path}:{line.number}"
        if line.continues_nothing:
            warnings.append(f'{where}: logical line must not start with whitespace: "{line.text}"')
            continue
        setting = _setting(line.text, where)
        if setting.name in lines:
            warnings.append(
                f"{where}: overriding earlier entry: {setting.name} of {lines[setting.name]}: remove one"
            )
        lines[setting.name] = where
        settings.append(setting)
    return settings, warnings


def _setting(text: str, where: str) -> Setting:
    name, equals, value = text.partition("=")
    name = name.rstrip(WHITE_SPACE)
    if not name and equals:
        raise ConfigError(f'{where}: missing attribute name: "{text}": write name = value')
    if not equals or re.search(r"\s", name):
        raise ConfigError(f"{where}: missing '=' after attribute name: \"{text}\": write name = value")
    return Setting(name, value.strip(WHITE_SPACE), where)


# The value of a parameter, unexpanded; None where nobody defines it.
Lookup = Callable[[str], "str | None"]


class Expander:
    """Expands `$name` by what `lookup` knows. Names that it does not know are left in `undefined`."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self.undefined: set[str] = set()

    def expand(self, text: str) -> str:
        """The text with every `$` expanded, values too. Raises ExpansionError."""
        return self._expand(text, 0)

    def _expand(self, text: str, depth: int) -> str:
        if "$" not in text:
            return text
        if depth > DEEPEST_NESTING:
            raise ExpansionError(f'unreasonable macro call nesting: "{text}": it refers to itself')
        out, position = list[str](), 0
        while (dollar := text.find("$", position)) >= 0:
            out.append(text[position:dollar])
            expanded, position = self._reference(text, dollar + 1, depth)
            out.append(expanded)
        out.append(text[position:])
        return "".join(out)

    def _reference(self, text: str, start: int, depth: int) -> tuple[str, int]:
        """What stands for the reference whose `$` is before `start`, and the index behind it."""
        first = text[start : start + 1]
        if first == "$":
            return "$", start + 1
        if first in ("{", "("):
            end = _closing(text, start, first)
            return self._braced(text[start + 1 : end].strip(WHITE_SPACE), depth), end + 1
        match = _NAME.match(text, start)
        if match is None:
            raise ExpansionError(f'empty macro name: "{text}": write $$ for a dollar sign')
        return self._value(match[0], depth), match.end()

    def _braced(self, body: str, depth: int) -> str:
        if body.startswith("{"):
            return self._relational(body, depth)
        match = _NAME.match(body)
        if match is None:
            raise ExpansionError(f'empty macro name: "${{{body}}}"')
        rest = body[match.end() :].lstrip(WHITE_SPACE)
        if not rest:
            return self._value(match[0], depth)
        if rest[0] not in "?:":
            raise ExpansionError(f'attribute name syntax error: "{body}"')
        return self._choose(bool(self._value(match[0], depth)), rest, depth)

    def _relational(self, body: str, depth: int) -> str:
        left, rest = _payload(body)
        match = _OPERATOR.match(rest)
        if match is None:
            raise ExpansionError(f'"==", "!=", "<", "<=", ">=" or ">" expected in "{body}"')
        right, rest = _payload(rest[match.end() :])
        holds = compare(
            self._expand(left, depth + 1), match[1], self._expand(right, depth + 1), bool(match[2])
        )
        return self._choose(holds, rest, depth) if rest else ("true" if holds else "")

    def _choose(self, holds: bool, rest: str, depth: int) -> str:
        """The text of `?one`, `:other` or `?{one}:{other}` that applies."""
        mark, text = rest[0], rest[1:].lstrip(WHITE_SPACE)
        if mark not in "?:":
            raise ExpansionError(f'"?" or ":" expected at "{rest}"')
        if not text.startswith("{"):
            return self._expand(text, depth + 1) if holds == (mark == "?") else ""
        first, rest = _payload(text)
        other = ""
        if rest and (mark == ":" or rest[0] != ":"):
            raise ExpansionError(f'unexpected input at "{rest}"')
        if rest:
            other = rest[1:].lstrip(WHITE_SPACE)
            other = _only_payload(other) if other.startswith("{") else other
        return self._expand(first if holds == (mark == "?") else other, depth + 1)

    def _value(self, name: str, depth: int) -> str:
        value = self._lookup(name)
        if value is None:
            self.undefined.add(name)
            return ""
        if "$" in value and depth >= DEEPEST_NESTING:
            raise ExpansionError(f'unreasonable macro call nesting: "{name}": it refers to itself')
        return self._expand(value, depth + 1)


def _closing(text: str, start: int, opening: str) -> int:
    closing = {"{": "}", "(": ")"}[opening]
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == opening) - (text[position] == closing)
        if depth == 0:
            return position
    raise ExpansionError(f'truncated macro reference: "${text[start:]}"')


def _payload(text: str) -> tuple[str, str]:
    """What the braces at the start hold, trimmed, and what follows them, trimmed."""
    if not text.startswith("{"):
        raise ExpansionError(f'"{{" expected at "{text}"')
    try:
        end = closing_brace(text, 0)
    except BraceError as error:
        raise ExpansionError(str(error)) from error
    return text[1:end].strip(WHITE_SPACE), text[end + 1 :].strip(WHITE_SPACE)


def _only_payload(text: str) -> str:
    try:
        return unbrace(text)
    except BraceError as error:
        raise ExpansionError(str(error)) from error


def compare(left: str, relation: str, right: str, as_levels: bool = False) -> bool:
    """Whether the relation holds; numbers compare as numbers, other texts by their characters."""
    if as_levels:
        return _COMPARE[relation](level(left), level(right))
    if left.isdecimal() and right.isdecimal():
        return _COMPARE[relation](int(left), int(right))
    return _COMPARE[relation](left, right)


def level(text: str) -> tuple[int, ...]:
    """A compatibility level, `major[.minor[.patch]]`, as numbers. Raises ExpansionError."""
    parts = text.strip().split(".")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() for part in parts):
        raise ExpansionError(f'malformed compatibility level: "{text}": write major.minor')
    return tuple(int(part) for part in parts) + (0,) * (3 - len(parts))


def referenced_names(text: str) -> set[str]:
    """The names that a value mentions as `$name`, `${name…` or `$(name…`."""
    return set(re.findall(r"\$(?:[({]\s*)?([A-Za-z0-9_]+)", text.replace("$$", "")))
