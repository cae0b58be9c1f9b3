"""Mailbox names on the wire: modified UTF-7 or UTF-8, which names may be, and LIST's wildcards.

Decoding is strict: each name has exactly one spelling in modified UTF-7, and any other is
refused, so that no name reaches the store by a side door (`&AC8-` would be `/`).

RFC 3501 §5.1, RFC 9051 §5.1, RFC 6855 §3.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_namespace import INBOX, NO_PREFIX, SEPARATOR, PersonalNamespace, with_separator

LONGEST_NAME: Final = 240  # octets in UTF-8
DEEPEST_NAME: Final = 16  # levels

_SHIFTED: Final = re.compile(rb"&([A-Za-z0-9+,]*)-")
_PRINTABLE: Final = re.compile(r"[\x20-\x25\x27-\x7e]*")
_TO_SHIFT: Final = re.compile(r"&|[^\x20-\x7e]+")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class InvalidMailboxName(ImapSyntaxError):
    """The name is no mailbox name here. The text says why, and follows NO [CANNOT] or BAD."""


def decode_modified_utf7(raw: bytes) -> str:
    """The text that `raw` spells. Raises InvalidMailboxName for any but the canonical spelling."""
    pieces: list[str] = []
    position = 0
    for shifted in _SHIFTED.finditer(raw):
        pieces.append(_direct(raw[position : shifted.start()]))
        pieces.append("&" if not shifted[1] else _from_base64(shifted[1]))
        position = shifted.end()
    pieces.append(_direct(raw[position:]))
    text = "".join(pieces)
    if encode_modified_utf7(text) != raw:
        raise InvalidMailboxName("Mailbox name is not valid modified UTF-7")
    return text


def _direct(raw: bytes) -> str:
    text = raw.decode("latin-1")
    if not _PRINTABLE.fullmatch(text):
        raise InvalidMailboxName("Mailbox name is not valid modified UTF-7")
    return text


def _from_base64(shifted: bytes) -> str:
    padded = shifted.replace(b",", b"/") + b"=" * (-len(shifted) % 4)
    try:
        return binascii.a2b_base64(padded, strict_mode=True).decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidMailboxName("Mailbox name is not valid modified UTF-7")


def _to_base64(found: re.Match[str]) -> str:
    if found.group() == "&":
        return "&-"
    encoded = binascii.b2a_base64(found.group().encode("utf-16-be", "surrogatepass"), newline=False)
    return "&" + encoded.rstrip(b"=").replace(b"/", b",").decode("ascii") + "-"


def encode_modified_utf7(text: str) -> bytes:
    """The one spelling of `text` in modified UTF-7. RFC 3501 §5.1.3."""
    return _TO_SHIFT.sub(_to_base64, text).encode("ascii")


def decode_name(raw: bytes, takes_utf8: bool, namespace: PersonalNamespace = NO_PREFIX) -> str:
    """The text of a name, `/` between levels, with its prefix; nothing else is checked (LIST's patterns)."""
    if takes_utf8:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidMailboxName("Mailbox name is not valid UTF-8")
    else:
        text = decode_modified_utf7(raw)
    return with_separator(unicodedata.normalize("NFC", text), namespace.separator)


def read_mailbox(reader: ArgumentReader) -> str:
    """The mailbox that comes next. Raises ImapSyntaxError."""
    return mailbox_name(reader.astring(), reader.takes_utf8, reader.namespace)


def mailbox_name(raw: bytes, takes_utf8: bool = False, namespace: PersonalNamespace = NO_PREFIX) -> str:
    """The name of a mailbox that may exist, `/` between levels, no prefix. Raises InvalidMailboxName.

    Empty levels, `.` and `..`, a leading `/` or `~`, control characters, more than 240 octets
    or 16 levels are refused; a single trailing separator (CREATE of a level) is taken off.
    """
    told = decode_name(raw, takes_utf8, namespace)
    if len(told) > 1 and told.endswith(SEPARATOR):
        told = told[:-1]
    name = namespace.heard(_with_inbox(told))
    if name is None:
        prefix = with_separator(namespace.prefix, namespace.separator)
        raise InvalidMailboxName(
            "Client tried to access nonexistent namespace."
            f" (Mailbox name should probably be prefixed with: {prefix})"
        )
    name = _with_inbox(name)
    _check(name, name.split(SEPARATOR))
    return name


def _with_inbox(name: str) -> str:
    first, separator, rest = name.partition(SEPARATOR)
    return INBOX + separator + rest if first.upper() == INBOX else name


def _check(name: str, levels: list[str]) -> None:
    if not name:
        raise InvalidMailboxName("Mailbox name is empty")
    if name[0] in "/~" or any(level in ("", ".", "..") for level in levels):
        raise InvalidMailboxName("Mailbox name is not allowed")
    if _CONTROL.search(name):
        raise InvalidMailboxName("Mailbox name has control characters")
    if len(name.encode("utf-8")) > LONGEST_NAME or len(levels) > DEEPEST_NAME:
        raise InvalidMailboxName("Mailbox name is too long")


def matches(pattern: str, name: str, any_case: int = 0) -> bool:
    """Whether LIST's `pattern` names `name`: `*` stands for anything, `%` for all but the separator.

    The first `any_case` characters of the name, capitals, may be written small.

    The pattern is walked as a set of states held in the bits of one number: the cost is the
    length of the name, for any number of wildcards. RFC 3501 §6.3.8.
    """
    return _Automaton(pattern).accepts(name, any_case)


class _Automaton:
    """A pattern as bit masks: bit i is set while the first i elements have been matched."""

    def __init__(self, pattern: str) -> None:
        self._final = 1 << len(pattern)
        self._any = self._level = 0
        self._exact: dict[str, int] = {}
        for index, element in enumerate(pattern):
            bit = 1 << index
            if element == "*":
                self._any |= bit
            elif element == "%":
                self._level |= bit
            else:
                self._exact[element] = self._exact.get(element, 0) | bit

    def _past_wildcards(self, states: int) -> int:
        wildcards = self._any | self._level
        while True:
            more = states | ((states & wildcards) << 1)
            if more == states:
                return states
            states = more

    def accepts(self, name: str, any_case: int) -> bool:
        states = self._past_wildcards(1)
        for index, character in enumerate(name):
            exact = self._exact.get(character, 0)
            if index < any_case:
                exact |= self._exact.get(character.lower(), 0)
            staying = self._any if character == SEPARATOR else self._any | self._level
            states = (states & staying) | ((states & exact) << 1)
            if not states:
                return False
            states = self._past_wildcards(states)
        return bool(states & self._final)


def canonical_pattern(reference: str, pattern: str) -> str:
    """Reference and pattern joined as Dovecot joins them, runs of wildcards shortened."""
    joined = reference + pattern
    joined = re.sub(r"[*%]*\*[*%]*", "*", joined)
    joined = re.sub(r"%+", "%", joined)
    return _with_inbox(joined)
