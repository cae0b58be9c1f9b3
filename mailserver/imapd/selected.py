r"""A selected mailbox as one session has told it to its client.

The session's list of UIDs gives sequence numbers. It changes only in `sync`, which is called
at the points where the RFC allows it, and which tells the client every change that it makes:
so numbers mean the same to both sides, whatever other sessions and programs do meanwhile.
Messages that are gone stay in the list until an EXPUNGE may be sent (RFC 3501 §7.4.1).

\Recent belongs to the session that was told first: ranges of UIDs claimed from the mailbox.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from operator import attrgetter, itemgetter
from typing import Final, Protocol, cast
from weakref import WeakKeyDictionary

from mailserver.imapd.output import Output
from mailserver.imapd.replies import Rejection
from mailserver.store.acl import Rights
from mailserver.store.contract import (
    SYSTEM_FLAGS,
    Changes,
    Flags,
    Mailbox,
    MailboxReplaced,
    Message,
    Modseq,
    Sleeping,
    Uid,
)
from mailserver.store.guarded import right_of
from mailserver.threads import Threads
from mailserver.wire.imap_sequence import SequenceSet, render_set

RECENT: Final = b"\\Recent"
_lists: WeakKeyDictionary[Mailbox, tuple[Modseq, array[int]]] = WeakKeyDictionary()  # as last selected


_uid_and_modseq: Final = itemgetter(0, 2)  # of a Message
_modseq: Final = itemgetter(2)
_start: Final = attrgetter("start")  # of a range
_NO_UIDS: Final[frozenset[int]] = frozenset()  # one object: each takes as much as twenty UIDs
_MANY: Final = 4  # one of so many messages is enough to number them all at once


class KeptSearch(Protocol):
    """A search whose results the client has and is told changes of; see `contexts`."""

    tag: bytes
    by_uid: bool

    def remove(self, uids: Collection[int]) -> None:
        """The messages are no results any more; their numbers still hold."""

    async def update(self, changed: Sequence[Uid]) -> None:
        """The messages came or changed; the client knows what that means for the results."""


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Whether EXPUNGE may be sent now, and whether as VANISHED (RFC 7162 §3.2.10)."""

    may_expunge: bool
    with_vanished: bool = False


class Selected:
    """One mailbox, open for one session. `recent`: None where there is no \\Recent (IMAP4rev2)."""

    __slots__ = (
        "_gone", "_has_recent", "_held", "_is_shared", "_next", "_recent", "_recent_told", "_sleeping",
        "_told", "_uids", "contexts", "is_read_only", "keywords_told", "mailbox", "modseq", "own", "saved",
    )  # fmt: skip

    def __init__(self, mailbox: Mailbox, is_read_only: bool, recent: range | None) -> None:
        self.mailbox = mailbox
        self.is_read_only = is_read_only
        self.saved: list[int] = []  # SEARCHRES: UIDs
        self.contexts: list[KeptSearch] = []
        self.own: frozenset[int] = _NO_UIDS  # UIDs that the session itself made, where NOTIFY needs them
        self.keywords_told: tuple[tuple[bytes, ...], Rights] | None = None
        self._has_recent = recent is not None
        self._recent: list[range] = [recent] if recent else []
        self._told: dict[Uid, Modseq] = {}
        self._gone: frozenset[int] = _NO_UIDS
        self._held: Modseq | None = None  # below the modseqs of `_gone`
        self._next = 1
        self._take_list()
        self._recent_told = self.recent_count

    def _take_list(self) -> None:
        """The list as it is now; changes after the modseq taken first are found by `sync`."""
        self._uids: array[int] | None = None
        self._is_shared = False  # the list, with whoever selects the mailbox
        self._sleeping = self.mailbox.sleeping
        if self._sleeping is not None:  # nothing is \\Recent in it
            self.modseq, self._next, self._recent = self._sleeping.modseq, int(self._sleeping.uidnext), []
            return
        self.modseq = self.mailbox.highest_modseq
        modseq, uids = _lists.get(self.mailbox, (None, array("I")))
        if modseq != self.modseq:
            uids = array("I", self.mailbox.uids)
            _lists[self.mailbox] = self.modseq, uids
        self._uids, self._is_shared = uids, True
        self._next = uids[-1] + 1 if uids else 1

    @property
    def uids(self) -> array[int]:
        """The list. *Blocking* where the mailbox sleeps. May raise MailboxReplaced."""
        if self._uids is None:
            assert self._sleeping is not None
            self.mailbox.wake()
            if self._sleeping.uids is None:
                raise MailboxReplaced("The mailbox was deleted or replaced")
            self._uids, self._sleeping = array("I", self._sleeping.uids), None
        return self._uids

    @uids.setter
    def uids(self, uids: array[int]) -> None:
        self._uids = uids

    @property
    def sleeping(self) -> Sleeping | None:
        """What stands for the list as long as nobody asked for it."""
        return self._sleeping

    @property
    def exists(self) -> int:
        """How many messages are in the list."""
        return self._sleeping.messages if self._sleeping is not None else len(self.uids)

    @property
    def next_told(self) -> int:
        """UIDs from here on are new to the client."""
        return self._next

    # What the numbers mean.

    def number(self, uid: int) -> int:
        """The sequence number of a message in the list, 0 for one that is not."""
        uids = self.uids
        position = bisect_left(uids, uid)
        return position + 1 if position < len(uids) and uids[position] == uid else 0

    def numbers(self, uids: Sequence[int]) -> Sequence[int]:
        """The sequence numbers of messages, ascending; where they are neighbours, in one step."""
        first = self.number(uids[0]) if uids else 0
        if first and self.uids[first - 1 : first - 1 + len(uids)] == array("I", uids):
            return range(first, first + len(uids))
        if len(uids) * _MANY > len(self.uids):
            known = dict(zip(self.uids, count(1), strict=False))
            return [known.get(uid, 0) for uid in uids]
        return [self.number(uid) for uid in uids]

    def positions(self, messages: SequenceSet, by_uid: bool, is_strict: bool = True) -> Iterable[int]:
        """Indexes into `uids`, ascending.

        A sequence number beyond the last is a Rejection where `is_strict`, else nothing.
        """
        if messages.is_saved:
            return [number - 1 for uid in self.saved if (number := self.number(uid))]
        if by_uid:
            found = messages.uid_positions(self.uids)
        else:
            if is_strict and (not self.uids or messages.has_number_above(len(self.uids))):
                raise Rejection("Invalid message sequence number")
            found = messages.positions(len(self.uids))
        return found[0] if len(found) == 1 else [index for span in found for index in span]

    def chosen(self, messages: SequenceSet, by_uid: bool, is_strict: bool = True) -> list[Uid]:
        """The UIDs that the set names, ascending; see `positions`."""
        positions = self.positions(messages, by_uid, is_strict)
        if isinstance(positions, range):
            found = self.uids[positions.start : positions.stop].tolist()
        else:
            found = [self.uids[index] for index in positions]
        return cast(list[Uid], found)

    # \Recent.

    def is_recent(self, uid: int) -> bool:
        r"""Whether the message is \Recent in this session."""
        at = bisect_right(self._recent, uid, key=_start) - 1
        return at >= 0 and uid in self._recent[at]

    def recent_among(self, uids: Iterable[int]) -> Container[int]:
        r"""What holds those of the messages that are \Recent in this session: `in` costs next to nothing."""
        if len(self._recent) == 1:
            return self._recent[0]
        return frozenset(filter(self.is_recent, uids)) if self._recent else _NO_UIDS

    @property
    def has_recent(self) -> bool:
        r"""Whether any message can be \Recent."""
        return bool(self._recent)

    @property
    def recent_count(self) -> int:
        r"""How many messages of the list are \Recent."""
        return sum(map(self._count, self._recent))

    def _count(self, span: range) -> int:
        """How many messages of the list have these UIDs."""
        uids = self.uids
        return bisect_left(uids, span.stop) - bisect_left(uids, span.start)

    @property
    def has_unclaimed(self) -> bool:
        r"""Whether the list has messages of which nobody said yet to whom they are \Recent."""
        return self._has_recent and not self.is_read_only and self.mailbox.peek_recent() < self._next

    def add_recent(self, claimed: range) -> None:
        r"""These UIDs are \Recent in this session, those that it does not know yet included."""
        if self._recent and self._recent[-1].stop == claimed.start:
            claimed = range(self._recent.pop().start, claimed.stop)
        if claimed:
            self._recent.append(claimed)

    def flags_of(self, message: Message) -> Flags:
        r"""The flags as this session sees them, \Recent included."""
        return message.flags | {RECENT} if self.is_recent(message.uid) else message.flags

    # Changes.

    @property
    def untold(self) -> frozenset[Uid]:
        """The messages that came or changed since the last `sync`."""
        if self.mailbox.highest_modseq == self.modseq:
            return frozenset()
        return frozenset(self.mailbox.changes_since(self.modseq).changed)

    @property
    def expunge_code(self) -> bytes:
        """The code of an OK, as of the last `sync`: messages of the list are gone, untold. RFC 5530 §3."""
        return b"EXPUNGEISSUED" if self._gone else b""

    def told(self, messages: Iterable[Message]) -> None:
        """The client knows these messages' flags: `sync` need not say them again."""
        self._told.update(map(_uid_and_modseq, messages))

    async def sync(
        self, threads: Threads, output: Output, tell: Callable[[int, Message], bytes], options: SyncOptions
    ) -> Sequence[Uid]:
        """The client was told what happened since, as far as it may be now; which messages changed or came.

        May raise MailboxReplaced.
        """
        changed: Sequence[Uid] = ()
        while self.mailbox.highest_modseq > self.modseq or (self._gone and options.may_expunge):
            changes = self.mailbox.changes_since(self.modseq)
            fresh = changes.changed[bisect_left(changes.changed, self._next) :]
            if fresh:
                await self._claim_recent(threads, fresh[-1])
            told_to = self._apply(changes, fresh, output, tell, options)
            changed = sorted({*changed, *changes.changed}) if changed else changes.changed
            if told_to <= self.modseq:  # else there may be expunges below what was told
                break
        return changed

    @property
    def holds_back(self) -> bool:
        """Whether the client was not told of an expunge yet."""
        return self._held is not None

    @property
    def told_modseq(self) -> Modseq:
        """The modseq up to which the client was told everything: HIGHESTMODSEQ. RFC 7162 §3.2."""
        return self.modseq if self._held is None else self._held

    @property
    def has_news(self) -> bool:
        """Whether there is what `sync` may tell."""
        return self.mailbox.highest_modseq > self.modseq or bool(self._gone)

    def forget_recent(self) -> None:
        r"""No message is \Recent from now on, and no RECENT is told. RFC 9051 Appendix E."""
        self._has_recent = False
        self._recent = []

    async def _claim_recent(self, threads: Threads, last: Uid) -> None:
        if not self._has_recent:
            return
        if self.is_read_only:
            self.add_recent(range(max(self.mailbox.peek_recent(), self._next), last + 1))
        elif last >= self.mailbox.peek_recent():
            self.add_recent(await threads.run(self.mailbox.claim_recent))

    def _apply(
        self,
        changes: Changes,
        fresh: Sequence[Uid],
        output: Output,
        tell: Callable[[int, Message], bytes],
        options: SyncOptions,
    ) -> Modseq:
        """The highest modseq of a message whose flags were told."""
        known, before = self._next, self.modseq
        if changes.expunged:
            self._gone |= {uid for uid in changes.expunged if uid < known and self.number(uid)}
        if options.may_expunge:
            self._tell_expunged(output, options.with_vanished)
        if fresh:
            self._add(fresh, output)
        told_to = self._tell_flags(changes.changed[: bisect_left(changes.changed, known)], output, tell)
        self.modseq = max(self.modseq, changes.highest_modseq)
        self._told.clear()
        self._held = (self._held or before) if self._gone else None
        return told_to

    def _tell_expunged(self, output: Output, with_vanished: bool) -> None:
        gone = sorted(uid for uid in self._gone if self.number(uid))
        for context in self.contexts:
            context.remove(gone)
        if with_vanished and gone:
            output.line(b"* VANISHED " + render_set(gone))
        elif gone:
            output.write(b"".join(b"* %d EXPUNGE\r\n" % self.number(uid) for uid in reversed(gone)))
        if gone:
            vanished = set(gone)
            self.uids, self._is_shared = array("I", [uid for uid in self.uids if uid not in vanished]), False
            self._recent = [each for each in self._recent if each.stop > self._next or self._count(each)]
            if self.recent_count != self._recent_told:
                self._tell_recent(output)
        self._gone = _NO_UIDS

    def _add(self, fresh: Sequence[Uid], output: Output) -> None:
        if self._is_shared:
            self.uids, self._is_shared = self.uids[:], False
        self.uids.extend(fresh)
        self._next = fresh[-1] + 1
        output.line(b"* %d EXISTS" % len(self.uids))
        if self._has_recent:
            self._tell_recent(output)

    def _tell_recent(self, output: Output) -> None:
        self._recent_told = self.recent_count
        output.line(b"* %d RECENT" % self._recent_told)

    def _tell_flags(
        self, changed: Iterable[Uid], output: Output, tell: Callable[[int, Message], bytes]
    ) -> Modseq:
        told, there = self._told, filter(None, map(self.mailbox.messages.get, changed))
        untold = [each for each in there if told.get(each[0]) != each[2]]
        for message in untold:
            if number := self.number(message.uid):
                output.write(tell(number, message))
        return max(map(_modseq, untold), default=Modseq(0))


@lru_cache(maxsize=128)
def unclaimed(mailbox: Mailbox) -> range:
    r"""The UIDs that are \Recent to a session that must not claim them (EXAMINE)."""
    return range(mailbox.peek_recent(), mailbox.uidnext)


def permanent_flags(keywords: tuple[bytes, ...], rights: Rights) -> bytes:
    """The flags that somebody with these rights can change. RFC 4314 §5.1.1."""
    flags = [flag for flag in (*SYSTEM_FLAGS, *keywords) if right_of(flag) in rights]
    return b"(" + b" ".join([*flags, b"\\*"] if "w" in rights else flags) + b")"


@lru_cache(maxsize=128)
def applicable_flags(keywords: tuple[bytes, ...]) -> bytes:
    """The FLAGS response's list. RFC 3501 §7.2.6."""
    return b"(" + b" ".join((*SYSTEM_FLAGS, *keywords)) + b")"
