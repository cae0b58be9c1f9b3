"""What the server says: strings, flags, dates and names as IMAP octets.

RFC 3501 §7 and §9. Everything returned is whole syntax: a quoted string where it can be one,
else a literal, so that no content can break out of its place.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from mailserver.wire.imap_arguments import MONTHS
from mailserver.wire.imap_mailbox import encode_modified_utf7

_QUOTABLE: Final = re.compile(rb"[\x20-\x7e]{0,1000}")
_QUOTABLE_UTF8: Final = re.compile(rb"[\x20-\x7e\x80-\xff]{0,1000}")
_PLAIN_WORD: Final = re.compile(rb"(?!NIL\Z)[A-Za-z0-9$!+=@._-]+", re.IGNORECASE)
_SPECIAL: Final = re.compile(rb'(["\\])')
_LAST_SECOND: Final = 253_402_214_399  # a day before the year 9999 ends, which it has not then in any zone
_UNSAFE: Final = re.compile(r"[^\x20-\x7e]")


def literal(content: bytes) -> bytes:
    """The octets as a literal."""
    return b"{%d}\r\n%b" % (len(content), content)


def string(content: bytes, takes_utf8: bool = False) -> bytes:
    """The octets as a quoted string where that is possible, else as a literal."""
    quotable = _QUOTABLE_UTF8 if takes_utf8 else _QUOTABLE
    if quotable.fullmatch(content):
        return b'"' + _SPECIAL.sub(rb"\\\1", content) + b'"'
    return literal(content)


def astring(content: bytes) -> bytes:
    """The octets as an atom where they are a plain word: some clients take quotes for a part of it."""
    return content if _PLAIN_WORD.fullmatch(content) else string(content)


def nstring(content: bytes | None) -> bytes:
    """As `string`, NIL for None."""
    return b"NIL" if content is None else string(content)


@lru_cache(maxsize=1024)
def mailbox(name: str, takes_utf8: bool = False) -> bytes:
    """A mailbox's name, always quoted. RFC 3501 §5.1, RFC 6855 §3."""
    raw = name.encode("utf-8") if takes_utf8 else encode_modified_utf7(name)
    return string(raw, takes_utf8)


def flag_list(flags: Iterable[bytes]) -> bytes:
    """Flags between parentheses, in a steady order."""
    return b"(" + b" ".join(sorted(flags)) + b")"


def internal_date(posix: int) -> bytes:
    """A quoted date-time in the server's time zone, times before 1970 as that. RFC 3501 §9 date-time.

    The zone counts: SEARCH BEFORE, ON and SINCE look at the day that is said here (§6.4.4).
    """
    moment = time.localtime(min(max(posix, 0), _LAST_SECOND))
    sign = b"-" if moment.tm_gmtoff < 0 else b"+"
    hours, minutes = divmod(abs(moment.tm_gmtoff) // 60, 60)
    return b'"%2d-%b-%04d %02d:%02d:%02d %b%02d%02d"' % (
        moment.tm_mday, MONTHS[moment.tm_mon - 1], moment.tm_year,
        moment.tm_hour, moment.tm_min, moment.tm_sec, sign, hours, minutes,
    )  # fmt: skip


def public_text(text: str) -> bytes:
    """Human-readable text of a response: printable US-ASCII on one line."""
    return _UNSAFE.sub("?", text)[:500].encode("ascii")
