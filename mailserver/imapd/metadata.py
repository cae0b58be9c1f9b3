"""GETMETADATA and SETMETADATA: what clients note about mailboxes and about the account.

An account has one user: what is private to it and what is shared lie side by side. Annotations
follow their mailbox's renaming and go with it. RFC 5464; RFC 5465 §5.6 and §5.7 for those who watch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mailserver.imapd import filters
from mailserver.imapd.notify import NameEvent, announce
from mailserver.imapd.replies import Refusal, Reply, ok
from mailserver.imapd.session import Session
from mailserver.store.contract import AccountStore
from mailserver.wire.imap_metadata import GetMetadata, SetMetadata
from mailserver.wire.imap_responses import nstring

LARGEST_VALUE: Final = 16_384  # octets; RFC 5464 §4.1 wants 1024 at least
MOST_ANNOTATIONS: Final = 100  # of a mailbox, and of the account; §4.1 wants 10 at least


class _TooMany(Exception):
    """No further entry fits."""


async def get_metadata(session: Session, command: GetMetadata) -> Reply:
    """The entries that there are, and are small enough, are told. RFC 5464 §4.2.

    An entry that was named and is not there is NIL, as Dovecot says it.
    """
    known = await session.run(session.store.annotations, command.mailbox)
    limit = LARGEST_VALUE if command.max_size is None else command.max_size
    wanted = {entry: value for entry, value in known.items() if _is_wanted(entry, command)}
    long = [len(value) for value in wanted.values() if len(value) > limit]
    absent = [] if command.depth else [entry for entry in command.entries if entry not in known]
    short = {entry: value for entry, value in wanted.items() if len(value) <= limit}
    tell(session, command.mailbox, {**short, **dict.fromkeys(absent)})
    return ok("Getmetadata completed.", b"METADATA LONGENTRIES %d" % max(long) if long else b"")


def tell(session: Session, mailbox: str, found: Mapping[str, bytes | None]) -> None:
    """The METADATA response with values, where there is anything to tell. §4.4.1."""
    if found:
        pairs = [b"%b %b" % (entry.encode("ascii"), nstring(found[entry])) for entry in sorted(found)]
        session.output.line(b"* METADATA %b (%b)" % (session.name(mailbox), b" ".join(pairs)))


def _is_wanted(entry: str, command: GetMetadata) -> bool:
    """Whether the entry was named, or lies below one that was, not too deep. §4.2.2."""
    return entry in command.entries or any(
        entry.startswith(asked + "/") and entry[len(asked) :].count("/") <= command.depth
        for asked in command.entries
    )


async def set_metadata(session: Session, command: SetMetadata) -> Reply:
    """All of the entries have their new values, or none. RFC 5464 §4.3."""
    if any(value is not None and len(value) > LARGEST_VALUE for _, value in command.values):
        raise Refusal("The value is too long.", b"METADATA MAXSIZE %d" % LARGEST_VALUE)
    for entry, value in command.values if not command.mailbox else ():
        if value is not None:
            filters.check_entry(entry, value)
    try:
        await session.run(_annotate, session.store, command.mailbox, dict(command.values))
    except _TooMany:
        raise Refusal("There are too many annotations.", b"METADATA TOOMANY")
    kind = "MAILBOXMETADATACHANGE" if command.mailbox else "SERVERMETADATACHANGE"
    announce(session, NameEvent(kind, command.mailbox, entries=_names(command)))
    return ok("Setmetadata completed.")


def _names(command: SetMetadata) -> Sequence[str]:
    return sorted({entry for entry, _ in command.values})


def _annotate(store: AccountStore, mailbox: str, values: Mapping[str, bytes | None]) -> None:
    """Blocking."""
    there = set(store.annotations(mailbox))
    after = (there | {entry for entry, value in values.items() if value is not None}) - {
        entry for entry, value in values.items() if value is None
    }
    if len(after) > MOST_ANNOTATIONS and len(after) > len(there):
        raise _TooMany
    store.annotate(mailbox, values)
