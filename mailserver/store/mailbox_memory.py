"""What is in memory of a mailbox: messages, the latest changes, and who listens.

Written by the thread that holds the mailbox's lock; read at any time by others, as `Mailbox` has it. Nothing
here touches a disk: `mailbox_changes` and `mailbox_index` fill it from state.db and the mailbox's format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

from mailserver.store.contract import DELETED, SEEN, Changes, Flags, Mailbox, Message, Modseq, Uid
from mailserver.store.listeners import Listeners
from mailserver.store.state import MessageTuple, decode_flags

_REMEMBERED_CHANGES: Final = 1000  # transactions that changes_since answers from memory
_REMEMBERED_MESSAGES: Final = 1000  # expunged ones, for sessions that still count them
_FEW: Final = 50  # removals that are cheaper one by one
_Logged = tuple[Modseq, Sequence[Uid], Sequence[Uid]]  # modseq, changed, expunged

# As `Message(*…)`, at the price of a plain tuple.
_message: Final[Callable[[tuple[Uid, Flags, Modseq, int]], Message]] = partial(tuple.__new__, Message)


class MailboxMemory(Mailbox):
    """See the module."""

    def __init__(self) -> None:
        self._listeners = Listeners()
        self._expunged: dict[Uid, Message] = {}  # the last few
        self._counted: tuple[int, int] | None = None  # unseen and deleted messages, where they were asked for
        self._log: deque[_Logged] = deque(maxlen=_REMEMBERED_CHANGES)
        self._hiding: Sequence[Uid] = ()  # gone from `_uids`, and not yet in the log
        self._log_floor = Modseq(0)  # the log reaches back to it
        self._empty()

    def _empty(self) -> None:
        """No message is in memory."""
        self._messages: dict[Uid, Message] = {}
        self._uids: list[Uid] = []
        self._uid_sum = 0
        self._keys: dict[Uid, str] = {}
        self._uid_of: dict[str, Uid] = {}
        self._places: dict[Uid, str] = {}
        self._sizes: dict[Uid, int] = {}
        self._counted = None

    # Until the messages are in memory, whoever asks for them waits.

    @property
    def messages(self) -> dict[Uid, Message]:  # type: ignore[override]
        """See `Mailbox`."""
        if self.sleeping is not None:
            self.wake()
        return self._messages

    @property
    def uids(self) -> list[Uid]:  # type: ignore[override]
        """See `Mailbox`."""
        if self.sleeping is not None:
            self.wake()
        return self._uids

    @property
    def held(self) -> int:
        """How many messages are in memory."""
        return len(self._uids)

    def _show(self, rows: Sequence[MessageTuple]) -> None:
        """The rows are in memory: by columns, since there may be a hundred thousand."""
        if not rows:
            return
        uids, keys, places, texts, modseqs, dates, sizes = zip(*rows, strict=True)
        flags = [*map(decode_flags, texts)]
        self._keys.update(zip(uids, keys, strict=True))
        self._uid_of.update(zip(keys, uids, strict=True))
        self._places.update(zip(uids, places, strict=True))
        self._sizes.update((uid, size) for uid, size in zip(uids, sizes, strict=True) if size is not None)
        self._messages.update(
            zip(uids, map(_message, zip(uids, flags, modseqs, dates, strict=True)), strict=True)
        )
        self._uids.extend(uids)
        self._count(flags, 1)
        self._uid_sum += sum(uids)

    def _change_shown(self, flags: Mapping[Uid, Flags], modseq: Modseq) -> None:
        """The messages have these flags."""
        known = self._messages
        old = [known[uid] for uid in flags]
        self._count([message.flags for message in old], -1)
        self._count(flags.values(), 1)
        known.update(
            [
                (uid, _message((uid, new, modseq, message[3])))
                for (uid, new), message in zip(flags.items(), old, strict=True)
            ]
        )

    def _count(self, flags: Collection[Flags], sign: int) -> None:
        """Messages with these flags came (1) or went (-1)."""
        if self._counted is not None:
            unseen, deleted = _counts(flags)
            self._counted = self._counted[0] + sign * unseen, self._counted[1] + sign * deleted

    def _hide(self, uids: Sequence[Uid]) -> None:
        """The messages are not in memory any more."""
        self._hiding = uids
        self._uids = _without(self._uids, uids)
        self._expunged |= {
            uid: self._messages[uid] for uid in uids[-_REMEMBERED_MESSAGES:] if uid in self._messages
        }
        while len(self._expunged) > _REMEMBERED_MESSAGES:
            del self._expunged[next(iter(self._expunged))]
        self._count([message.flags for uid in uids if (message := self._messages.get(uid)) is not None], -1)
        for uid in uids:
            if self._messages.pop(uid, None) is not None:
                self._uid_sum -= uid
            self._uid_of.pop(self._keys.pop(uid, ""), None)
            self._places.pop(uid, None)
            self._sizes.pop(uid, None)

    def expunged_message(self, uid: Uid) -> Message | None:
        """See `Mailbox.expunged_message`."""
        return self._expunged.get(uid)

    # Figures.

    def _counts(self) -> tuple[int, int]:
        if self._counted is None:
            self._counted = _counts([message.flags for message in self._messages.values()])
        return self._counted

    def _octets(self) -> int | None:
        return sum(self._sizes.values()) if len(self._sizes) == len(self._uids) else None

    def _first_unseen(self) -> int:
        r"""The sequence number of the first message without \Seen, 0 where there is none."""
        if not self._counts()[0]:
            return 0
        numbered = enumerate(self._messages.values(), 1)
        return next((number for number, each in numbered if SEEN not in each.flags), 0)

    # Changes.

    def _log_change(self, modseq: Modseq, changed: Sequence[Uid], expunged: Sequence[Uid]) -> None:
        """The change is remembered for `changes_since`, and told, unless it is nothing to most."""
        self._log.append((modseq, changed, expunged))
        self.highest_modseq = modseq  # now: whoever sees it finds what it stands for in the log
        self._hiding = ()
        if changed or expunged:
            self._tell()

    def _recent_changes(self, modseq: Modseq) -> Changes | None:
        """As `changes_since`; None where that is longer ago than is remembered.

        Whoever misses a message in `uids` is told that it is gone, though the modseq comes only now.
        """
        hiding = self._hiding  # first: it is empty again once the log has them
        highest = self.highest_modseq
        if modseq >= highest:
            return Changes(highest, (), hiding)
        if modseq < self._log_floor:
            return None
        changed: set[Uid] = set()
        expunged = set(hiding)
        log, position = self._log, -1  # whatever is logged meanwhile: one is seen twice, none missed
        try:
            while (logged := log[position])[0] > modseq:
                number, uids, gone = logged
                if number <= highest:
                    changed.update(uids)
                    expunged.update(gone)
                position -= 1
        except IndexError:
            if len(log) == log.maxlen:
                return None
        return Changes(highest, sorted(changed - expunged), sorted(expunged))

    # Listeners.

    def subscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.subscribe`."""
        self._listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.unsubscribe`."""
        self._listeners.remove(listener)

    def _tell(self) -> None:
        self._listeners.tell()


def _counts(flags: Collection[Flags]) -> tuple[int, int]:
    """How many messages with these flags are unseen, and how many deleted."""
    sets = Counter(flags).items()  # few
    return sum(n for each, n in sets if SEEN not in each), sum(n for each, n in sets if DELETED in each)


def _without(uids: list[Uid], gone: Sequence[Uid]) -> list[Uid]:
    """A new list; readers may hold the old one."""
    if len(gone) > _FEW:
        leaving = set(gone)
        return [uid for uid in uids if uid not in leaving]
    left = uids.copy()
    for uid in gone:
        position = bisect_left(left, uid)
        if left[position : position + 1] == [uid]:
            del left[position]
    return left
