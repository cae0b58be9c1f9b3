"""UIDBATCHES: ranges of UIDs that each hold so many messages, for clients that work through a mailbox.

RFC 10022. The newest messages are the first batch. The ranges leave no gap, and the last one ends with UID 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from mailserver.imapd.replies import Refusal, Rejection, Reply, ok
from mailserver.imapd.session import Session
from mailserver.wire.imap_commands import UidBatches
from mailserver.wire.imap_responses import string

FEWEST: Final = 500  # messages of a batch


async def uid_batches(session: Session, command: UidBatches) -> Reply:
    """The ranges are told, or of many batches those that were asked for."""
    if command.first > (command.last or command.first):
        raise Rejection("The first batch comes after the last.", b"CLIENTBUG")
    if command.size < FEWEST:
        raise Refusal(f"A batch has at least {FEWEST} messages.", b"TOOFEW")
    found = batches(session.mailbox_in_use.uids, command.size, command.first, command.last)
    ranges = b",".join(b"%d:%d" % pair for pair in found)
    correlator = b"* UIDBATCHES (TAG %b)" % string(session.current_tag)
    session.output.line(b"%b %b" % (correlator, ranges) if ranges else correlator)
    await session.sync()
    return ok("UIDBATCHES completed.")


def batches(uids: Sequence[int], size: int, first: int, last: int | None) -> Iterator[tuple[int, int]]:
    """Highest and lowest UID of each batch from `first` to `last`, from 1, of the ascending UIDs."""
    end = len(uids) - (first - 1) * size
    for _ in range(first, (last or len(uids)) + 1):
        if end <= 0:
            return
        start = end - size
        yield uids[end - 1], uids[start - 1] + 1 if start > 0 else 1
        end = start
