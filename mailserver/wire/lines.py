"""Line ends on the SMTP wire: command lines, and the content of a message as it arrives.

Content comes out with LF line ends, ready for the queue file, whatever the borders of the
segments it came in. Only CRLF.CRLF ends DATA (RFC 5321 §4.1.1.4): LF.LF, LF.CRLF, CRLF.LF
and every other look-alike is content (RELIABILITY B1). Lines may be of any length and never
change what the next octet means.

`BareNewline` is `smtpd_forbid_bare_newline`. With NORMALIZE a bare LF ends a content line; with
REJECT the decoder remembers that there was one (`saw_bare_newline`), and the caller refuses
the message; with ACCEPT (Postfix's `no`, for old local software) LF.LF ends DATA too. A bare CR becomes
a space, so that nothing further on can take it for a line end. A NUL stays as it is.

Costs are linear in the octets, three passes at the speed of memchr(3) for the usual segment: patterns of one
octet and what must or must not follow it are found three times as fast as two octets.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

_END: Final = b"\r\n.\r\n"
_LAX_END: Final = re.compile(rb"\r?\n\.\r?\n")
_DOT_LINE: Final = re.compile(rb"\n\.")
_BARE_CR: Final = re.compile(rb"\r(?!\n)")
_HAS_BARE_CR: Final = re.compile(rb"\r[^\n]")  # but for a last octet; faster than what looks ahead
_STUFFED: Final = re.compile(rb"\n\.(?!\n|\Z)")  # a dot that ends a piece is followed by a line end


class BareNewline(Enum):
    """What a bare LF from a client means: the values of `smtpd_forbid_bare_newline`."""

    NORMALIZE = "normalize"
    REJECT = "reject"
    ACCEPT = "no"


class LineTooLong(Exception):
    """A command line went past the limit; it was discarded up to its line end."""


class CommandLines:
    """Cuts received octets into command lines, and holds what is not asked for yet.

    What is held is bounded by whoever feeds it: it must stop reading while lines wait.
    `bare_newline` tells whether the line last given out ended in a bare LF.
    """

    def __init__(self, limit: int = 2048) -> None:
        self._limit = limit
        self._buffer = b""
        self._discarded = 0
        self.bare_newline = False

    def __len__(self) -> int:
        """Octets held."""
        return len(self._buffer)

    @property
    def discarded(self) -> int:
        """Octets of the overlong line that is being thrown away, 0 where there is none."""
        return self._discarded

    def feed(self, data: bytes) -> None:
        """The octets are held, behind those held already."""
        self._buffer = self._buffer + data if self._buffer else data

    def take_all(self) -> bytes:
        """Everything held; nothing is held any more."""
        held, self._buffer = self._buffer, b""
        return held

    def next_line(self) -> bytes | None:
        """The next line without its line end, or None where it is not complete.

        Raises LineTooLong once for a line over the limit, after its end came.
        """
        end = self._buffer.find(b"\n")
        if end < 0:
            if self._discarded or len(self._buffer) > self._limit:
                self._discarded += len(self._buffer)
                self._buffer = b""
            return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        self.bare_newline = line[-1:] != b"\r"
        line = line.removesuffix(b"\r")
        if self._discarded or len(line) > self._limit:
            self._discarded = 0
            raise LineTooLong
        return line


def _held_length(buffer: bytes) -> int:
    """How many octets at the end cannot be judged yet: a prefix of CRLF.CRLF or of LF.LF, or a CR."""
    end = len(buffer)
    if buffer[end - 1 : end] == b"\r":
        end -= 1
    if buffer[end - 2 : end] == b"\n.":
        end -= 2
    elif end == len(buffer) and buffer[end - 1 : end] == b"\n":
        end -= 1
    else:
        return len(buffer) - end
    if buffer[end - 1 : end] == b"\r":
        end -= 1
    return len(buffer) - end


def _with_lf(piece: bytes, mode: BareNewline) -> tuple[bytes, bool]:
    """The piece with LF line ends, bare CRs as spaces; and whether there was a bare LF that may not be."""
    if _HAS_BARE_CR.search(piece) or piece.endswith(b"\r"):
        piece = _BARE_CR.sub(b" ", piece)
    content = piece.replace(b"\r", b"")
    return content, mode is BareNewline.REJECT and content.count(b"\n") != len(piece) - len(content)


class DataDecoder:
    """Decodes what follows DATA, up to the line with the single dot.

    RFC 5321 §4.5.2 (transparency).
    """

    def __init__(self, bare_newline: BareNewline = BareNewline.NORMALIZE) -> None:
        self._mode = bare_newline
        self._held = b"\r\n"  # the line end of DATA itself: a dot may follow at once
        self._at_start = True
        self.is_finished = False
        self.rest = b""
        self.saw_bare_newline = False

    def feed(self, data: bytes) -> bytes:
        """The content that is certain by now, LF line ends.

        After the end, `is_finished` is true and `rest` holds the octets behind it.
        """
        buffer = self._held + data
        has_dots = _DOT_LINE.search(buffer) is not None
        body_end, rest_start = self._find_end(buffer) if has_dots else (0, 0)
        if rest_start:
            self.is_finished = True
            self._held = b""
            self.rest = buffer[rest_start:]
            piece = buffer[:body_end]
        else:
            held = _held_length(buffer)
            self._held = buffer[len(buffer) - held :]
            piece = buffer[: len(buffer) - held]
        return self._decode(piece, has_dots) if piece else b""

    def _find_end(self, buffer: bytes) -> tuple[int, int]:
        """Where the body ends (behind its last line end) and where the rest begins; (0, 0) if not here."""
        if self._mode is BareNewline.ACCEPT:
            found = _LAX_END.search(buffer)
            if found is None:
                return 0, 0
            return buffer.index(b"\n", found.start()) + 1, found.end()
        end = buffer.find(_END)
        return (end + 2, end + 5) if end >= 0 else (0, 0)

    def _decode(self, piece: bytes, has_dots: bool) -> bytes:
        content, has_bare_newline = _with_lf(piece, self._mode)
        self.saw_bare_newline |= has_bare_newline
        if has_dots and b"\n." in content:
            has_lone_dot = b"\n.\n" in content or content.endswith(b"\n.")
            content = _STUFFED.sub(b"\n", content) if has_lone_dot else content.replace(b"\n.", b"\n")
        if self._at_start:
            self._at_start = False
            content = content[1:]
        return content


class ChunkDecoder:
    """Decodes the chunks of BDAT, which are counted and not stuffed. RFC 3030 §2."""

    def __init__(self, bare_newline: BareNewline = BareNewline.NORMALIZE) -> None:
        self._mode = bare_newline
        self._held = b""
        self._ends_in_newline = True
        self.saw_bare_newline = False

    def feed(self, data: bytes) -> bytes:
        """The content that is certain by now, LF line ends."""
        piece = self._held + data
        self._held = b"\r" if piece.endswith(b"\r") else b""
        return self._decode(piece[:-1] if self._held else piece)

    def finish(self) -> bytes:
        """The rest of the content after the last chunk; the content ends in a line end."""
        rest = self._decode(self._held)
        self._held = b""
        return rest if self._ends_in_newline else rest + b"\n"

    def _decode(self, piece: bytes) -> bytes:
        if not piece:
            return b""
        content, has_bare_newline = _with_lf(piece, self._mode)
        self.saw_bare_newline |= has_bare_newline
        self._ends_in_newline = content.endswith(b"\n")
        return content
