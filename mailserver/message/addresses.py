"""Lists of addresses in header fields, read as leniently as mail is written.

A list becomes a flat tuple of `MailAddress`, groups marked as IMAP's ENVELOPE marks them
(RFC 3501 §7.4.2). Encoded words stay as they are; quoted strings and quoted pairs are
resolved. What is missing is named as Dovecot names it, so that clients see the same. Empty
list elements are skipped (RFC 5322 §4.4). Never an exception; linear for any input.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MISSING_MAILBOX: Final = b"MISSING_MAILBOX"
MISSING_DOMAIN: Final = b"MISSING_DOMAIN"


class MailAddress(NamedTuple):
    """One address, or the mark of a group.

    A group begins with a mark that holds its name in `mailbox` and no host, and ends with
    a mark that holds nothing.
    """

    name: bytes | None = None
    route: bytes | None = None
    mailbox: bytes | None = None
    host: bytes | None = None

    @property
    def is_group_mark(self) -> bool:
        """Whether a group begins or ends here."""
        return self.host is None

    @property
    def spec(self) -> bytes:
        """`mailbox@host`, nothing for the mark of a group."""
        return b"" if self.host is None else (self.mailbox or b"") + b"@" + self.host


_ATOM: Final = rb"[^\x00-\x20()<>@,;:\\\"\[\]\x7f]"
_SIMPLE: Final = re.compile(
    rb'[ \t]*+(?:(?:"([^"\\]*+)"|((?>(?:'
    + _ATOM
    + rb"++[ ]?)*)))[ \t]*+<("
    + _ATOM
    + rb"++)@("
    + _ATOM
    + rb"++)>"
    rb"|(" + _ATOM + rb"++)@(" + _ATOM + rb"++))[ \t]*+(?:,|\Z)"
)
_TOKEN: Final = re.compile(
    rb'"([^"\\]*+(?>(?:\\.[^"\\]*+)*))(?:"|\\?\Z)|([<>@,:;(])|(\[[^\[\]]*+\]?)|(' + _ATOM + rb"++)|.",
    re.DOTALL,
)
_IN_COMMENT: Final = re.compile(rb"\\.|[()]", re.DOTALL)
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)
_GROUP_END: Final = MailAddress()


def parse_addresses(value: bytes) -> tuple[MailAddress, ...]:
    """The addresses of an unfolded field value, in order."""
    found: list[MailAddress] = []
    position = 0
    while position < len(value):
        simple = _SIMPLE.match(value, position)
        if simple is None:
            _Reader(found).read(value, position)
            break
        quoted, phrase, mailbox, host, bare_mailbox, bare_host = simple.groups()
        if bare_host is None:
            found.append(MailAddress(quoted or (phrase and phrase.rstrip()) or None, None, mailbox, host))
        else:
            found.append(MailAddress(None, None, bare_mailbox, bare_host))
        position = simple.end()
    return tuple(found)


class _Reader:
    """The slow way: token by token, for whatever is not `name <local@domain>`."""

    def __init__(self, found: list[MailAddress]) -> None:
        self.found = found
        self.in_group = False
        self._begin()

    def _begin(self) -> None:
        self.words: list[bytes] = []  # before any angle bracket: a phrase, or a bare address
        self.angle: list[bytes] | None = None
        self.is_closed = False
        self.comment: bytes | None = (
            None  # of a bare address, behind its first word: the old way to give a name
        )
        self.at = -1  # index in words of the domain, where a bare "@" came

    def read(self, value: bytes, position: int) -> None:
        """The rest of the value is in `found`."""
        while position < len(value):
            token = _TOKEN.match(value, position)
            assert token is not None  # the last alternative takes any octet
            position = token.end()
            quoted, special, literal, atom = token.groups()
            if special == b"(":
                text, position = _comment(value, position)
                if self.words and self.angle is None:
                    self.comment = text
            elif special is not None:
                self._special(special)
            elif quoted is not None:
                self._word(_QUOTED_PAIR.sub(rb"\1", quoted))
            elif literal is not None or atom is not None:
                self._word(literal or atom)
        self._finish()
        self._end_group()

    def _word(self, text: bytes) -> None:
        if self.is_closed:
            return
        (self.words if self.angle is None else self.angle).append(text)

    def _special(self, special: bytes) -> None:
        if special == b";":
            self._finish()
            self._end_group()
        elif special == b",":
            if self.angle is not None and not self.is_closed and self.angle[:1] == [b"@"]:
                self.angle.append(special)
            else:
                self._finish()
        elif self.angle is None:
            self._outside(special)
        elif not self.is_closed:
            self._inside(special)

    def _outside(self, special: bytes) -> None:
        if special == b"<":
            self.angle = []
        elif special == b"@" and self.at < 0:
            self.at = len(self.words)
        elif special == b":" and not self.in_group:
            self.found.append(MailAddress(mailbox=b" ".join(self.words)))
            self.in_group = True
            self._begin()

    def _inside(self, special: bytes) -> None:
        assert self.angle is not None
        if special == b">":
            self.is_closed = True
        elif special in b"@:":
            self.angle.append(special)

    def _end_group(self) -> None:
        if self.in_group:
            self.found.append(_GROUP_END)
            self.in_group = False

    def _finish(self) -> None:
        if self.angle is not None:
            self.found.append(self._with_angle(self.angle))
        elif self.at >= 0:
            name, mailbox = _mailbox(self.words[: self.at])
            self.found.append(_address(name or self.comment, None, mailbox, _domain(self.words[self.at :])))
        elif len(self.words) == 1:
            self.found.append(_address(self.comment, None, self.words[0], b""))
        elif self.words:
            self.found.append(_address(b" ".join(self.words), None, b"", b""))
        self._begin()

    def _with_angle(self, angle: list[bytes]) -> MailAddress:
        route = None
        if angle[:1] == [b"@"] and b":" in angle:
            colon = angle.index(b":")
            route = b"".join(angle[:colon])
            angle = angle[colon + 1 :]
        at = angle.index(b"@") if b"@" in angle else len(angle)
        name = b" ".join(filter(None, self.words))
        return _address(name, route, b"".join(angle[:at]), _domain(angle[at + 1 :]))


def _mailbox(words: list[bytes]) -> tuple[bytes, bytes]:
    """What stands before a bare address, and its mailbox: the last word and what dots tie to it."""
    first = len(words)
    while first and (first == len(words) or words[first].startswith(b".") or words[first - 1].endswith(b".")):
        first -= 1
    return b" ".join(words[:first]), b"".join(words[first:])


def _domain(words: list[bytes]) -> bytes:
    """The domain at the beginning of the words: one, and what dots tie to it."""
    end = min(len(words), 1)
    while end < len(words) and (words[end - 1].endswith(b".") or words[end].startswith(b".")):
        end += 1
    domain = b"".join(words[:end])
    return b"" if domain == b"@" else domain


def _address(name: bytes | None, route: bytes | None, mailbox: bytes, host: bytes) -> MailAddress:
    return MailAddress(name or None, route, mailbox or MISSING_MAILBOX, host or MISSING_DOMAIN)


def _comment(value: bytes, position: int) -> tuple[bytes, int]:
    """The text of the comment that was opened before `position`, and where it ends."""
    start, depth = position, 1
    for piece in _IN_COMMENT.finditer(value, position):
        depth += (piece[0] == b"(") - (piece[0] == b")")
        if not depth:
            text = value[start : piece.start()]
            return _QUOTED_PAIR.sub(rb"\1", b" ".join(text.split())), piece.end()
    return b" ".join(value[start:].split()), len(value)
