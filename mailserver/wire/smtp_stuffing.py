"""Content on its way out over SMTP: CRLF line ends, stuffed dots, lines of at most 998 octets.

Stored content has LF line ends. Whatever it holds, what comes out has no bare CR or LF and no
end-of-data sequence before the end, at any chunk border (RELIABILITY B1). RFC 5321 §4.5.2,
§4.5.3.1.6.
"""

from __future__ import annotations

from typing import Final

LONGEST_LINE: Final = 998  # octets without CRLF
END_OF_DATA: Final = b".\r\n"


class Stuffing:
    """Encodes content piece by piece; lines above `limit` octets are broken, 0 leaves them whole."""

    def __init__(self, limit: int = LONGEST_LINE) -> None:
        self._limit = limit
        self._rest = b""  # the line that has begun

    def feed(self, data: bytes) -> bytes:
        """The wire form of every line that is whole by now."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        whole = _encode(data[:end], self._limit)
        if self._limit and len(self._rest) > 1 << 16:
            # A line without end goes out in pieces of the limit; each starts with a blank.
            head, self._rest = self._rest[: -self._limit], b" " + self._rest[-self._limit :]
            whole += _encode(head + b"\n", self._limit)
        return whole

    def finish(self) -> bytes:
        """The last line, ended where it was not, and the end of data."""
        rest, self._rest = self._rest, b""
        return (_encode(rest + b"\n", self._limit) if rest else b"") + END_OF_DATA


def _encode(lines: bytes, limit: int) -> bytes:
    if not lines:
        return b""
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b" ")
    if 0 < limit < len(lines) and max(map(len, lines.split(b"\n"))) > limit:
        lines = b"\n".join(_folded(line, limit) for line in lines.split(b"\n"))
    lines = lines.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
    return b"." + lines if lines.startswith(b".") else lines


def _folded(line: bytes, limit: int) -> bytes:
    """The line broken with LF and a blank, as Postfix's smtp_line_length_limit does."""
    if len(line) <= limit:
        return line
    pieces = [line[:limit]]
    step = limit - 1
    pieces += [line[at : at + step] for at in range(limit, len(line), step)]
    return b"\n ".join(pieces)
