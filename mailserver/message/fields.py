"""Header fields that we write ourselves: folded, encoded, and never more than one field.

Every field of ours goes through `make_field`, so that no value, whoever chose it, can begin
another field or end the header.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime, timedelta, timezone
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029\ud800-\udfff]+")
_PIECE: Final = re.compile(r"[ ]*[^ ]+")
_WIDTH: Final = 78  # characters a line; RFC 5322 §2.1.1
_LONGEST_LINE: Final = 900  # below the 998 of RFC 5322 §2.1.1, the name included
_WORD_OCTETS: Final = 45  # octets in one encoded word; RFC 2047 §2 allows 75 characters
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def one_line(text: str) -> str:
    """The text with every run of control characters, line ends included, as one space."""
    return _CONTROL.sub(" ", text).strip()


def make_field(name: str, value: str, utf8: bool = False) -> bytes:
    """One whole field, LF line ends, folded at spaces where it is long.

    Text beyond ASCII is UTF-8 as it stands with `utf8` (RFC 6532), else words in `?` for
    what has no ASCII form; use `encoded` first where a value is free text.
    """
    value = one_line(value)
    text = f"{name}:"
    lines = []
    for piece in _PIECE.findall(" " + value):
        if text.strip() != f"{name}:" and len(text) + len(piece) > _WIDTH:
            lines.append(text)
            text = " "
            piece = piece.lstrip(" ")
        while len(text) + len(piece) > _LONGEST_LINE:
            room = _LONGEST_LINE - len(text)
            lines.append(text + piece[:room])
            text, piece = " ", piece[room:]
        text += piece
    lines.append(text)
    return ("\n".join(lines) + "\n").encode("utf-8" if utf8 else "ascii", "replace")


def encoded(text: str) -> str:
    """Free text as it may stand in an ASCII field: encoded words where it needs them. RFC 2047."""
    text = one_line(text)
    if text.isascii():
        return text
    words: list[str] = []
    octets = b""
    for character in text:
        if len(octets) + len(character.encode()) > _WORD_OCTETS:
            words.append(_word(octets))
            octets = b""
        octets += character.encode()
    return " ".join([*words, _word(octets)])


def _word(octets: bytes) -> str:
    return f"=?utf-8?b?{base64.b64encode(octets).decode('ascii')}?="


def format_date(posix: float, zone_minutes: int = 0) -> str:
    """A date-time, `zone_minutes` east of Greenwich. RFC 5322 §3.3."""
    moment = datetime.fromtimestamp(int(posix), timezone(timedelta(minutes=zone_minutes)))
    sign = "-" if zone_minutes < 0 else "+"
    hours, minutes = divmod(abs(zone_minutes), 60)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day} {_MONTHS[moment.month - 1]} {moment.year:04d} "
        f"{moment:%H:%M:%S} {sign}{hours:02d}{minutes:02d}"
    )
