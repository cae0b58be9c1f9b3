"""The IMAP grammar's smallest words: atoms, strings, numbers, dates, read from one command.

A command is its text, with every literal's octets taken out and kept in a list beside it; the
text keeps the announcement `{n}` CR LF where the literal stood. `ArgumentReader` walks over
such a command once, from left to right, and never looks back further than one word, so that
reading costs no more than the command is long.

RFC 3501 §9, RFC 7888 (`{n+}`), RFC 3516 (`~{n}`), RFC 6855 (UTF-8 in quoted strings).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Final, TypeVar

from mailserver.wire.imap_namespace import NO_PREFIX, PersonalNamespace

T = TypeVar("T")

DEEPEST_PARENTHESES: Final = 50
LARGEST_NUMBER: Final = 2**32 - 1
LARGEST_MODSEQ: Final = 2**63 - 1

_ATOM: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_ASTRING: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
_PATTERN: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
_TAG: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+')
_QUOTED: Final = re.compile(rb'"([^"\\\r\n\x00]*(?:\\["\\][^"\\\r\n\x00]*)*)"')
_ESCAPE: Final = re.compile(rb'\\(["\\])')
_LITERAL: Final = re.compile(rb"~?\{([0-9]{1,20})\+?\}\r\n")
_NUMBER: Final = re.compile(rb"[0-9]{1,20}")
_DATE: Final = re.compile(rb"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")
_DATE_TIME: Final = re.compile(
    rb"([ 0-9][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"
)
MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun",
                 b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")  # fmt: skip
_MONTH_NUMBERS: Final = {name.lower(): number for number, name in enumerate(MONTHS, 1)}


class ImapSyntaxError(ValueError):
    """The command is not IMAP. The text is public: it follows BAD."""


class ArgumentReader:
    """Reads one command. `takes_utf8` is true once the client enabled UTF8=ACCEPT or IMAP4rev2.

    `namespace` is how the client is told mailboxes' names.
    """

    __slots__ = ("_depth", "_literals", "_taken", "namespace", "position", "takes_utf8", "text")

    def __init__(
        self,
        text: bytes,
        literals: Sequence[bytes] = (),
        takes_utf8: bool = False,
        namespace: PersonalNamespace = NO_PREFIX,
    ) -> None:
        self.text = text
        self.position = 0
        self.takes_utf8 = takes_utf8
        self.namespace = namespace
        self._literals = literals
        self._taken = 0
        self._depth = 0

    def _match(self, pattern: re.Pattern[bytes], wanted: str) -> re.Match[bytes]:
        found = pattern.match(self.text, self.position)
        if found is None:
            raise ImapSyntaxError(f"{wanted} expected")
        self.position = found.end()
        return found

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.position >= len(self.text)

    def end(self) -> None:
        """Nothing is left, or ImapSyntaxError."""
        if not self.at_end:
            raise ImapSyntaxError("Unexpected arguments at the end")

    def peek(self) -> bytes:
        """The next octet, b"" at the end."""
        return self.text[self.position : self.position + 1]

    def skip(self, wanted: bytes) -> bool:
        """Whether `wanted` (an exact octet or more) was next; it is read if so."""
        if not self.text.startswith(wanted, self.position):
            return False
        self.position += len(wanted)
        return True

    def expect(self, wanted: bytes) -> None:
        """`wanted` was next and is read, or ImapSyntaxError."""
        if not self.skip(wanted):
            raise ImapSyntaxError(f"{wanted.decode('ascii')!r} expected")

    def space(self) -> None:
        """One space is read; more are forgiven, as Dovecot forgives them."""
        if not self.skip(b" "):
            raise ImapSyntaxError("Missing argument" if self.at_end else "Space expected")
        while self.skip(b" "):
            pass

    def tag(self) -> bytes:
        """A tag: `*` and `+` are none."""
        return self._match(_TAG, "Tag").group()

    def atom(self) -> bytes:
        """An atom."""
        return self._match(_ATOM, "Atom").group()

    def word(self) -> str:
        """An atom as an upper-case name of the protocol."""
        return self.atom().decode("ascii").upper()

    def number(self, limit: int = LARGEST_NUMBER) -> int:
        """A number from 0 to `limit`."""
        value = int(self._match(_NUMBER, "Number").group())
        if value > limit:
            raise ImapSyntaxError("Number too large")
        return value

    def literal(self) -> bytes:
        """A literal's octets. RFC 3501 §4.3."""
        octets = int(self._match(_LITERAL, "Literal").group(1))
        if self._taken >= len(self._literals) or len(self._literals[self._taken]) != octets:
            raise ImapSyntaxError("Literal expected")
        self._taken += 1
        return self._literals[self._taken - 1]

    def string(self) -> bytes:
        """A quoted string, unescaped, or a literal without NUL."""
        if self.peek() == b'"':
            quoted = self._match(_QUOTED, "String").group(1)
            return _ESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted
        content = self.literal()
        if b"\0" in content:
            raise ImapSyntaxError("NUL in a string")
        return content

    def astring(self) -> bytes:
        """An atom (in which `]` is allowed) or a string."""
        if self.peek() in (b'"', b"{"):
            return self.string()
        return self._match(_ASTRING, "String").group()

    def nstring(self) -> bytes | None:
        """A string or NIL."""
        if self.peek() in (b'"', b"{"):
            return self.string()
        if self.word() != "NIL":
            raise ImapSyntaxError("String or NIL expected")
        return None

    def pattern(self) -> bytes:
        """A mailbox name with wildcards. RFC 3501 §9 list-mailbox."""
        if self.peek() in (b'"', b"{"):
            return self.string()
        return self._match(_PATTERN, "Pattern").group()

    def flag(self) -> bytes:
        r"""A system flag or keyword, `\` included; case as given."""
        if self.skip(b"\\"):
            return b"\\" + self.atom()
        return self.atom()

    def list_of(self, item: Callable[[], T], may_be_empty: bool = False) -> list[T]:
        """The items between parentheses, one space apart."""
        self.open()
        items: list[T] = []
        if not (may_be_empty and self.peek() == b")"):
            items.append(item())
            while self.peek() == b" ":
                self.space()
                items.append(item())
        self.close()
        return items

    def open(self) -> None:
        """An opening parenthesis is read."""
        self._depth += 1
        if self._depth > DEEPEST_PARENTHESES:
            raise ImapSyntaxError("Too many nested parentheses")
        self.expect(b"(")

    def close(self) -> None:
        """The closing parenthesis is read."""
        self.expect(b")")
        self._depth -= 1

    def date(self) -> date:
        """A date as SEARCH has it, quoted or not. RFC 3501 §9 date."""
        is_quoted = self.skip(b'"')
        day, month, year = self._match(_DATE, "Date").groups()
        if is_quoted:
            self.expect(b'"')
        return _date(day, month, year)

    def date_time(self) -> int:
        """A quoted date-time as POSIX seconds. RFC 3501 §9 date-time."""
        self.expect(b'"')
        fields = self._match(_DATE_TIME, "Date and time").groups()
        self.expect(b'"')
        return _posix(*fields)


def _date(day: bytes, month: bytes, year: bytes) -> date:
    try:
        return date(int(year), _MONTH_NUMBERS[month.lower()], int(day))
    except (KeyError, ValueError):
        raise ImapSyntaxError("Invalid date")


def _posix(
    day: bytes, month: bytes, year: bytes, hour: bytes, minute: bytes, second: bytes,
    sign: bytes, zone_hours: bytes, zone_minutes: bytes,
) -> int:  # fmt: skip
    there = _date(day, month, year)
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    try:
        zone = timezone(-offset if sign == b"-" else offset)
        moment = datetime(
            there.year, there.month, there.day, int(hour), int(minute), min(int(second), 59), tzinfo=zone
        )
        return int(moment.timestamp())
    except (ValueError, OverflowError):
        raise ImapSyntaxError("Invalid date")
