"""The small grammars that main.cf, master.cf and lookup tables share.

Text is split at commas and white space, except inside braces; a logical line is a line and
the indented ones after it. postconf(5), "File format".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

WHITE_SPACE: Final = " \t\r\n\f\v"
LIST_SEPARATORS: Final = "," + WHITE_SPACE


class BraceError(ValueError):
    """A `{` without its `}`, or text after it. The text says which."""


def split_words(text: str, separators: str = LIST_SEPARATORS) -> tuple[str, ...]:
    """The items of a list; a separator inside braces does not separate, and the braces stay.

    An item that lacks a closing brace reaches to the end.
    """
    if "{" not in text:
        for separator in separators.translate({ord(white): None for white in WHITE_SPACE}):
            text = text.replace(separator, " ")
        return tuple(text.split())
    return tuple(_braced_words(text, separators))


def _braced_words(text: str, separators: str) -> Iterator[str]:
    start, depth = None, 0
    for position, character in enumerate(text):
        if depth == 0 and character in separators:
            if start is not None:
                yield text[start:position]
            start = None
            continue
        start = position if start is None else start
        depth = max(0, depth + (character == "{") - (character == "}"))
    if start is not None:
        yield text[start:]


def closing_brace(text: str, start: int) -> int:
    """The index of the brace that closes the one at `start`. Raises BraceError."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return position
    raise BraceError(f"missing '}}' in \"{text[start:]}\"")


def unbrace(text: str) -> str:
    """What stands between the braces of `{ text }`, trimmed. Raises BraceError."""
    text = text.strip(WHITE_SPACE)
    if not text.startswith("{"):
        raise BraceError(f"missing '{{' before \"{text}\"")
    end = closing_brace(text, 0)
    if text[end + 1 :]:
        raise BraceError(f"syntax error after '}}' in \"{text}\"")
    return text[1:end].strip(WHITE_SPACE)


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """A line with its continuations. `number` counts from 1."""

    number: int
    text: str
    continues_nothing: bool = False  # the file's first line is indented


def logical_lines(text: str, keeps_indent: bool = False) -> Iterator[LogicalLine]:
    """The logical lines of a file.

    Empty lines and lines whose first visible character is `#` are skipped, also inside a
    continued line. A line that starts with white space continues the one before it: with one space
    between them as in main.cf, or with that white space as in tables, where it may be part of a pattern.
    """
    number, pieces, orphan = 0, list[str](), False
    for here, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(WHITE_SPACE)
        if not stripped or stripped.startswith("#"):
            continue
        if line[0] in WHITE_SPACE and pieces:
            pieces.append(line.rstrip(WHITE_SPACE) if keeps_indent else f" {stripped}")
            continue
        if pieces:
            yield LogicalLine(number, "".join(pieces), orphan)
        number, pieces, orphan = here, [stripped], line[0] in WHITE_SPACE
    if pieces:
        yield LogicalLine(number, "".join(pieces), orphan)
