"""The Date field read: RFC 5322 §3.3, its obsolete forms (§4.3), and what programs write instead.

The day comes first with or without its name, the month is a word, the year has two digits or
more; time and zone may be missing, as RFC 5256 §2.2 foresees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from mailserver.message.parameters import without_comments

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
_ZONES: Final = {
    b"EST": -5,
    b"EDT": -4,
    b"CST": -6,
    b"CDT": -5,
    b"MST": -7,
    b"MDT": -6,
    b"PST": -8,
    b"PDT": -7,
}
_DATE: Final = re.compile(
    rb"\s*+(?:[A-Za-z]{3,9}\s*+,?\s*+)?([0-9]{1,2})[\s-]++([A-Za-z]{3})[A-Za-z]{0,6}+[\s-]++([0-9]{2,4})"
    rb"(?:\s++([0-9]{1,2})\s*+:\s*+([0-9]{2})(?:\s*+:\s*+([0-9]{2}))?)?(?:\s*+(?:([+-])([0-9]{2})([0-9]{2})|([A-Za-z]{1,5})))?"
)
_LONGEST: Final = 300  # octets looked at


@dataclass(frozen=True, slots=True)
class SentDate:
    """`posix` in seconds, UTC; `day` as written, in the sender's zone (SENTON ignores the zone)."""

    posix: int
    day: date


def sent_date(value: bytes) -> SentDate | None:
    """The date of an unfolded Date field, or None where it is none."""
    found = _DATE.match(without_comments(value[:_LONGEST]))
    if found is None:
        return None
    month = _MONTHS.get(found[2].lower())
    try:
        day = date(_year(found[3]), month or 0, int(found[1]))
    except ValueError:
        return None
    hour, minute, second = (int(found[index] or 0) for index in (4, 5, 6))
    if hour > 23 or minute > 59 or second > 60:
        return None
    midnight = (day.toordinal() - date(1970, 1, 1).toordinal()) * 86400
    return SentDate(midnight + hour * 3600 + minute * 60 + second - _zone(found), day)


def _year(digits: bytes) -> int:
    """RFC 5322 §4.3: two digits up to 49 are 20xx, three digits count from 1900."""
    year = int(digits)
    if len(digits) == 2:
        return year + (2000 if year < 50 else 1900)
    return year + 1900 if len(digits) == 3 else year


def _zone(found: re.Match[bytes]) -> int:
    """Seconds east of Greenwich; unknown names count as none."""
    if found[7]:
        seconds = int(found[8]) * 3600 + int(found[9]) * 60
        return -seconds if found[7] == b"-" else seconds
    return _ZONES.get((found[10] or b"").upper(), 0) * 3600
