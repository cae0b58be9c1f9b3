"""Addresses without a whole domain in header fields get one: what Postfix does to local mail.

`To: bob` becomes `To: bob@example.org`, and where a domain for hosts is given, `To: bob@host` becomes
`To: bob@host.example.org`. Only the missing part is put in: names, comments, folds and everything else stay
octet for octet. An element that is no single address (`To: Hello bob`) is left alone. Linear for any input,
and never an exception. append_at_myorigin, append_dot_mydomain in postconf(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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

# A list of addresses that lack nothing, without comments, groups and routes: the usual field.
_WORD: Final = rb'[^\s"<>,;:()@\[\\]'
_ADDRESS: Final = rb"WORD++@(?=WORD*\.)WORD++".replace(b"WORD", _WORD)
_COMPLETE: Final = re.compile(
    rb'(?>\s*+(?:(?>"[^"\\]*+"|[^"<>,;:()@\[\\])*<ADDRESS>|ADDRESS)\s*+(?:,|\Z))+'.replace(
        b"ADDRESS", _ADDRESS
    )
)


@dataclass(frozen=True, slots=True)
class Completion:
    """What addresses lack: `origin` without a domain, `domain` behind one without a dot; b"" is nothing."""

    origin: bytes = b""
    domain: bytes = b""

    def header(self, content: bytes) -> bytes:
        """The content (LF line ends) with the addresses of its header completed.

        What follows the fields at its start is no header.
        """
        if not (self.origin or self.domain):
            return content
        found = _HEADER.match(content)
        end = found.end() if found else 0
        if not any(_lacks(name, value) for name, _, value in _FIELD.findall(content, 0, end)):
            return content
        return _FIELD.sub(self._field, content[:end]) + content[end:]

    def _field(self, field: re.Match[bytes]) -> bytes:
        if field[1].lower() not in ADDRESS_FIELDS:
            return field[0]
        return field[1] + field[2] + self.list(field[3])

    def list(self, value: bytes) -> bytes:
        """The same for one field's value."""
        if _COMPLETE.fullmatch(value):
            return value
        reader = _Reader(self)
        for token in _TOKEN.findall(value):
            reader.take(token)
        return reader.finish()


def _lacks(name: bytes, value: bytes) -> bool:
    """Whether the field is of addresses, and may lack something."""
    return name.lower() in ADDRESS_FIELDS and not _COMPLETE.fullmatch(value)


class _Reader:
    """Copies tokens, and knows where the address that they form would end."""

    def __init__(self, completion: Completion) -> None:
        self._missing = b"@" + completion.origin if completion.origin else b""
        self._missing_domain = b"." + completion.domain if completion.domain else b""
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
        self._domain = -1
        self._is_behind_at = False
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
            self._is_behind_at = token == b"@"
        else:
            self._add_word()

    def _add_word(self) -> None:
        self._words += not self._is_glued
        self._last = len(self._out) - 1
        self._is_glued = True
        if self._is_behind_at:
            self._domain = self._last
            self._is_behind_at = False

    def _complete(self) -> None:
        if self._words == 1 and not self._is_complete:
            self._out[self._last] += self._missing
        elif self._words == 1 and self._domain == self._last and not self._out[self._last].startswith(b"["):
            self._out[self._last] += self._missing_domain if b"." not in self._out[self._last] else b""

    def _end_element(self) -> None:
        if not self._has_angle:
            self._complete()
        self._begin_element()

    def finish(self) -> bytes:
        """All of it."""
        self._end_element()
        return b"".join(self._out)
