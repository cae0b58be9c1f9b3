r"""Commands that change messages: STORE, COPY, MOVE, EXPUNGE.

RFC 3501 §6.4, RFC 4315 (UIDPLUS), RFC 6851 (MOVE), RFC 7162 (CONDSTORE).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mailserver.imapd.fetch_rows import compile_rows
from mailserver.imapd.progress import reporting
from mailserver.imapd.replies import Refusal, Reply, ok, refusal_of
from mailserver.imapd.session import Session
from mailserver.store.contract import (
    DELETED,
    AccountStore,
    Mailbox,
    Modseq,
    StoreError,
    StoreMode,
    Uid,
)
from mailserver.wire.imap_commands import Copy, Expunge, Store
from mailserver.wire.imap_fetch import Attribute
from mailserver.wire.imap_sequence import render_set

_BATCH: Final = 1000
Pairs = Sequence[tuple[Uid, Uid]]
Transfer = Callable[[Sequence[Uid], Mailbox], Pairs]


async def store(session: Session, command: Store) -> Reply:
    """The flags are changed, durably, and told unless SILENT. RFC 3501 §6.4.6, RFC 7162 §3.1.3."""
    selected = session.writable_mailbox
    if command.unchanged_since is not None:
        session.enable_condstore()
    uids = selected.chosen(command.messages, command.by_uid)
    limit = None if command.unchanged_since is None else Modseq(command.unchanged_since)
    untold = selected.untold if command.is_silent else frozenset[Uid]()  # RFC 9051 §6.4.6: told all the same
    done = await session.run(
        selected.mailbox.change_flags, uids, command.flags, StoreMode(command.sign), limit
    )
    session.tell_keywords()
    if DELETED in command.flags and command.sign != "-":
        session.counts.deleted += len(done.changed)
    modified = set(done.modified)
    there = [uid for uid in uids if uid not in modified] if modified else uids
    known = [uid for uid in there if uid not in untold] if untold else there
    selected.told(filter(None, map(selected.mailbox.messages.get, known)))
    await _tell_stored(session, command, there, done.changed)
    is_short = not selected.mailbox.messages.keys() >= set(uids)
    await session.sync(may_expunge=command.by_uid)
    if done.modified:
        numbers = done.modified if command.by_uid else [selected.number(uid) for uid in done.modified]
        return ok("Conditional STORE failed.", b"MODIFIED " + render_set(numbers))
    if is_short and not command.by_uid and not command.is_silent:  # RFC 2180 §4.2
        raise Refusal("Some of the messages have been deleted.", b"EXPUNGEISSUED")
    return ok("Store completed.", selected.expunge_code)


async def _tell_stored(session: Session, command: Store, uids: Sequence[Uid], changed: Sequence[Uid]) -> None:
    selected = session.mailbox_in_use
    known = selected.mailbox.messages
    items = []
    if (command.by_uid or "CONDSTORE" in session.enabled) and not session.is_uid_only:
        items.append(Attribute("UID"))
    if "CONDSTORE" in session.enabled:
        items.append(Attribute("MODSEQ"))
    if not command.is_silent:
        items.append(Attribute("FLAGS"))
    elif "CONDSTORE" in session.enabled:
        uids = changed  # RFC 7162 §3.1.3: their modseqs are told, SILENT or not
    else:
        return
    rows = compile_rows(items, selected.has_recent, session.is_uid_only)
    for start in range(0, len(uids), _BATCH):
        batch = uids[start : start + _BATCH]
        numbered = zip(selected.numbers(batch), batch, strict=True)
        there = [(number, uid, found) for number, uid in numbered if (found := known.get(uid)) is not None]
        session.tell_keywords()
        session.output.write_all(rows.write(there, [], selected.recent_among(batch)))
        await session.output.room()


async def copy(session: Session, command: Copy) -> Reply:
    """Copies of all the messages are in the mailbox, or none. RFC 3501 §6.4.7."""
    selected = session.mailbox_in_use
    code = await _transfer(session, command, selected.mailbox.copy)
    await session.sync(may_expunge=command.by_uid)
    return ok("Copy completed.", code)


async def move(session: Session, command: Copy) -> Reply:
    """The messages are in the other mailbox, and here no more. RFC 6851 §3."""
    selected = session.writable_mailbox
    code = await _transfer(session, command, selected.mailbox.move)
    if code:
        session.output.line(b"* OK [%b] Moved UIDs." % code)
    await session.sync()
    return ok("Move completed.", _modseq_code(session) if code else b"")


async def _transfer(session: Session, command: Copy, transfer: Transfer) -> bytes:
    """The COPYUID code, b"" where nothing was to be done."""
    uids = session.mailbox_in_use.chosen(command.messages, command.by_uid)
    try:
        with reporting(session):
            pairs, uidvalidity = await session.run(
                _transferred, session.store, command.mailbox, transfer, uids
            )
    except StoreError as fault:
        raise refusal_of(fault, is_target=True)
    session.made(command.mailbox, [copied for _, copied in pairs])
    if not pairs and uids:
        raise Refusal("The messages no longer exist.", b"EXPUNGEISSUED")
    if not pairs or not uidvalidity:
        return b""
    sources, copies = zip(*pairs, strict=True)
    return b"COPYUID %d %b %b" % (uidvalidity, render_set(sources), render_set(copies))


def _transferred(
    store: AccountStore, name: str, transfer: Transfer, uids: Sequence[Uid]
) -> tuple[Pairs, int]:
    """What `transfer` did with the mailbox of that name, and its UIDVALIDITY, 0 for who may not read it.

    RFC 4315 §3. Blocking.
    """
    with store.borrow(name) as target:
        return transfer(uids, target), target.uidvalidity if "r" in target.rights else 0


async def expunge(session: Session, command: Expunge) -> Reply:
    r"""Messages with \Deleted are gone for good. RFC 3501 §6.4.3, RFC 4315 §2.1."""
    selected = session.writable_mailbox
    uids = None if command.uids is None else selected.chosen(command.uids, by_uid=True)
    with reporting(session):
        gone = await session.run(selected.mailbox.expunge, uids)
    session.counts.expunged += len(gone)
    await session.sync()
    return ok("Expunge completed.", _modseq_code(session) if gone else b"")


def _modseq_code(session: Session) -> bytes:
    if "CONDSTORE" not in session.enabled or session.selected is None:
        return b""
    return b"HIGHESTMODSEQ %d" % session.selected.told_modseq
