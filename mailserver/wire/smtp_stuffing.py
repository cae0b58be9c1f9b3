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
    """Encodes content piece by piece."""

    def __init__(self) -> None:
        self._rest = b""  # the line that has begun

    def feed(self, data: bytes) -> bytes:
        """The wire form of every line that is whole by now."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        whole = _encode(data[:end])
        if len(self._rest) > 1 << 16:
            # A line without end goes out in pieces of LONGEST_LINE; each starts with a blank.
            head, self._rest = self._rest[:-LONGEST_LINE], b" " + self._rest[-LONGEST_LINE:]
            whole += _encode(head + b"\n")
        return whole

    def finish(self) -> bytes:
        """The last line, ended where it was not, and the end of data."""
        rest, self._rest = self._rest, b""
        return (_encode(rest + b"\n") if rest else b"") + END_OF_DATA


def _encode(lines: bytes) -> bytes:
    if not lines:
        return b""
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b" ")
    if len(lines) > LONGEST_LINE and max(map(len, lines.split(b"\n"))) > LONGEST_LINE:
        lines = b"\n".join(_folded(line) for line in lines.split(b"\n"))
    lines = lines.replace(b"\n.", b"\n..").replace(b"\n", b"\r\n")
    return b"." + lines if lines.startswith(b".") else lines


def _folded(line: bytes) -> bytes:
    """The line broken with LF and a blank, as Postfix's smtp_line_length_limit does."""
    if len(line) <= LONGEST_LINE:
        return line
    pieces = [line[:LONGEST_LINE]]
    step = LONGEST_LINE - 1
    pieces += [line[at : at + step] for at in range(LONGEST_LINE, len(line), step)]
    return b"\n ".join(pieces)
