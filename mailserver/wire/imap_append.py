"""APPEND and REPLACE: where messages go, and what they are made of.

RFC 3501 §6.3.11, RFC 3502 (MULTIAPPEND), RFC 4469 (CATENATE), RFC 6855 §4 (UTF8), RFC 8508 (REPLACE).
What CATENATE's URLs name, `imap_url` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_flags import read_flag_list
from mailserver.wire.imap_mailbox import read_mailbox
from mailserver.wire.imap_sequence import SequenceSet, read_sequence_set
from mailserver.wire.imap_url import Url

MOST_CATENATED: Final = 100


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


def read_append(reader: ArgumentReader) -> Append:
    """The arguments of APPEND."""
    reader.space()
    mailbox = read_mailbox(reader)
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
