"""IMAP answers made comparable: what two servers may say differently is taken out.

Responses become nested values: strings lose their form (quoted or literal), flags their order,
FETCH its order of items; human-readable text goes, and numbers that a server chooses freely
(UIDVALIDITY, modseqs, mailbox ids) become `*`. Untagged responses are compared as a bag, and
EXPUNGEs as the messages that they name, counted as before the first of them.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any, Final

Value = Any  # bytes for atoms and strings, None for NIL, tuples for lists

_ATOM = re.compile(rb'(?:\[[^\]]*\]|[^()"{} \r\n\[])+')
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LITERAL = re.compile(rb"~?\{([0-9]+)\}\r\n")
_CODE = re.compile(rb"(?:\S+ )?(?:OK|NO|BAD|BYE|PREAUTH) \[([^\]]*)\]")
_FREE = re.compile(rb"((?:UIDVALIDITY|HIGHESTMODSEQ|COPYUID|APPENDUID|MODSEQ) \(?)[0-9]+|(MAILBOXID \()[^)]*")
# RFC 8474 is not Dovecot 2.3's, and it tells the modseq of SELECT only to those who enabled CONDSTORE.
_LEFT_OUT = (b"* OK [MAILBOXID", b"* OK [HIGHESTMODSEQ")
# Codes that only one of the two gives, or gives in fewer places.
_ONLY_ONE_GIVES = (b"MAILBOXID", b"CLIENTBUG", b"NONEXISTENT", b"CANNOT", b"BADCHARSET")
_FLAGS = frozenset({b"FLAGS", b"PERMANENTFLAGS"})
_LATELY: Final = 3600  # seconds


class Reader:
    """Reads one response."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def values(self) -> tuple[Value, ...]:
        """What stands up to the end, or up to a closing parenthesis."""
        found: list[Value] = []
        while self._at < len(self._text):
            octet = self._text[self._at : self._at + 1]
            if octet == b" ":
                self._at += 1
            elif octet == b")":
                self._at += 1
                break
            else:
                found.append(self._value(octet))
        return tuple(found)

    def _value(self, octet: bytes) -> Value:
        if octet == b"(":
            self._at += 1
            return self.values()
        if octet == b'"' and (quoted := _QUOTED.match(self._text, self._at)):
            self._at = quoted.end()
            return re.sub(rb"\\(.)", rb"\1", quoted[1])
        literal = _LITERAL.match(self._text, self._at)
        if literal:
            self._at = literal.end() + int(literal[1])
            return self._text[literal.end() : self._at]
        atom = _ATOM.match(self._text, self._at)
        self._at = atom.end() if atom else self._at + 1
        return None if atom and atom[0] == b"NIL" else atom[0] if atom else octet


def fetched(response: bytes) -> dict[bytes, Value] | None:
    """A FETCH response's items by name, None for any other response."""
    words = Reader(response).values()
    if len(words) != 4 or words[2] != b"FETCH":
        return None
    items = dict(zip(words[3][::2], words[3][1::2], strict=True))
    return {name.upper(): _item(name.upper(), value) for name, value in items.items()}


def comparable(responses: list[bytes]) -> list[str]:
    """The whole answer, ready to be compared with another server's."""
    expunged: list[int] = []
    found: list[str] = []
    for response in responses[:-1]:
        if response.startswith(_LEFT_OUT):
            continue
        words = response.split()
        if words[2:] == [b"EXPUNGE"]:
            expunged.append(_before(int(words[1]), expunged))
        else:
            found.append(_plain(response))
    if expunged:
        found.append(f"expunged {sorted(expunged)}")
    return [*sorted(found), _plain(responses[-1])]


def _before(number: int, expunged: list[int]) -> int:
    """The number that the message had before those were expunged."""
    for gone in sorted(expunged):
        if gone <= number:
            number += 1
    return number


def _plain(response: bytes) -> str:
    words = response.split(b" ", 2)
    if words[1] in (b"OK", b"NO", b"BAD", b"BYE"):
        code = _CODE.match(response)
        listed = _free(code[1]) if code and not code[1].startswith(_ONLY_ONE_GIVES) else b""
        return f"{words[0].decode()} {words[1].decode()} {_sorted_flags(listed)!r}"
    items = fetched(response)
    if items is not None:
        return f"{words[1].decode()} FETCH {[(name, items[name]) for name in sorted(items)]}"
    return repr(_sorted_flags(_free(response)))


def _free(text: bytes) -> bytes:
    return _FREE.sub(lambda found: (found[1] or found[2]) + b"*", text)


def _item(name: bytes, value: Value) -> Value:
    if name == b"FLAGS":
        return tuple(sorted(value))
    if name == b"INTERNALDATE":
        return _date(value.replace(b" ", b"0", 1) if value.startswith(b" ") else value)
    return b"*" if name == b"MODSEQ" else value


def _date(value: bytes) -> bytes:
    """The moment of a command that both servers were given just now is not the same second for both."""
    moment = datetime.strptime(value.decode(), "%d-%b-%Y %H:%M:%S %z")
    return b"now" if abs(time.time() - moment.timestamp()) < _LATELY else value


def _sorted_flags(text: bytes) -> Value:
    values = Reader(text).values()
    if values[:2] == (b"*", b"LIST"):
        return (*values[:2], tuple(sorted(values[2])), *values[3:])
    if not _FLAGS.isdisjoint(values[:2]):
        return tuple(tuple(sorted(value)) if isinstance(value, tuple) else value for value in values)
    if values[:2] == (b"*", b"ESEARCH"):
        is_by_uid = values[3:4] == (b"UID",)
        pairs = values[4 if is_by_uid else 3 :]
        return (values[2], is_by_uid, tuple(sorted(zip(pairs[::2], pairs[1::2], strict=True))))
    if values[:2] == (b"*", b"METADATA") and isinstance(values[-1], tuple):
        pairs = values[-1]
        return (*values[:-1], tuple(sorted(zip(pairs[::2], map(repr, pairs[1::2]), strict=True))))
    if values[:2] == (b"*", b"STATUS"):
        return (*values[:3], tuple(sorted(zip(values[3][::2], values[3][1::2], strict=True))))
    return values
