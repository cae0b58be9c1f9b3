"""SELECT, EXAMINE and what ends them; NOOP, CHECK, ENABLE.

RFC 3501 §6.3.1, §6.3.2, §6.4.1, §6.4.2; RFC 9051 §6.3.2 (IMAP4rev2); RFC 3691 (UNSELECT); RFC 5161 (ENABLE);
RFC 7162 (CONDSTORE, QRESYNC); RFC 8474 (MAILBOXID).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from mailserver.imapd import contexts
from mailserver.imapd.replies import Refusal, Rejection, Reply, ok
from mailserver.imapd.selected import Selected, unclaimed
from mailserver.imapd.session import Session
from mailserver.store.contract import SEEN, AccessDenied, AccountStore, Mailbox, Modseq, Uid
from mailserver.wire.imap_commands import Enable, Nothing
from mailserver.wire.imap_select import Resync, Select
from mailserver.wire.imap_sequence import render_set, within

_EXTENSIONS: Final = {
    "CONDSTORE": b"CONDSTORE", "QRESYNC": b"QRESYNC", "UTF8=ACCEPT": b"UTF8=ACCEPT",
    "IMAP4REV2": b"IMAP4rev2", "UIDONLY": b"UIDONLY",
}  # fmt: skip
_CHANGING: Final = frozenset("ieswt")  # RFC 4314 §5.2: one of these makes a mailbox READ-WRITE
_Figures = tuple[int, int, int, Uid, Modseq]  # messages, \\Recent ones, UIDVALIDITY, UIDNEXT, modseq
_descriptions: WeakKeyDictionary[Mailbox, tuple[_Figures, bytes]] = WeakKeyDictionary()  # as last told
_first_unseen: WeakKeyDictionary[Mailbox, tuple[Modseq, int]] = WeakKeyDictionary()


async def select(session: Session, command: Select) -> Reply:
    """The mailbox is selected and described; on failure none is. RFC 3501 §6.3.1."""
    if command.resync is not None and "QRESYNC" not in session.enabled:
        raise Rejection("QRESYNC is not enabled.")
    if session.selected is not None:
        await session.deselect()
        session.output.line(b"* OK [CLOSED] Previous mailbox closed.")
    if command.name_fault:
        raise Refusal(command.name_fault, b"CANNOT")
    if command.with_condstore:
        session.enabled |= {"CONDSTORE"}
    selected = await _open(session, command)
    session.select(selected)
    if selected.mailbox.is_guarded and selected.sleeping is None and not session.is_rev2:
        await session.run(first_unseen, selected)  # which remembers: here no other session did it before
    if command.resync is not None:
        await session.wake()
    _describe(session, selected)
    if command.resync is not None:
        _resynchronise(session, selected, command.resync)
    verb = "Examine" if command.is_read_only else "Select"
    is_fixed = command.is_read_only or not selected.mailbox.rights & _CHANGING
    return ok(f"{verb} completed.", b"READ-ONLY" if is_fixed else b"READ-WRITE")


async def _open(session: Session, command: Select) -> Selected:
    at_once = session.store.open_at_once(command.mailbox)
    if at_once is None:
        mailbox, recent = await session.run(
            _opened, session.store, command.mailbox, command.is_read_only, session.is_rev2
        )
    else:
        mailbox, recent = at_once, await _recent_at_once(session, at_once, command.is_read_only)
    selected = Selected(mailbox, command.is_read_only, recent)
    while selected.has_unclaimed:  # messages that came between the claim and the list
        selected.add_recent(await _claimed(session, mailbox))
    return selected


async def _recent_at_once(session: Session, mailbox: Mailbox, is_read_only: bool) -> range | None:
    r"""The UIDs that are \Recent here, without a thread where nothing is to be claimed."""
    if session.is_rev2:
        return None
    if is_read_only or mailbox.peek_recent() >= mailbox.uidnext:
        return unclaimed(mailbox)
    return await _claimed(session, mailbox)


async def _claimed(session: Session, mailbox: Mailbox) -> range:
    try:
        return await session.run(mailbox.claim_recent)
    except BaseException:
        await session.give_back(mailbox)
        raise


def _opened(
    store: AccountStore, name: str, is_read_only: bool, is_rev2: bool
) -> tuple[Mailbox, range | None]:
    """The mailbox, open, and the UIDs that are \\Recent here. Blocking."""
    mailbox = store.open(name)
    try:
        if is_rev2:
            return mailbox, None
        return mailbox, unclaimed(mailbox) if is_read_only else mailbox.claim_recent()
    except BaseException:
        store.close(mailbox)
        raise


def _describe(session: Session, selected: Selected) -> None:
    if session.settings.urls.is_open:
        session.output.line(b"* OK [URLMECH INTERNAL] mechs")  # RFC 4467 §8
    session.tell_keywords()
    mailbox = selected.mailbox
    figures = selected.exists, selected.recent_count, mailbox.uidvalidity, mailbox.uidnext, selected.modseq
    if session.is_rev2:
        name = session.separator, session.name(mailbox.name)
        middle = b"* LIST () %b %b\r\n" % name  # RFC 9051 §6.3.2
        session.output.write(_description(selected, figures, middle))
        return
    if session.is_uid_only:  # RFC 9586 §3: UNSEEN is a message number
        recent = b"* %d RECENT\r\n" % selected.recent_count
        session.output.write(_description(selected, figures, recent))
        return
    known = _descriptions.get(mailbox)
    if known is None or known[0] != figures:
        known = figures, _description(selected, figures, _unseen(selected))
        _descriptions[mailbox] = known
    session.output.write(known[1])


def _description(selected: Selected, figures: _Figures, middle: bytes) -> bytes:
    return (
        b"* %d EXISTS\r\n%b* OK [UIDVALIDITY %d] UIDs valid\r\n* OK [UIDNEXT %d] Predicted next UID\r\n"
        b"* OK [HIGHESTMODSEQ %d] Highest\r\n* OK [MAILBOXID (%b)] Ok\r\n"
        % (figures[0], middle, *figures[2:], selected.mailbox.mailbox_id.encode("ascii"))
    )


def _unseen(selected: Selected) -> bytes:
    """What IMAP4rev2 left out."""
    unseen = first_unseen(selected)
    code = b"* OK [UNSEEN %d] First unseen.\r\n" % unseen if unseen else b""
    return b"* %d RECENT\r\n%b" % (selected.recent_count, code)


def first_unseen(selected: Selected) -> int:
    r"""The sequence number of the first message without \Seen, 0 where there is none."""
    if selected.sleeping is not None:
        return selected.sleeping.first_unseen
    mailbox = selected.mailbox
    modseq, uid = _first_unseen.get(mailbox, (Modseq(-1), 0))
    if modseq != selected.modseq:
        messages = mailbox.messages
        unseen = (
            uid for uid in selected.uids if (found := messages.get(Uid(uid))) and SEEN not in found.flags
        )
        uid = next(unseen, 0)
        _first_unseen[mailbox] = (selected.modseq, uid)
    return selected.number(uid) if uid else 0


def _resynchronise(session: Session, selected: Selected, resync: Resync) -> None:
    """What the client missed until the list was taken is told; `sync` tells the rest. RFC 7162 §3.2.5."""
    mailbox = selected.mailbox
    if resync.uidvalidity != mailbox.uidvalidity:
        return
    changes = mailbox.changes_since(Modseq(resync.modseq))
    expunged: Sequence[int] = changes.expunged
    if not changes.complete and resync.matched_uids is not None and resync.matched_numbers is not None:
        above = _last_match(selected, resync)
        expunged = [uid for uid in expunged if uid > above]
    changed: Sequence[int] = changes.changed
    if resync.uids is not None:
        spans = resync.uids.spans(max(1, mailbox.uidnext - 1))
        expunged, changed = within(expunged, spans), within(changed, spans)
    expunged = [uid for uid in expunged if not selected.number(uid)]
    if expunged:
        session.output.line(b"* VANISHED (EARLIER) " + render_set(expunged))
    for uid in changed:
        number, message = selected.number(uid), mailbox.messages.get(Uid(uid))
        if number and message is not None and message.modseq <= selected.modseq:
            session.output.write(session.flags_line(number, message))


def _last_match(selected: Selected, resync: Resync) -> int:
    """The highest UID up to which the client's numbers still fit. RFC 7162 §3.2.5.2."""
    assert resync.matched_numbers is not None and resync.matched_uids is not None
    last = 0
    for (low, high), (uid, last_uid) in zip(
        resync.matched_numbers.ranges, resync.matched_uids.ranges, strict=False
    ):
        for number, known in zip(range(low, high + 1), range(uid, last_uid + 1), strict=False):
            if number > len(selected.uids) or selected.uids[number - 1] != known:
                return last
            last = known
    return last


async def close(session: Session, command: Nothing) -> Reply:
    r"""Messages with \Deleted are gone, unannounced; nothing is selected. RFC 3501 §6.4.2."""
    selected = session.mailbox_in_use
    if not selected.is_read_only:
        with suppress(AccessDenied):  # RFC 4314 §4: then nothing is expunged, and it is OK
            session.counts.expunged += len(await session.run(selected.mailbox.expunge))
    await session.deselect()
    return ok("Close completed.")  # RFC 7162 §3.2.8: never with HIGHESTMODSEQ


async def unselect(session: Session, command: Nothing) -> Reply:
    """Nothing is selected; nothing was expunged. RFC 3691."""
    await session.deselect()
    return ok("Unselect completed.")


async def noop(session: Session, command: Nothing) -> Reply:
    """The client knows all that happened. RFC 3501 §6.1.2."""
    await session.refresh()
    await session.sync()
    return ok("NOOP completed.")


async def check(session: Session, command: Nothing) -> Reply:
    """As NOOP: everything is durable already. RFC 3501 §6.4.1."""
    await session.refresh()
    await session.sync()
    return ok("Check completed.")


async def enable(session: Session, command: Enable) -> Reply:
    """What we know of the list is in force; the rest is ignored. RFC 5161 §3.1."""
    fresh = [name for name in command.extensions if name in _EXTENSIONS and name not in session.enabled]
    for name in dict.fromkeys(fresh):
        if name in ("CONDSTORE", "QRESYNC"):
            session.enable_condstore()
        session.enabled |= {name}
    if "UIDONLY" in fresh:
        contexts.drop_numbered(session)
    if session.is_rev2 and session.selected is not None:
        session.selected.forget_recent()
    session.recall.forget()
    session.output.line(b" ".join((b"* ENABLED", *(_EXTENSIONS[name] for name in dict.fromkeys(fresh)))))
    return ok("Enabled.")
