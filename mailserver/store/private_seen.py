r"""A mailbox that others share, as one of its readers sees it: \Seen is his own, all else is common.

So have it Dovecot's users with INDEXPVT. A change of his has a modseq of the mailbox's own series, so that
his other sessions find it as they find any; to others a modseq goes by, and nothing changes (RFC 7162
§3.1.4, Example 14). So goes by to him, as long as he is remembered here, what happens to the common \Seen.
What he has seen stands in state.db with the mailbox's flags, and is durable with them in one transaction
(`state_readers`). The format beside the messages (a maildir's `S`, an mbox's `Status:`) knows of the common
\Seen alone.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence, ValuesView
from functools import cached_property, lru_cache
from typing import Final, TypeVar, overload

from mailserver.store.contract import (
    SEEN,
    Changes,
    Flags,
    FlagsChanged,
    Mailbox,
    Message,
    Modseq,
    NewMessage,
    Reader,
    StoreMode,
    Target,
    Uid,
)
from mailserver.store.mailbox_view import MailboxView
from mailserver.store.own_seen import OwnSeen

_SEEN_ALONE: Final = frozenset({SEEN})
_T = TypeVar("_T")
Messages = Mapping[Uid, Message]


@lru_cache(maxsize=4096)
def with_seen(flags: Flags) -> Flags:
    r"""The flags and \Seen."""
    return flags | _SEEN_ALONE


@lru_cache(maxsize=4096)
def without_seen(flags: Flags) -> Flags:
    r"""The flags but for \Seen."""
    return flags - _SEEN_ALONE


class SharedMailbox(Mailbox):
    """A mailbox that keeps what each of its readers has seen. All methods are *blocking*."""

    @abc.abstractmethod
    def own_seen(self, reader: str) -> OwnSeen:
        """What the reader has seen, kept up to date as long as somebody holds it."""

    @abc.abstractmethod
    def append_for(self, reader: str, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        r"""As `append`; \Seen is the reader's."""

    @abc.abstractmethod
    def change_flags_for(
        self,
        view: PrivateSeenMailbox,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None,
    ) -> FlagsChanged:
        r"""As `change_flags`; \Seen is the reader's, and a message unchanged that is so for him."""

    @abc.abstractmethod
    def transfer(
        self, uids: Sequence[Uid], target: Mailbox, known: Callable[[], Messages], moves: bool
    ) -> Sequence[tuple[Uid, Uid]]:
        """As `copy` or `move`, with the flags of the messages that `known` gives."""


class PrivateSeenMailbox(MailboxView):
    """See the module."""

    def __init__(self, common: SharedMailbox, reader: Reader) -> None:
        super().__init__(common)
        self._common = common
        self.reader = reader

    @cached_property
    def own(self) -> OwnSeen:
        """What the reader has seen. *Blocking* the first time."""
        return self._common.own_seen(self.reader.name)

    def wake(self) -> None:
        """See `Mailbox.wake`."""
        super().wake()
        self.own  # noqa: B018  (read from state.db here, where that may block)

    def seen_by(self, reader: Reader) -> Mailbox:
        """See `Mailbox.seen_by`."""
        return PrivateSeenMailbox(self._common, reader)

    def as_target(self) -> Target:
        """See `Mailbox.as_target`."""
        return Target(self._common, reader=self.reader.name)

    @property
    def messages(self) -> _AsSeen:  # type: ignore[override]
        """See `Mailbox`."""
        return _AsSeen(self._common.messages, self.own, self.reader.starts_with_common)

    def expunged_message(self, uid: Uid) -> Message | None:
        """See `Mailbox.expunged_message`."""
        message = self._common.expunged_message(uid)
        return self.messages.shown(message) if message is not None else None

    def changes_since(self, modseq: Modseq) -> Changes:
        """See `Mailbox.changes_since`."""
        changes = self._common.changes_since(modseq)
        own = self.own.changed(modseq, changes.highest_modseq).difference(changes.expunged)
        if not own and not self.own.passed_by:
            return changes
        there = self.messages
        both = sorted({*changes.changed, *own})
        changed = [uid for uid in both if (found := there.get(uid)) is not None and found.modseq > modseq]
        return Changes(changes.highest_modseq, changed, changes.expunged, changes.complete)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.subscribe`."""
        super().subscribe(listener)
        self.own.listeners.add(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.unsubscribe`."""
        super().unsubscribe(listener)
        self.own.listeners.remove(listener)

    def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        """See `Mailbox.append`."""
        return self._common.append_for(self.reader.name, messages)

    def change_flags(
        self,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None = None,
    ) -> FlagsChanged:
        """See `Mailbox.change_flags`."""
        return self._common.change_flags_for(self, uids, flags, mode, unchanged_since)

    def copy(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.copy`."""
        return self._common.transfer(uids, target, lambda: self.messages, moves=False)

    def move(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.move`."""
        return self._common.transfer(uids, target, lambda: self.messages, moves=True)

    def expunge(self, uids: Sequence[Uid] | None = None) -> Sequence[Uid]:
        """See `Mailbox.expunge`."""
        return self._common.expunge(uids)

    def remove(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        """See `Mailbox.remove`."""
        return self._common.remove(uids)


class _AsSeen(Messages):
    r"""The messages with the reader's own \Seen, put together as they are asked for."""

    __slots__ = ("_messages", "_passed_by", "_said", "_starts_with_common")

    def __init__(self, messages: Messages, own: OwnSeen, starts_with_common: bool) -> None:
        self._messages = messages
        self._said = own.said
        self._passed_by = own.passed_by
        self._starts_with_common = starts_with_common

    def shown(self, message: Message) -> Message:
        """The message as the reader sees it."""
        uid, flags, modseq, date = message
        said = self._said.get(uid)
        if said is None and self._starts_with_common:
            return message
        unchanged_since, passed_by = self._passed_by.get(uid, (modseq, modseq))
        if passed_by == modseq:
            modseq = unchanged_since
        if said is None:
            return Message(uid, without_seen(flags), modseq, date)
        is_seen, said_at = said
        own = with_seen(flags) if is_seen else without_seen(flags)
        return Message(uid, own, max(modseq, said_at), date)

    def __getitem__(self, uid: Uid) -> Message:
        return self.shown(self._messages[uid])

    @overload
    def get(self, uid: Uid, /) -> Message | None: ...
    @overload
    def get(self, uid: Uid, default: Message | _T, /) -> Message | _T: ...
    def get(self, uid: Uid, default: Message | _T | None = None, /) -> Message | _T | None:
        """As in any mapping."""
        message = self._messages.get(uid)
        return default if message is None else self.shown(message)

    def __contains__(self, uid: object) -> bool:
        return uid in self._messages

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Uid]:
        return iter([*self._messages])  # at once: another thread may change them

    def items(self) -> ItemsView[Uid, Message]:
        """All at once, as they are now."""
        return self._now().items()

    def values(self) -> ValuesView[Message]:
        """All at once, as they are now."""
        return self._now().values()

    def _now(self) -> dict[Uid, Message]:
        return {uid: self.shown(message) for uid, message in dict(self._messages).items()}
