"""Which mailboxes a NOTIFY or an ESEARCH is about. RFC 5465 §6, RFC 7377 §2.2."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_mailbox import read_mailbox

MOST_NAMES: Final = 200
UNNAMED: Final = frozenset({"INBOXES", "PERSONAL", "SUBSCRIBED"})
NAMED: Final = frozenset({"SUBTREE", "MAILBOXES"})


@dataclass(frozen=True, slots=True)
class MailboxFilter:
    """A kind in capitals, and the names that a kind of `NAMED` goes with."""

    kind: str
    mailboxes: tuple[str, ...] = ()


def read_filter(reader: ArgumentReader, unnamed: Collection[str], named: Collection[str]) -> MailboxFilter:
    """One of the kinds that are valid here."""
    kind = reader.word()
    if kind in named:
        reader.space()
        return MailboxFilter(kind, _names(reader))
    if kind not in unnamed:
        raise ImapSyntaxError("Unknown mailbox filter")
    return MailboxFilter(kind)


def _names(reader: ArgumentReader) -> tuple[str, ...]:
    names = reader.list_of(lambda: read_mailbox(reader)) if reader.peek() == b"(" else [read_mailbox(reader)]
    if len(names) > MOST_NAMES:
        raise ImapSyntaxError("Too many mailboxes")
    return tuple(names)
