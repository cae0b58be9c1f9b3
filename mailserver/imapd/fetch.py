r"""FETCH and UID FETCH.

The index gives flags, dates and modseqs at once; sizes, facts and content come from the store
in batches, one call in a thread each. \Seen is set for a batch in one transaction, before its
rows are written, and told in the same rows. Of what was expunged meanwhile, and the client still
counts, only what the index knew is told; else it is left out, and FETCH ends with NO
[EXPUNGEISSUED] (RFC 2180 §4.1), UID FETCH with OK (RFC 3501 §6.4.8).

RFC 3501 §6.4.5, RFC 7162 §3.1.4 and §3.2.6, RFC 3516, RFC 8474, RFC 8514.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from mailserver.imapd.content import CannotDecode, cut_all, fact
from mailserver.imapd.fetch_rows import Rendered, Row, RowWriter, compile_rows
from mailserver.imapd.replies import Refusal, Reply, ok
from mailserver.imapd.selected import Selected
from mailserver.imapd.session import Session
from mailserver.store.contract import SEEN, Mailbox, Modseq, StoreMode, Uid
from mailserver.wire.imap_fetch import Attribute, Fetch, Item, Section
from mailserver.wire.imap_sequence import SequenceSet, render_set, within

_INDEX_BATCH: Final = 1000  # messages: about a millisecond of rows
_FACTS_BATCH: Final = 500
_CONTENT_OCTETS: Final = 524_288  # of content read in one batch
_SAVEDATE: Final = Attribute("SAVEDATE")
_SEEN_FLAG: Final = frozenset({SEEN})


async def fetch(session: Session, command: Fetch) -> Reply:
    """What was asked for is told of every message that is still there."""
    selected = session.mailbox_in_use
    if command.uses_modseq:
        session.enable_condstore()
    uids = selected.chosen(command.messages, command.by_uid)
    if command.partial is not None:
        uids = [*command.partial.of(uids)]
    if command.with_vanished:
        _tell_vanished(session, command, uids)
    if command.changed_since is not None:
        known, since = selected.mailbox.messages, command.changed_since
        uids = [uid for uid in uids if (found := known.get(uid)) is not None and found.modseq > since]
    work = _Fetching(session, selected, _plan(session, command, selected))
    can_decode = True
    try:
        done = 0
        while done < len(uids):
            done += await work.batch(uids, done)
            await session.output.room()
    except CannotDecode:
        can_decode = False
    await session.sync(may_expunge=command.by_uid)
    if not can_decode:
        raise Refusal("The part's encoding is unknown.", b"UNKNOWN-CTE")
    if work.is_short and not command.by_uid:
        raise Refusal("Some of the messages no longer exist.", b"EXPUNGEISSUED")
    return ok("Fetch completed.", b"EXPUNGEISSUED" if work.is_short else b"")


async def tell(session: Session, uids: Sequence[Uid], items: Sequence[Item]) -> None:
    """The items of these messages are told, unasked. RFC 5465 §5.2."""
    selected = session.mailbox_in_use
    if "CONDSTORE" in session.enabled and Attribute("MODSEQ") not in items:
        items = [*items, Attribute("MODSEQ")]  # RFC 7162 §3.2.4
    command = Fetch(SequenceSet(), tuple(items), by_uid=True)
    work = _Fetching(session, selected, _plan(session, command, selected))
    done = 0
    while done < len(uids):
        done += await work.batch(uids, done)
        await session.output.room()


def _tell_vanished(session: Session, command: Fetch, uids: Sequence[Uid]) -> None:
    """RFC 7162 §3.2.6: of the UIDs that were asked for, those that went away."""
    selected = session.mailbox_in_use
    changes = selected.mailbox.changes_since(Modseq(command.changed_since or 0))
    spans = command.messages.spans(max(1, selected.mailbox.uidnext - 1))
    gone = within(changes.expunged, spans)
    if gone:
        session.output.line(b"* VANISHED (EARLIER) " + render_set(gone))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a FETCH needs. `with_flags` writes the same rows and FLAGS, for those newly seen."""

    rows: RowWriter
    with_flags: RowWriter
    facts: tuple[Item, ...]
    sections: tuple[Section, ...]
    needs_sizes: bool
    needs_save_dates: bool
    sets_seen: bool

    @property
    def is_gathered(self) -> bool:
        """Whether anything must be fetched in a thread."""
        return bool(
            self.facts or self.sections or self.needs_sizes or self.needs_save_dates or self.sets_seen
        )

    @property
    def batch(self) -> int:
        """How many messages are answered at once, before content is considered."""
        return _FACTS_BATCH if self.facts or self.sections else _INDEX_BATCH


def _plan(session: Session, command: Fetch, selected: Selected) -> _Plan:
    items = list(command.items)
    is_uid_only = session.is_uid_only
    if command.by_uid and Attribute("UID") not in items and not is_uid_only:
        items.insert(0, Attribute("UID"))
    if command.changed_since is not None and Attribute("MODSEQ") not in items:
        items.append(Attribute("MODSEQ"))
    facts = tuple(item for item in items if fact(item) is not None)
    sections = tuple(item for item in items if isinstance(item, Section) and fact(item) is None)
    sees = any(isinstance(item, Section) and not item.is_peek for item in items)
    sets_seen = sees and not selected.is_read_only and "s" in selected.mailbox.rights
    rows = with_flags = compile_rows(items, selected.has_recent, is_uid_only)
    if sets_seen:
        told = (item for item in _told_of_seen(session) if item not in items)
        with_flags = compile_rows([*items, *told], selected.has_recent, is_uid_only)
    return _Plan(
        rows=rows,
        with_flags=with_flags,
        facts=facts,
        sections=sections,
        needs_sizes=Attribute("RFC822.SIZE") in items,
        needs_save_dates=_SAVEDATE in items,
        sets_seen=sets_seen,
    )


def _told_of_seen(session: Session) -> tuple[Attribute, ...]:
    r"""What a row says of a message that it made \Seen. RFC 7162 §3.2.4."""
    flags, modseq = Attribute("FLAGS"), Attribute("MODSEQ")
    if "CONDSTORE" not in session.enabled:
        return (flags,)
    return (flags, modseq) if session.is_uid_only else (flags, Attribute("UID"), modseq)


@dataclass(slots=True)
class _Gathered:
    """What a thread brought back: each source's text by UID, for the first `taken` messages."""

    taken: int
    texts: dict[Item, Rendered]
    newly_seen: frozenset[Uid]


class _Fetching:
    """One FETCH at work. `is_short`: something was gone."""

    def __init__(self, session: Session, selected: Selected, plan: _Plan) -> None:
        self._session = session
        self._selected = selected
        self._plan = plan
        self.is_short = False

    async def batch(self, uids: Sequence[Uid], start: int) -> int:
        """The next messages of the list from `start` on are answered; how many."""
        plan, mailbox = self._plan, self._selected.mailbox
        wanted = uids[start : start + plan.batch]
        gathered = _Gathered(len(wanted), {}, frozenset())
        if plan.is_gathered:
            gathered = await self._session.run(_gather, mailbox, plan, wanted)
        rows = self._rows(wanted[: gathered.taken], list(gathered.texts.values()))
        self._session.tell_keywords()  # after the rows were taken: they may have new ones
        self.is_short = self.is_short or len(rows) < gathered.taken
        self._count(gathered)
        self._write(rows, gathered)
        return gathered.taken

    def _rows(self, uids: Sequence[Uid], sources: Sequence[Rendered]) -> list[Row]:
        known = self._selected.mailbox.messages
        gone = self._selected.mailbox.expunged_message
        numbered = zip(self._selected.numbers(uids), uids, strict=True)
        rows = [
            (number, uid, found)
            for number, uid in numbered
            if (found := known.get(uid) or gone(uid)) is not None
        ]
        if any(len(source) < len(uids) for source in sources):
            rows = [row for row in rows if all(row[1] in source for source in sources)]
        return rows

    def _write(self, rows: Sequence[Row], gathered: _Gathered) -> None:
        plan, selected = self._plan, self._selected
        recent = selected.recent_among(row[1] for row in rows)
        if not gathered.newly_seen:
            self._write_rows(plan.rows, rows, gathered, recent)
            return
        for row in rows:
            writer = plan.with_flags if row[1] in gathered.newly_seen else plan.rows
            self._write_rows(writer, [row], gathered, recent)
        selected.told(row[2] for row in rows if row[1] in gathered.newly_seen)

    def _write_rows(
        self, writer: RowWriter, rows: Sequence[Row], gathered: _Gathered, recent: Container[int]
    ) -> None:
        sources = [gathered.texts[item] for item in writer.sources]
        self._session.output.write_all(writer.write(rows, sources, recent))

    def _count(self, gathered: _Gathered) -> None:
        counts = self._session.counts
        for item, texts in gathered.texts.items():
            if isinstance(item, Section):
                octets = sum(map(len, texts.values()))
                if item.text.startswith("HEADER"):
                    counts.hdr_count += len(texts)
                    counts.hdr_bytes += octets
                else:
                    counts.body_count += len(texts)
                    counts.body_bytes += octets


def _gather(mailbox: Mailbox, plan: _Plan, uids: Sequence[Uid]) -> _Gathered:
    """Blocking: sources for as many of the messages as make a batch; those are \\Seen then."""
    texts: dict[Item, Rendered] = {}
    if plan.sections:
        taken, contents = mailbox.read_batch(uids, _CONTENT_OCTETS)
        texts.update(cut_all(contents, plan.sections))
        uids = uids[:taken]
    if plan.needs_sizes:
        texts[Attribute("RFC822.SIZE")] = mailbox.sizes(uids)
    if plan.needs_save_dates:
        texts[_SAVEDATE] = mailbox.save_dates(uids)
    for item in plan.facts:
        source = fact(item)
        assert source is not None
        if isinstance(item, Attribute) and item.is_lazy:
            known = mailbox.known_facts(uids, source.kind)
            texts[item] = {uid: known.get(uid, b"NIL") for uid in uids if uid in mailbox.messages}
        else:
            texts[item] = mailbox.facts(uids, source.make, source.kind, source.of_header)
    return _Gathered(len(uids), texts, _see(mailbox, uids) if plan.sets_seen else frozenset())


def _see(mailbox: Mailbox, uids: Sequence[Uid]) -> frozenset[Uid]:
    known = mailbox.messages
    unseen = [uid for uid in uids if (found := known.get(uid)) is not None and SEEN not in found.flags]
    if not unseen:
        return frozenset()
    return frozenset(mailbox.change_flags(unseen, _SEEN_FLAG, StoreMode.ADD).changed)
