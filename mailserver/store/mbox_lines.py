"""The lines that make an mbox: `From ` lines between messages, and the quoting of lines like them.

    From sender@example.com  Tue Nov 24 02:22:04 2026

Two spaces, asctime in local time, MAILER-DAEMON for the null sender: as Postfix writes it.
When reading, every form that mutt and Dovecot take is taken: one space, no sender, no
seconds, a time zone before or after the year, the date of RFC 822, words after it, a weekday in
another language. A line that only begins with `From ` separates nothing. Content-Length is not believed.

Quoting is Postfix's: a line of content that begins with `From ` gets a `>`, and is shown as it
is stored. With mboxrd a line of `>`s followed by `From ` gets one more, and loses one when read.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterable, Iterator
from typing import Final

LONGEST_FROM_LINE: Final = 1000  # octets; a longer line is text

_MONTHS: Final = (
    b"Jan",
    b"Feb",
    b"Mar",
    b"Apr",
    b"May",
    b"Jun",
    b"Jul",
    b"Aug",
    b"Sep",
    b"Oct",
    b"Nov",
    b"Dec",
)
_MONTH: Final = b"((?i:" + b"|".join(_MONTHS) + b"))"
_ZONE: Final = rb"(?: +([+-]\d{4}|[A-Za-z][^ \t\r\n]{0,9}))?"
_CLOCK: Final = rb"(\d{1,2}):(\d\d)(?::(\d\d))?"
_SENDER: Final = (
    rb'From (?:(?>(?:"(?>(?:[^"\\\r\n]|\\.)*)")?)\S*+ ++)?? *+'  # possessive: linear on hostile lines
)
_WEEKDAY: Final = rb"[A-Za-z]{3}"
_REST: Final = rb"(?:[ \t].*)?\r?\n?"
_ASCTIME: Final = re.compile(
    _SENDER + _WEEKDAY + b" +" + _MONTH + rb" +(\d{1,2}) +" + _CLOCK + _ZONE + rb" +(\d{4})" + _ZONE + _REST
)
_RFC822: Final = re.compile(
    _SENDER + _WEEKDAY + rb",? +(\d{1,2}) +" + _MONTH + rb" +(\d{4}) +" + _CLOCK + _ZONE + _REST
)
_QUOTED: Final = {False: re.compile(rb"(\n)From "), True: re.compile(rb"(\n>*)From ")}
_UNQUOTE: Final = re.compile(rb"^>(>*From )", re.M)
_MAYBE_FROM: Final = re.compile(rb"\n>*(?:F(?:r(?:om?)?)?)?")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


def from_line(sender: str, when: float) -> bytes:
    """The line that begins a message, LF included. `sender` "" is the null sender."""
    address = _CONTROL.sub(b"?", sender.encode("utf-8", "surrogateescape")) or b"MAILER-DAEMON"
    return b"From %b  %b\n" % (address, time.asctime(time.localtime(when)).encode("ascii"))


def parse_from_line(line: bytes) -> int | None:
    """The POSIX time that a `From ` line names, or None where it is no such line.

    Local time unless it carries a numeric zone.
    """
    found = _ASCTIME.fullmatch(line)
    if found:
        month, day, hour, minute, second, zone, year, late_zone = found.groups()
    else:
        found = _RFC822.fullmatch(line)
        if not found:
            return None
        day, month, year, hour, minute, second, zone = found.groups()
        late_zone = None
    month_number = _MONTHS.index(month.capitalize()) + 1
    moment = (int(year), month_number, int(day), int(hour), int(minute), int(second or 0))
    is_early = zone and zone[:1] in b"+-"
    return _posix(moment, (zone if is_early else late_zone) or b"")


def _posix(moment: tuple[int, int, int, int, int, int], zone: bytes) -> int:
    if zone[:1] in (b"+", b"-"):
        minutes = int(zone[1:3]) * 60 + int(zone[3:5])
        return calendar.timegm((*moment, 0, 0, 0)) - (minutes if zone[:1] == b"+" else -minutes) * 60
    try:
        return int(time.mktime((*moment, 0, 0, -1)))
    except (OverflowError, ValueError):
        return 0


def quoted(pieces: Iterable[bytes], mboxrd: bool = False) -> Iterator[bytes]:
    """The same text with its `From ` lines quoted, wherever the pieces are cut. LF line ends."""
    pattern = _QUOTED[mboxrd]
    held, virtual = b"\n", 1  # the text begins at the start of a line
    for piece in pieces:
        block = held + piece
        end = _whole_lines(block)
        if end:
            yield (
                pattern.sub(rb"\1>From ", block[:end])[virtual:] if b"From " in block else block[virtual:end]
            )
            virtual = 0
        held = block[end:]
    if held[virtual:]:
        yield held[virtual:]


def _whole_lines(block: bytes) -> int:
    """Where the part of the block ends of which it is known whether it holds a `From ` line."""
    newline = block.rfind(b"\n")
    return newline if newline >= 0 and _MAYBE_FROM.fullmatch(block, newline) else len(block)


def unquoted(text: bytes) -> bytes:
    """What `quoted` was given, for mboxrd."""
    return _UNQUOTE.sub(rb"\1", text)
