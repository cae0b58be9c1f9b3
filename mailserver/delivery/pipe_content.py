"""A message as a pipe(8) row's flags and eol want it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

_LINES: Final = {">": re.compile(rb"^(?=From )", re.MULTILINE), ".": re.compile(rb"^(?=\.)", re.MULTILINE)}
_BLANK: Final = "B"


def formatted(pieces: Iterable[bytes], flags: str, eol: bytes) -> Iterator[bytes]:
    """The content (LF line ends), its last line ended.

    `>` puts one before lines that begin with `From `, `.` a dot before those that begin with one, `B` an
    empty line at the end. `eol` stands where LF was.
    """
    changes = [(pattern, flag.encode()) for flag, pattern in _LINES.items() if flag in flags]
    for lines in _whole_lines(pieces):
        for pattern, mark in changes:
            lines = pattern.sub(mark, lines)
        yield lines if eol == b"\n" else lines.replace(b"\n", eol)
    if _BLANK in flags:
        yield eol


def _whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        data = held + piece
        end = data.rfind(b"\n") + 1
        held = data[end:]
        if end:
            yield data[:end]
    if held:
        yield held + b"\n"
