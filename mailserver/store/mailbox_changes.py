"""How a mailbox changes: UIDs, modseqs, flags and change notices over a MailboxFormat.

state.db is the truth about UIDs and flags, the format about which messages exist. Each change
goes through `_change`: one transaction that first takes in what other processes committed to
state.db, then decides, writes and commits, and only then shows itself in memory and to the
listeners. So a UID is durable before it is visible.

Locks: the mailbox's own, then the one of state.db, which is held for a transaction only.
"""

from __future__ import annotations

import abc
import errno
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NoReturn
from weakref import WeakValueDictionary
from zlib import crc32

from mailserver.store.cache import Cache
from mailserver.store.contract import (
    SEEN,
    SYSTEM_FLAGS,
    Flags,
    MailboxReplaced,
    Modseq,
    OverQuota,
    Sleeping,
    StoreFailure,
    Uid,
)
from mailserver.store.format import Delta, Found, Known, MailboxFormat
from mailserver.store.mailbox_memory import MailboxMemory
from mailserver.store.own_seen import OwnSeen, SeenChange
from mailserver.store.quota import QuotaKeeper
from mailserver.store.state import (
    FlagChange,
    MailboxRow,
    MessageTuple,
    State,
    decode_flags,
    encode_flags,
)
from mailserver.store.text_builder import TextBuilder

_SYSTEM: Final = {flag.lower(): flag for flag in SYSTEM_FLAGS}
_SEEN: Final = frozenset({SEEN})
_LINGERING_READERS: Final = 4
_FEW_SAID: Final = 1000  # messages that are gone, of which it may be known who has seen them


# As `Known(*…)`, at the price of a plain tuple.
_known_message: Final[Callable[[tuple[str, str, Flags]], Known]] = partial(tuple.__new__, Known)


@dataclass
class Change:
    """What one transaction does. Its modseq is given by `_change`."""

    added: list[tuple[Found, Flags]] = field(default_factory=list)
    flags: dict[Uid, Flags] = field(default_factory=dict)
    expunged: list[Uid] = field(default_factory=list)
    uids: list[Uid] = field(default_factory=list)  # of `added`, filled in
    token: str | None = None
    own: SeenChange | None = None

    def __bool__(self) -> bool:
        return bool(self.added or self.flags or self.expunged or self.own)


class MailboxChanges(MailboxMemory):
    """See the module; how it is opened has `mailbox_index`.

    `users` counts those that have it open, `is_watched` says whether it is watched; see `OpenMailboxes`.
    """

    def __init__(
        self,
        name: str,
        form: MailboxFormat,
        state: State,
        cache: Cache,
        warn: Callable[[str], None] = lambda text: None,
        texts: TextBuilder | None = None,
        quota: QuotaKeeper | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.users = 0
        self.is_watched = False
        self.lock = threading.RLock()
        self._format = form
        self._state = state
        self._cache = cache
        self._warn = warn
        self._texts = texts
        self._quota = quota
        self._is_searched: bool | None = None  # None: not asked yet
        self._replaced = False
        self._state_version = -1
        self._unwritten: dict[str, Flags] = {}
        self._moved: dict[Uid, str] = {}  # places that wait for a token
        self._token: str | None = None
        self._kept_token = ""
        self._kept_figures: tuple[Modseq, int | None] | None = None  # modseq and size of those in state.db
        self._own_seen: WeakValueDictionary[str, OwnSeen] = WeakValueDictionary()  # of readers who look at it
        self._last_readers: deque[OwnSeen] = deque(maxlen=_LINGERING_READERS)  # and who did lately
        with self.lock, self._faults():
            self._open()

    def _empty(self) -> None:
        super()._empty()
        self._new_sizes: dict[Uid, int] = {}  # not in state.db yet

    def _take_row(self, row: MailboxRow) -> None:
        self._id = row.id
        self.mailbox_id = row.mailbox_id
        self.uidvalidity = row.uidvalidity
        self.uidnext = row.uidnext
        self.highest_modseq = row.modseq
        self._recent = row.recent
        self._kept_token = row.token
        figures = self._state.figures(self.name)
        is_kept = figures is not None and figures.checksum is not None
        self._kept_figures = (figures.modseq, figures.size) if figures and is_kept else None

    def _spell_from(self, keywords: Sequence[bytes]) -> None:
        self.keywords: list[bytes] = list(keywords)
        self._spellings = _SYSTEM | {keyword.lower(): keyword for keyword in keywords}

    @abc.abstractmethod
    def _open(self) -> None:
        """The mailbox is as state.db and the format have it, in memory or asleep. Under the lock."""

    @abc.abstractmethod
    def _wake(self, asleep: Sleeping) -> None:
        """The messages are in memory. Under the lock."""

    def _vanish(self) -> NoReturn:
        self.sleeping = None
        self.replace()
        raise MailboxReplaced("The mailbox was deleted or replaced")

    # Faults.

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.EDQUOT:
                raise OverQuota("Quota exceeded") from error
            self._warn(f"mailbox {self.name}: {error}")
            raise StoreFailure("The mailbox cannot be read or written for now") from error

    @contextmanager
    def _holding(self) -> Iterator[None]:
        """The lock; the mailbox may sleep."""
        with self.lock, self._faults():
            if self._replaced:
                raise MailboxReplaced("The mailbox was deleted or replaced")
            yield

    @contextmanager
    def _working(self) -> Iterator[None]:
        """The lock; the mailbox is awake."""
        with self._holding():
            if self.sleeping is not None:
                self._wake(self.sleeping)
            yield

    @property
    def is_replaced(self) -> bool:
        """Whether the mailbox is no more."""
        return self._replaced

    def replace(self) -> None:
        """The mailbox is no more: every later call raises MailboxReplaced, and listeners are told."""
        with self.lock:
            self._replaced = True
            self._tell()

    def renamed(self, name: str, form: MailboxFormat) -> None:
        """The mailbox lies elsewhere now, under another name; sessions go on."""
        with self._working():
            self.name = name
            self._format = form
            self._reload_format()

    def _reload_format(self) -> None:
        """The format learns anew what the index knows; all is scanned at the next poll."""
        self._format.load(self._known(), "")

    def _known(self) -> Sequence[Known]:
        """All messages as the format gets them."""
        keys, places, messages = self._keys, self._places, self._messages
        return [_known_message((keys[uid], places[uid], messages[uid].flags)) for uid in self._uids]

    # Changes.

    def _change(self, plan: Callable[[], Change]) -> Change:
        """What `plan` decides is durable, visible and told. The plan sees the present state."""
        with self._state.transaction():
            self._catch_up()
            change = plan()
            self._write(change)
        self._remember(change)
        return change

    def _write(self, change: Change) -> None:
        """The change is written, in the transaction; memory is untouched but for uids of the change."""
        if not change and change.token is None:
            return
        modseq = Modseq(self.highest_modseq + 1) if change else self.highest_modseq
        first = max(self.uidnext, change.uids[-1] + 1) if change.uids else self.uidnext
        missing = len(change.added) - len(change.uids)
        change.uids.extend(Uid(uid) for uid in range(first, first + missing))
        uidnext = first + missing
        self._state.add_messages(
            self._id,
            [
                _row(uid, found, flags, modseq)
                for uid, (found, flags) in zip(change.uids, change.added, strict=True)
            ],
        )
        if change.flags:
            self._state.set_flags(self._id, modseq, self._grouped(change.flags))
        if change.expunged:
            self._state.expunge(self._id, modseq, change.expunged)
        if change.own:
            self._write_own_seen(change.own, change, modseq)
        if change.token is not None:
            self._state.set_places(self._id, self._moved)
        token = None if change.token is None else self._counted_token(change)
        uid_sum = self._uid_sum + sum(change.uids) - sum(change.expunged)
        self._write_row(uidnext, modseq, uid_sum, token)

    def _write_own_seen(self, own: SeenChange, change: Change, modseq: Modseq) -> None:
        """Messages that the change adds, or another process saw before us, are in `own` by their UIDs."""
        new = {found.key: uid for uid, (found, _) in zip(change.uids, change.added, strict=True)}
        own.seen.update((new.get(key) or self._uid_of[key], True) for key in own.keys)
        self._state.set_seen(self._id, own.reader, modseq, own.seen)

    def _write_row(self, uidnext: int, modseq: int, uid_sum: int, token: str | None = None) -> None:
        """The mailbox's figures are written, and sealed. In a transaction."""
        self._state.update_mailbox(self._id, uidnext, modseq, token)
        self._state.set_seal(self._id, self._seal(uidnext, modseq, uid_sum))

    def _seal(self, uidnext: int, modseq: int, uid_sum: int) -> int:
        """A checksum: one figure or UID that changed by itself does not fit it. RELIABILITY F27.

        Which message has a UID needs none: a key that changed is no message's.
        """
        return crc32(b"%d %d %d %d" % (self.uidvalidity, uidnext, modseq, uid_sum))

    def _grouped(self, flags: Mapping[Uid, Flags]) -> Mapping[FlagChange, Sequence[Uid]]:
        """The messages by what changes: a STORE of many makes few groups."""
        known = self.messages
        groups: defaultdict[FlagChange, list[Uid]] = defaultdict(list)
        for uid, new in flags.items():
            groups[known[uid].flags, new].append(uid)
        return groups

    def _counted_token(self, change: Change) -> str:
        count = len(self.uids) + len(change.added) - len(change.expunged)
        return f"{count}|{change.token}"

    def _remember(self, change: Change) -> None:
        """The committed change is visible and told."""
        if change.token is not None:
            self._moved, self._token, self._kept_token = {}, None, self._counted_token(change)
        if not change:
            return
        modseq = Modseq(self.highest_modseq + 1)
        added = zip(change.uids, change.added, strict=True)
        self._show([_row(uid, found, flags, modseq) for uid, (found, flags) in added])
        self._change_shown(change.flags, modseq)
        self._hide(change.expunged)
        if change.uids:
            self.uidnext = Uid(max(self.uidnext, change.uids[-1] + 1))
        own = self._own_seen.get(change.own.reader) if change.own else None
        with self._telling_readers([(own, modseq, change.own.seen)] if change.own and own else []):
            self._log_change(modseq, (*change.flags, *change.uids), tuple(change.expunged))
        if change.uids:
            self._keep_up_texts()

    def _change_shown(self, flags: Mapping[Uid, Flags], modseq: Modseq) -> None:
        r"""As `MailboxMemory._change_shown`; to who has a \Seen of his own the common one passes by."""
        if self._own_seen:
            known = self._messages
            passing = {
                uid: known[uid].modseq for uid, new in flags.items() if new ^ known[uid].flags == _SEEN
            }
            for own in [*self._own_seen.values()]:
                own.pass_by(passing, modseq)
        super()._change_shown(flags, modseq)

    def _news_of_seen(self, since: Modseq, modseq: Modseq) -> list[tuple[OwnSeen, Modseq, dict[Uid, bool]]]:
        """What readers who look at the mailbox have seen in other processes, up to `modseq`."""
        news = []
        for reader, own in [*self._own_seen.items()]:
            rows = self._state.own_seen(self._id, reader, since)
            if rows:
                news.append((own, modseq, {uid: is_seen for uid, is_seen, _ in rows}))
        return news

    @contextmanager
    def _telling_readers(self, news: Sequence[tuple[OwnSeen, Modseq, Mapping[Uid, bool]]]) -> Iterator[None]:
        """What these have now seen is in memory before the modseq is, and told, to them alone, behind it."""
        for own, modseq, seen in news:
            own.take(modseq, seen)
            if own.size > 2 * len(self._uids) + _FEW_SAID:
                own.forget(self._messages.__contains__)
        yield
        for own, *_ in news:
            own.listeners.tell()

    def own_seen(self, reader: str) -> OwnSeen:
        """See `SharedMailbox.own_seen`."""
        with self._working():
            found = self._own_seen.get(reader)
            if found is None:
                with self._state.transaction():  # other processes wait
                    self._catch_up()
                    rows = self._state.own_seen(self._id, reader)
                    found = self._own_seen[reader] = OwnSeen(rows, self.highest_modseq)
            if found not in self._last_readers:
                self._last_readers.append(found)
            return found

    def _keep_up_texts(self) -> None:
        """Where the mailbox has been searched, its new messages will be found fast too."""
        if self._texts is None or not self._texts.index.is_used:
            return
        if self._is_searched is None:
            self._is_searched = self._texts.index.holds_any(self.mailbox_id)
        if self._is_searched:
            self._texts.want(self)

    def _hide(self, uids: Sequence[Uid]) -> None:
        """As `MailboxMemory._hide`; nor is anything kept of the messages elsewhere."""
        if uids:
            super()._hide(uids)
            for uid in uids:
                self._moved.pop(uid, None)
                self._new_sizes.pop(uid, None)
            self._cache.forget(self.mailbox_id, uids)
            if self._texts is not None:
                self._texts.index.forget(self.mailbox_id, uids)

    def _catch_up(self) -> None:
        """What other processes committed to state.db is in memory. Raises MailboxReplaced."""
        self._state_version = self._state.version()
        row = self._state.mailbox_by_id(self._id)
        if row is None or row.uidvalidity != self.uidvalidity:
            self._vanish()
        self._recent = row.recent
        if row.modseq == self.highest_modseq:
            return
        if self.sleeping is not None:
            self._wake(self.sleeping)  # and all of it is known
            return
        before = self.highest_modseq
        self._spell_from(self._state.keywords(self._id))
        expunged = [
            uid for uid in self._state.expunged(self._id, self.highest_modseq) if uid in self.messages
        ]
        if row.forgotten > self.highest_modseq:
            left = {row[0] for row in self._state.messages(self._id)}
            expunged = [uid for uid in self.uids if uid not in left]
        changed = self._state.messages(self._id, self.highest_modseq)
        self._show([message for message in changed if message[0] not in self.messages])
        for uid, _, _, flags, number, *_ in changed:
            self._change_shown({uid: decode_flags(flags)}, number)
        self._hide(expunged)
        self.uidnext = row.uidnext
        with self._telling_readers(self._news_of_seen(before, row.modseq)):
            self._log_change(row.modseq, [message[0] for message in changed], expunged)

    def _absorb(
        self,
        delta: Delta | None,
        added: Sequence[Found] = (),
        expunged: Sequence[Uid] = (),
        uids: Sequence[Uid] = (),
        own: SeenChange | None = None,
    ) -> None:
        """What the format noticed, and what we did ourselves, is durable and visible.

        One transaction: a token must not be durable before all that it stands for. `uids` are wishes
        for `added`, granted unless other programs added messages before them. `own`: see `SeenChange`.
        """
        noticed = delta or Delta()
        self._note_places(noticed)
        if not (noticed.added or noticed.removed or noticed.flags or added or expunged):
            return

        def plan() -> Change:
            change = self._absorbing(noticed, added, expunged, uids)
            change.own = own
            return change

        try:
            self._change(plan)
        except BaseException:
            self._reload_format()  # it believes that we know
            raise

    def _note_places(self, delta: Delta) -> None:
        for key, place in (delta.places or {}).items():
            uid = self._uid_of.get(key)
            if uid is not None:
                self._places[uid] = self._moved[uid] = place
        if delta.token:
            self._token = delta.token

    def _absorbing(
        self,
        delta: Delta,
        added: Sequence[Found] = (),
        expunged: Sequence[Uid] = (),
        uids: Sequence[Uid] = (),
    ) -> Change:
        change = Change(token=delta.token or None)
        new = [found for found in delta.added if found.key not in self._uid_of]
        ours = [found for found in added if found.key not in self._uid_of]
        change.added = [(found, self._spell(found.flags)) for found in (*new, *ours)]
        if uids and not new and len(ours) == len(uids) and uids[0] >= self.uidnext:
            change.uids = list(uids)
        for found in added:  # that another process saw and numbered before us
            uid = self._uid_of.get(found.key)
            if uid is not None and self.messages[uid].flags != self._spell(found.flags):
                change.flags[uid] = self._spell(found.flags)
        gone = {self._uid_of[key] for key in delta.removed if key in self._uid_of}
        gone.update(uid for uid in expunged if uid in self.messages)
        change.expunged = sorted(gone)
        for key, flags in (delta.flags or {}).items():
            uid = self._uid_of.get(key)
            if uid is not None and uid not in gone and self.messages[uid].flags != self._spell(flags):
                change.flags[uid] = self._spell(flags)
        return change

    def _spell(self, flags: Collection[bytes]) -> Flags:
        """The flags as first spelt; keywords that are new are kept. In a transaction."""
        try:
            return frozenset([self._spellings[flag.lower()] for flag in flags])
        except KeyError:
            self._keep_keywords([flag for flag in flags if not flag.startswith(b"\\")])
            spelt = (self._spellings.get(flag.lower()) for flag in flags)
            return frozenset(flag for flag in spelt if flag)

    def _keep_keywords(self, keywords: Iterable[bytes]) -> None:
        new = list({word.lower(): word for word in keywords if word.lower() not in self._spellings}.values())
        if new:
            self._state.add_keywords(self._id, len(self.keywords), new)
            self._spell_from([*self.keywords, *new])


def _row(uid: Uid, found: Found, flags: Flags, modseq: Modseq) -> MessageTuple:
    text = encode_flags(flags)
    return (uid, found.key, found.place, text, modseq, found.internal_date, found.size)
