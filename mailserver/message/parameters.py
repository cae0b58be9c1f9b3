"""Values of MIME fields: a word with parameters, as in Content-Type and Content-Disposition.

Values arrive unfolded. Comments are skipped, quoted strings lose their quotes, values keep
their case. Parameters continued after RFC 2231 §3 are joined, and stay encoded: `name*0*`
and `name*1` become `name*`. Anything that does not parse is left out, never an error.
"""

from __future__ import annotations

import re
from typing import Final

Parameters = tuple[tuple[bytes, bytes], ...]

_COMMENT_PIECE: Final = re.compile(rb'"[^"\\]*+(?>(?:\\.[^"\\]*+)*)"?|[()]|\\.|[^"()\\]++|\\', re.DOTALL)
_WORD: Final = re.compile(rb"[^\x00-\x20()<>@,;:\\\"/\[\]?=\x7f]+")
_PARAMETER: Final = re.compile(
    rb';[\x00-\x20]*+([^\x00-\x20=;"]++)[\x00-\x20]*+=[\x00-\x20]*+(?:"([^"\\]*+(?>(?:\\.[^"\\]*+)*))"?|([^\x00-\x20;"]++))',
    re.DOTALL,
)
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)
_CONTINUED: Final = re.compile(rb"([^*]+)\*(?:([0-9]{1,4})(\*?))?")


def without_comments(value: bytes) -> bytes:
    """The value with each comment replaced by a space; quoted strings are kept as they are.

    An unclosed comment runs to the end. RFC 5322 §3.2.2.
    """
    if b"(" not in value:
        return value
    kept: list[bytes] = []
    depth = 0
    for piece in _COMMENT_PIECE.findall(value):
        if piece == b"(":
            depth += 1
        elif piece == b")" and depth:
            depth -= 1
            kept.append(b" ")
        elif not depth:
            kept.append(piece)
    return b"".join(kept)


def word(value: bytes) -> bytes:
    """The first token of the value, or nothing. RFC 2045 §5.1."""
    found = _WORD.match(without_comments(value).lstrip())
    return found[0] if found else b""


def words(value: bytes) -> tuple[bytes, ...]:
    """The tokens of a list separated by commas. RFC 3282 §2."""
    return tuple(filter(None, map(word, without_comments(value).split(b","))))


def parameters(value: bytes) -> Parameters:
    """The parameters in order, those of RFC 2231 last and by name, as Dovecot has them.

    An unclosed quoted string ends with the value.
    """
    plain: list[tuple[bytes, bytes]] = []
    continued: dict[bytes, list[tuple[int, bytes, bytes, bytes]]] = {}
    for name, quoted, bare in _PARAMETER.findall(without_comments(value)):
        text = _QUOTED_PAIR.sub(rb"\1", quoted) if b"\\" in quoted else quoted or bare
        piece = _CONTINUED.fullmatch(name) if b"*" in name else None
        if piece:
            number, extended = (piece[2], piece[3]) if piece[2] else (b"0", b"*")
            continued.setdefault(piece[1].lower(), []).append((int(number), extended, name, text))
        else:
            plain.append((name, text))
    for _, pieces in sorted(continued.items()):
        plain.extend(_joined(pieces))
    return tuple(plain)


def _joined(pieces: list[tuple[int, bytes, bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """One parameter made of its pieces; the pieces themselves where some are missing or double."""
    pieces = sorted(pieces, key=lambda piece: piece[0])
    if [piece[0] for piece in pieces] != list(range(len(pieces))):
        return [(name, text) for _, _, name, text in pieces]
    base = pieces[0][2].partition(b"*")[0]
    star = b"*" if any(extended for _, extended, _, _ in pieces) else b""
    return [(base + star, b"".join(text for _, _, _, text in pieces))]


def find(parameters: Parameters, name: bytes) -> bytes | None:
    """The value of the parameter of that name (in lower case), or None."""
    for spelt, value in parameters:
        if spelt.lower() == name:
            return value
    return None
