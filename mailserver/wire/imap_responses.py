"""What the server says: strings, flags, dates and names as IMAP octets.

RFC 3501 §7 and §9. Everything returned is whole syntax: a quoted string where it can be one,
else a literal, so that no content can break out of its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from mailserver.wire.imap_arguments import MONTHS
from mailserver.wire.imap_mailbox import encode_modified_utf7

_QUOTABLE: Final = re.compile(rb"[\x20-\x7e]{0,1000}")
_QUOTABLE_UTF8: Final = re.compile(rb"[\x20-\x7e\x80-\xff]{0,1000}")
_PLAIN_WORD: Final = re.compile(rb"(?!NIL\Z)[A-Za-z0-9$!+=@._-]+", re.IGNORECASE)
_SPECIAL: Final = re.compile(rb'(["\\])')
LAST_SECOND: Final = 253_402_214_399  # a day before the year 9999 ends, which it has not then in any zone
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


def internal_date(posix: int, offset: int = 0) -> bytes:
    """A quoted date-time, `offset` seconds east of UTC; from 1970 to LAST_SECOND. RFC 3501 §9 date-time."""
    zone = timezone(timedelta(seconds=offset))
    moment = datetime.fromtimestamp(min(max(posix, 0), LAST_SECOND), zone)
    hours, minutes = divmod(abs(offset) // 60, 60)
    return b'"%2d-%b-%04d %02d:%02d:%02d %b%02d%02d"' % (
        moment.day, MONTHS[moment.month - 1], moment.year, moment.hour, moment.minute, moment.second,
        b"-" if offset < 0 else b"+", hours, minutes,
    )  # fmt: skip


def public_text(text: str) -> bytes:
    """Human-readable text of a response: printable US-ASCII on one line."""
    return _UNSAFE.sub("?", text)[:500].encode("ascii")
