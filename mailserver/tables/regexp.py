"""regexp: and pcre: tables: patterns and what they mean, the first match wins.

`/pattern/flags RESULT`, `!/pattern/flags RESULT`, `if /pattern/flags … endif`; any character
that is no letter or digit may stand for the slash. Both kinds ignore case unless the flag `i`
toggles that; `$1`, `${1}` and `$(1)` in the result are what the group matched, `$$` is a
dollar sign. regexp_table(5), pcre_table(5).

The engine is Python's `re` for both. POSIX classes such as `[[:alpha:]]` and the word ends
`\\<` and `\\>` are translated; where alternatives match different lengths, `re` takes the first
one and POSIX the longest, which only `$1` can tell. A key is cut at `LONGEST_KEY`
characters, and a pattern at `LONGEST_PATTERN`, so that a rule costs a bounded time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mailserver.tables.patterns import BadRule, PatternTable, RuleGrammar

LONGEST_KEY: Final = 10_240  # characters
LONGEST_PATTERN: Final = 4_096  # characters

_CLASSES: Final = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\s",
    "blank": r" \t",
    "punct": r"!-/:-@\[-`{-~",
    "xdigit": "0-9A-Fa-f",
    "word": r"\w",
    "cntrl": r"\x00-\x1f\x7f",
    "print": r"\x20-\x7e",
    "graph": r"\x21-\x7e",
}
_REFERENCE: Final = re.compile(r"\$(?:\$|(\d+)|\{(\d+)\}|\((\d+)\))")
_DOLLAR: Final = re.compile(r"\$(?!\$|\d|\{\d+\}|\(\d+\))|\$\$")

# Flags that a letter toggles: regexp knows i m x, pcre i m s x A E U X.
_PCRE_FLAGS: Final = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


@dataclass(frozen=True, slots=True)
class Expression:
    """One compiled pattern; `negated` for `!/pattern/`."""

    pattern: re.Pattern[str]
    negated: bool = False

    def result(self, key: object, value: str) -> str | None:
        """See `Pattern.result`; the groups stand in for `$1`."""
        assert isinstance(key, str)
        match = self.pattern.search(key)
        if self.negated:
            return value if match is None else None
        return None if match is None else substitute(value, match)


def substitute(value: str, match: re.Match[str]) -> str:
    """The result with `$1`, `${1}`, `$(1)` replaced; a group that took no part is empty."""

    def group(reference: re.Match[str]) -> str:
        number = reference[1] or reference[2] or reference[3]
        return "$" if number is None else match[int(number)] or ""

    return _REFERENCE.sub(group, value) if "$" in value else value


def _split_rule(text: str) -> tuple[bool, str, str, str]:
    """Whether negated, the pattern, its flags, and the rest. Raises BadRule."""
    negated = False
    while text.startswith("!"):
        negated, text = not negated, text[1:].lstrip()
    if not text or text[0].isalnum():
        raise BadRule(f'pattern expected in "{text[:40]}": write /pattern/flags result')
    end = 1
    while end < len(text) and text[end] != text[0]:
        end += 2 if text[end] == "\\" else 1
    if end >= len(text):
        raise BadRule(f'no closing regexp delimiter "{text[0]}"')
    flags, _, rest = text[end + 1 :].partition(" ")
    return (
        negated,
        text[1:end].replace("\\" + text[0], text[0] if text[0] == "/" else "\\" + text[0]),
        flags,
        rest.strip(),
    )


def posix_to_python(pattern: str) -> str:
    """A POSIX extended expression in Python's syntax."""
    out, position = list[str](), 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\" and position + 1 < len(pattern):
            pair = pattern[position : position + 2]
            out.append(r"\b" if pair in (r"\<", r"\>") else pair)
            position += 2
        elif character == "[":
            text, position = _bracket(pattern, position)
            out.append(text)
        else:
            out.append(character)
            position += 1
    return "".join(out)


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    """A bracket expression in Python's syntax, and the index behind it. Raises BadRule."""
    position = start + 1
    text = "["
    if pattern[position : position + 1] == "^":
        text, position = "[^", position + 1
    first = position
    while position < len(pattern):
        character = pattern[position]
        if character == "]" and position > first:
            return text + "]", position + 1
        if pattern.startswith("[:", position):
            end = pattern.find(":]", position)
            name = pattern[position + 2 : end] if end > 0 else ""
            if name not in _CLASSES:
                raise BadRule(f"unknown character class [:{name}:]")
            text, position = text + _CLASSES[name], end + 2
        else:
            text, position = text + ("\\" + character if character in "[]\\&~|" else character), position + 1
    raise BadRule("unterminated [ in the pattern")


def _regexp_flags(letters: str) -> re.RegexFlag:
    """i is on at first; m makes ^ and $ match at lines and `.` stop there; x (basic syntax) is ignored."""
    flags = re.IGNORECASE | re.DOTALL
    for letter in letters:
        if letter == "i":
            flags ^= re.IGNORECASE
        elif letter == "m":
            flags ^= re.MULTILINE | re.DOTALL
        elif letter != "x":
            raise BadRule(f'unknown regexp option "{letter}"')
    return flags


def _pcre_flags(letters: str) -> re.RegexFlag:
    """i and s are on at first."""
    flags = re.IGNORECASE | re.DOTALL
    for letter in letters:
        if letter not in _PCRE_FLAGS:
            raise BadRule(f'pcre option "{letter}" is not supported: Python\'s re has i, m, s and x')
        flags ^= _PCRE_FLAGS[letter]
    return flags


def expression(
    text: str,
    flags_of: Callable[[str], re.RegexFlag],
    translate: Callable[[str], str],
    may_substitute: bool = True,
) -> tuple[Expression, str]:
    """The pattern and the result of a rule's text. Raises BadRule."""
    negated, source, flags, value = _split_rule(text)
    if len(source) > LONGEST_PATTERN:
        raise BadRule(f"pattern longer than {LONGEST_PATTERN} characters")
    try:
        pattern = re.compile(translate(source), flags_of(flags))
    except (re.error, OverflowError, RecursionError) as error:
        raise BadRule(f'bad pattern "{source}": {error}') from error
    _check_references(value, pattern, negated, may_substitute)
    return Expression(pattern, negated), value


def _check_references(value: str, pattern: re.Pattern[str], negated: bool, may_substitute: bool) -> None:
    if any(match[0] != "$$" for match in _DOLLAR.finditer(value)):
        raise BadRule(f'bad $ in the result "{value}": write $$ for a dollar sign')
    for reference in _REFERENCE.finditer(value):
        number = reference[1] or reference[2] or reference[3]
        if number is None:
            continue
        if not may_substitute:
            raise BadRule("regular expression substitution is not allowed in this table")
        if negated:
            raise BadRule("$number found in negative match replacement text")
        if int(number) > pattern.groups or int(number) == 0:
            raise BadRule(f"out of range replacement index {number}")


class ExpressionTable(PatternTable):
    """A regexp: or pcre: table."""

    def __init__(
        self, name: str, path: str, grammar: RuleGrammar, now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(name, path, grammar, now)

    def subject(self, key: str) -> str:
        """See `PatternTable.subject`: the key, cut to a bounded length."""
        return key[:LONGEST_KEY]


def regexp_table(
    name: str, path: str, may_substitute: bool = True, now: Callable[[], float] = time.time
) -> ExpressionTable:
    """A table of POSIX extended expressions."""
    return ExpressionTable(
        name, path, lambda text: expression(text, _regexp_flags, posix_to_python, may_substitute), now
    )


def pcre_table(
    name: str, path: str, may_substitute: bool = True, now: Callable[[], float] = time.time
) -> ExpressionTable:
    """A table of Python expressions, which are Perl's for what mail tables use."""
    return ExpressionTable(name, path, lambda text: expression(text, _pcre_flags, str, may_substitute), now)
