"""Addresses without a domain in header fields get one: what Postfix does to local mail.

`To: bob` becomes `To: bob@example.org`. Only the missing part is put in: names, comments, folds and
everything else stay octet for octet. An element that is no single address (`To: Hello bob`) is
left alone. Linear for any input, and never an exception. local_header_rewrite_clients in postconf(5).
"""

from __future__ import annotations

import re
from typing import Final

ADDRESS_FIELDS: Final = frozenset(
    prefix + name
    for name in (b"bcc", b"cc", b"from", b"reply-to", b"sender", b"to")
    for prefix in (b"", b"resent-")
) | {
    b"apparently-to",
    b"disposition-notification-to",
    b"errors-to",
    b"mail-followup-to",
    b"mail-reply-to",
    b"return-receipt-to",
}
_FIELD: Final = re.compile(rb"([!-9;-~]++)([ \t]*+:)([^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))")
_HEADER: Final = re.compile(rb"(?>(?:[!-9;-~]++[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))*)")
_TOKEN: Final = re.compile(
    rb'"(?>(?:[^"\\]|\\.)*)"?|\\.|[<>,;:()@]|\[[^\]]*+\]?|[^\s"<>,;:()@\[\\]++|\s++|.', re.DOTALL
)


def qualified_header(content: bytes, origin: bytes) -> bytes:
    """The content (LF line ends) with `@origin` behind each address of its header that lacks a domain.

    What follows the fields at its start is no header.
    """
    found = _HEADER.match(content)
    end = found.end() if found else 0
    return _FIELD.sub(lambda field: _qualified_field(field, origin), content[:end]) + content[end:]


def _qualified_field(field: re.Match[bytes], origin: bytes) -> bytes:
    if field[1].lower() not in ADDRESS_FIELDS:
        return field[0]
    return field[1] + field[2] + qualified_list(field[3], origin)


def qualified_list(value: bytes, origin: bytes) -> bytes:
    """The same for one field's value."""
    reader = _Reader(b"@" + origin)
    for token in _TOKEN.findall(value):
        reader.take(token)
    return reader.finish()


class _Reader:
    """Copies tokens, and knows where the address that they form would end."""

    def __init__(self, missing: bytes) -> None:
        self._missing = missing
        self._out: list[bytes] = []
        self._comments = 0
        self._begin_element()

    def _begin_element(self) -> None:
        self._has_angle = False
        self._begin_address()

    def _begin_address(self) -> None:
        self._words = 0
        self._last = -1
        self._is_complete = False  # it has a domain, or a route
        self._is_glued = False  # nothing stands between this token and the word before

    def take(self, token: bytes) -> None:
        """One token more."""
        self._out.append(token)
        if self._comments or token == b"(":
            self._comments += (token == b"(") - (token == b")")
            self._is_glued = False
        elif token.isspace():
            self._is_glued = False
        elif token == b"<":
            self._has_angle = True
            self._begin_address()
        elif token == b">":
            self._complete()
            self._begin_address()  # and nothing more of this element is an address
        elif token in (b",", b";") and not (self._has_angle and self._is_complete):
            self._end_element()
        elif token == b":" and not self._has_angle:
            self._begin_element()  # what stood before was a group's name
        elif token in (b"@", b":"):
            self._is_complete = self._is_glued = True
        else:
            self._add_word()

    def _add_word(self) -> None:
        self._words += not self._is_glued
        self._last = len(self._out) - 1
        self._is_glued = True

    def _complete(self) -> None:
        if self._words == 1 and not self._is_complete:
            self._out[self._last] += self._missing

    def _end_element(self) -> None:
        if not self._has_angle:
            self._complete()
        self._begin_element()

    def finish(self) -> bytes:
        """All of it."""
        self._end_element()
        return b"".join(self._out)
