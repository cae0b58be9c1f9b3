"""APPEND and REPLACE: where messages go, and what they are made of.

RFC 3501 §6.3.11, RFC 3502 (MULTIAPPEND), RFC 4469 (CATENATE), RFC 6855 §4 (UTF8), RFC 8508 (REPLACE).
Message URLs are RFC 5092's, the relative ones only: what an absolute one names is not ours to fetch.
They may name a range of octets (RFC 5550 §3.6, URL-PARTIAL).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from mailserver.wire.imap_arguments import LARGEST_NUMBER, ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_fetch import Section, parse_section
from mailserver.wire.imap_flags import read_flag_list
from mailserver.wire.imap_mailbox import mailbox_name
from mailserver.wire.imap_namespace import NO_PREFIX, PersonalNamespace
from mailserver.wire.imap_sequence import SequenceSet, read_sequence_set

MOST_CATENATED: Final = 100
LONGEST_URL: Final = 2000

_URL: Final = re.compile(
    rb"(?:/(?P<mailbox>[^;]+?)(?:;UIDVALIDITY=(?P<uidvalidity>[1-9][0-9]{0,9}))?/)?"
    rb";UID=(?P<uid>[1-9][0-9]{0,9})(?:/;SECTION=(?P<section>[^;/]+))?"
    rb"(?:/;PARTIAL=(?P<origin>[0-9]{1,10})(?:\.(?P<octets>[1-9][0-9]{0,9}))?)?/?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Url:
    """A CATENATE part that is somewhere else, as the client wrote it. See `parse_message_url`."""

    text: bytes


@dataclass(frozen=True, slots=True)
class AppendedMessage:
    """One message of APPEND. `internal_date` is in POSIX seconds, None for now.

    `parts` is CATENATE's list; `content` is empty then.
    """

    content: bytes
    flags: frozenset[bytes] = frozenset()
    internal_date: int | None = None
    parts: tuple[bytes | Url, ...] = ()


@dataclass(frozen=True, slots=True)
class Append:
    """APPEND, of one message or several (RFC 3502)."""

    mailbox: str
    messages: tuple[AppendedMessage, ...]


@dataclass(frozen=True, slots=True)
class Replace:
    """REPLACE and UID REPLACE: the message that goes, and what comes for it. RFC 8508 §3."""

    replaced: SequenceSet
    append: Append
    by_uid: bool = False


@dataclass(frozen=True, slots=True)
class MessageUrl:
    """A message, or some octets of a part of one. `mailbox` None: the selected one. RFC 4469 §3."""

    mailbox: str | None
    uidvalidity: int | None
    uid: int
    section: Section
    origin: int = 0
    octets: int | None = None  # None: all from `origin`


class BadUrl(ValueError):
    """The URL names no message here: NO [BADURL …]."""


def read_append(reader: ArgumentReader) -> Append:
    """The arguments of APPEND."""
    reader.space()
    mailbox = mailbox_name(reader.astring(), reader.takes_utf8, reader.namespace)
    messages = [_message(reader)]
    while not reader.at_end:
        messages.append(_message(reader))
    return Append(mailbox, tuple(messages))


def read_replace(reader: ArgumentReader, by_uid: bool = False) -> Replace:
    """The arguments of REPLACE: one message, by number or UID, for one message."""
    reader.space()
    replaced = read_sequence_set(reader)
    if replaced.is_saved or len(replaced.ranges) != 1 or len(set(replaced.ranges[0])) != 1:
        raise ImapSyntaxError("One message expected")
    append = read_append(reader)
    if len(append.messages) != 1:
        raise ImapSyntaxError("One message expected")
    return Replace(replaced, append, by_uid)


def _message(reader: ArgumentReader) -> AppendedMessage:
    reader.space()
    flags: frozenset[bytes] = frozenset()
    internal_date = None
    if reader.peek() == b"(":
        flags = read_flag_list(reader)
        reader.space()
    if reader.peek() == b'"':
        internal_date = reader.date_time()
        reader.space()
    if reader.peek() in (b"C", b"c"):
        return AppendedMessage(b"", flags, internal_date, _catenated(reader))
    return AppendedMessage(_message_data(reader), flags, internal_date)


def _message_data(reader: ArgumentReader) -> bytes:
    if reader.text[reader.position : reader.position + 6].upper() != b"UTF8 (":
        return reader.literal()
    reader.position += 6  # RFC 6855 §4
    content = reader.literal()
    reader.expect(b")")
    return content


def _catenated(reader: ArgumentReader) -> tuple[bytes | Url, ...]:
    if reader.word() != "CATENATE":
        raise ImapSyntaxError("Message expected")
    reader.space()
    parts = reader.list_of(lambda: _catenated_part(reader))
    if len(parts) > MOST_CATENATED:
        raise ImapSyntaxError("Too many parts")
    return tuple(parts)


def _catenated_part(reader: ArgumentReader) -> bytes | Url:
    kind = reader.word()
    reader.space()
    if kind == "TEXT":
        return _message_data(reader)
    if kind != "URL":
        raise ImapSyntaxError("TEXT or URL expected")
    return Url(reader.astring())


def parse_message_url(url: Url, namespace: PersonalNamespace = NO_PREFIX) -> MessageUrl:
    """What the URL names; `namespace` is the client's. Raises BadUrl."""
    found = _URL.fullmatch(url.text) if len(url.text) <= LONGEST_URL else None
    if found is None or b"\0" in unquote_to_bytes(url.text):
        raise BadUrl("Not a message of this account")
    try:
        name, section = found["mailbox"], unquote_to_bytes(found["section"] or b"")
        mailbox = None if name is None else mailbox_name(unquote_to_bytes(name), True, namespace)
        return MessageUrl(
            mailbox,
            _number(found["uidvalidity"]),
            int(found["uid"]),
            parse_section(section),
            int(found["origin"] or 0),
            _number(found["octets"]),
        )
    except ImapSyntaxError as fault:
        raise BadUrl(str(fault)) from fault


def _number(digits: bytes | None) -> int | None:
    return None if digits is None else min(int(digits), LARGEST_NUMBER)
