"""A mailbox that sleeps: opened without its messages, by what state.db remembers of it as a whole.

When a mailbox is settled, its figures are kept beside the format's token. Where the token still fits,
nothing was done to the mailbox since: SELECT, STATUS and NOOP are answered from the figures, and a stat or
two is all that it costs, however many messages there are. It wakes when somebody wants to know of a message,
or when there is news.

The figures are trusted as far as their checksum goes, which binds them to the mailbox's own (RELIABILITY
F27); those of the messages are looked at when it wakes.
"""

from __future__ import annotations

from dataclasses import replace
from zlib import crc32

from mailserver.store.contract import Sleeping, Uid
from mailserver.store.format import MailboxFormat
from mailserver.store.state import Figures, MailboxRow, State
from mailserver.store.status import is_untouched


def checksum(uidvalidity: int, uidnext: int, figures: Figures) -> int:
    """Over all that is said of a mailbox that sleeps."""
    bare = replace(figures, checksum=None)
    return crc32(repr((uidvalidity, uidnext, bare)).encode("ascii"))


def with_checksum(uidvalidity: int, uidnext: int, figures: Figures) -> Figures:
    """The figures, to be kept."""
    return replace(figures, checksum=checksum(uidvalidity, uidnext, figures))


def may_sleep(row: MailboxRow, figures: Figures | None, form: MailboxFormat, state: State) -> bool:
    r"""Whether the mailbox can be opened without its messages: untouched, nothing \Recent. *Blocking.*"""
    if figures is None or figures.checksum != checksum(row.uidvalidity, row.uidnext, figures):
        return False
    return row.recent >= row.uidnext and is_untouched(row, figures, form, state)


def sleeping(uidnext: Uid, figures: Figures) -> Sleeping:
    """What a mailbox that sleeps tells."""
    return Sleeping(
        figures.modseq,
        uidnext,
        figures.messages,
        figures.unseen,
        figures.deleted,
        figures.first_unseen,
        figures.size,
    )
