"""The maildrop of one POP3 session: what INBOX held at login, and what is to become of it.

Message numbers, sizes and ids hold for the session, whatever other programs do (RFC 1939 §3).
Nothing is deleted before `update`, which QUIT calls; a session that ends otherwise deletes
nothing. One POP3 session at a time holds the maildrop, by a lock no delivery waits for.

A client that did not say UTF8 sees ASCII headers of internationalized mail (`message.downgrade`); LIST and
STAT count what is stored nevertheless, since to know better every message would have to be read.

All methods that touch the store block: they run in a thread, one at a time. Message
numbers count from 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.account import Account
from mailserver.message.downgrade import downgraded
from mailserver.pop3d.output import multiline, top
from mailserver.pop3d.uidl import header_digest, old_id
from mailserver.store.contract import (
    SEEN,
    AccountStore,
    Mailbox,
    StoreMode,
    StoreRegistry,
    Uid,
)

_READ_AHEAD: Final = 262_144  # octets read before they are asked for, in all
_MESSAGES_AHEAD: Final = 64


class MaildropInUse(Exception):
    """Another POP3 session holds the maildrop. RFC 2449 §8.1.1 (IN-USE)."""


@dataclass(slots=True)
class Sent:
    """How many messages were sent, and their octets, for the log."""

    messages: int = 0
    octets: int = 0


class Maildrop:
    """See the module. Made by `open_maildrop`; `release` gives everything back."""

    def __init__(
        self,
        registry: StoreRegistry,
        store: AccountStore,
        inbox: Mailbox,
        unlock: Callable[[], None],
        marks_seen: bool = True,
    ) -> None:
        self._registry = registry
        self._store = store
        self._inbox = inbox
        self._unlock = unlock
        self._marks_seen = marks_seen
        sizes = inbox.sizes(inbox.uids)
        self.uids: tuple[Uid, ...] = tuple(uid for uid in inbox.uids if uid in sizes)
        self.sizes: tuple[int, ...] = tuple(sizes[uid] for uid in self.uids)
        self.uidvalidity = inbox.uidvalidity
        self.takes_utf8 = False
        self.deleted: set[int] = set()
        self.retrieved = Sent()
        self.topped = Sent()
        self._seen: set[Uid] = set()
        self._ahead: dict[int, bytes] = {}
        self._last_read = 0

    # What the session asks, answered from memory.

    def present(self) -> Iterator[int]:
        """The numbers of the messages that are not marked as deleted."""
        return (number for number in range(1, len(self.uids) + 1) if number not in self.deleted)

    def size(self, number: int) -> int:
        """Octets of a message, as the store counts them."""
        return self.sizes[number - 1]

    def totals(self) -> tuple[int, int]:
        """Messages and octets not marked as deleted."""
        octets = sum(self.sizes) - sum(map(self.size, self.deleted))
        return len(self.uids) - len(self.deleted), octets

    def at_hand(self, number: int) -> bytes | None:
        """RETR's whole answer where it was read ahead, else None; counts as `retrieve`."""
        answer = self._ahead.pop(number, None)
        if answer is not None:
            self._count_retrieval(number, answer)
        return answer

    def _count_retrieval(self, number: int, answer: bytes) -> None:
        self._last_read = number
        if self._marks_seen:
            self._seen.add(self.uids[number - 1])
        self.retrieved.messages += 1
        self.retrieved.octets += len(answer)

    # What blocks.

    def file_names(self) -> Mapping[Uid, str]:
        """The messages' files, by UID; see `Mailbox.file_names`."""
        return self._inbox.file_names(self.uids)

    def header_digests(self) -> Mapping[Uid, str]:
        """`uidl.header_digest` of the messages, by UID; those that others have too are left out."""
        known = self._inbox.facts(self.uids, header_digest, "header-md5.1", of_header=True)
        times = Counter(known.values())
        return {uid: digest.decode("ascii") for uid, digest in known.items() if times[digest] == 1}

    def old_ids(self) -> Mapping[Uid, bytes]:
        """`uidl.old_id` of the messages, by UID; those that others have too are left out."""
        known = self._inbox.facts(self.uids, old_id, "x-uidl.1", of_header=True)
        times = Counter(known.values())
        return {uid: old for uid, old in known.items() if old and times[old] == 1}

    def retrieve(self, number: int) -> bytes:
        """RETR's whole answer. The message will be \\Seen. Raises StoreError."""
        answer = self._answer(number)
        self._read_ahead(number)
        self._count_retrieval(number, answer)
        return answer

    def top(self, number: int, lines: int) -> bytes:
        """TOP's whole answer. Raises StoreError."""
        answer = b"+OK\r\n" + multiline(top(self._read(number), lines))
        self.topped.messages += 1
        self.topped.octets += len(answer)
        return answer

    def update(self) -> None:
        """The marked messages are gone, durably; flags are stored. RFC 1939 §6. Raises StoreError."""
        self.store_flags()
        if self.deleted:
            self._inbox.remove([self.uids[number - 1] for number in sorted(self.deleted)])

    def store_flags(self) -> None:
        """What was retrieved is \\Seen, durably. Raises StoreError."""
        messages = self._inbox.messages
        unseen = [uid for uid in sorted(self._seen) if uid in messages and SEEN not in messages[uid].flags]
        if unseen:
            self._inbox.change_flags(unseen, frozenset({SEEN}), StoreMode.ADD)
        self._seen.clear()

    def forget_flags(self) -> None:
        """Nothing becomes \\Seen by what was retrieved so far."""
        self._seen.clear()

    def release(self) -> None:
        """Flags are stored, and the maildrop is free for the next session. Raises StoreError."""
        try:
            self.store_flags()
        finally:
            self._store.close(self._inbox)
            self._unlock()
            self._registry.close(self._store)

    def _answer(self, number: int) -> bytes:
        return _whole_answer(self._read(number))

    def _read(self, number: int) -> bytes:
        return self._shown(self._inbox.read(self.uids[number - 1]))

    def _shown(self, content: bytes) -> bytes:
        """The message as this client may see it. RFC 6856 §2.1."""
        return content if self.takes_utf8 else downgraded(content)

    def _read_ahead(self, number: int) -> None:
        """Small messages that come next are read too, where the client takes them in order."""
        self._ahead.clear()
        if number != self._last_read + 1:
            return
        room, wanted = _READ_AHEAD, {}
        for following in range(number + 1, min(number + _MESSAGES_AHEAD, len(self.uids)) + 1):
            room -= self.size(following)
            if room < 0:
                break
            wanted[self.uids[following - 1]] = following
        _, contents = self._inbox.read_batch([*wanted], _READ_AHEAD)
        for uid, content in contents.items():  # of one that is gone the client hears when it asks
            self._ahead[wanted[uid]] = _whole_answer(self._shown(content))


def _whole_answer(content: bytes) -> bytes:
    return b"+OK %d octets\r\n%b" % (len(content), multiline(content))


def open_maildrop(registry: StoreRegistry, account: Account, marks_seen: bool = True) -> Maildrop:
    """The account's maildrop, locked. *Blocking.* Raises MaildropInUse, StoreError."""
    store = registry.open(account)
    unlock: Callable[[], None] | None = None
    inbox: Mailbox | None = None
    try:
        unlock = store.lock_maildrop()
        if unlock is None:
            raise MaildropInUse
        inbox = store.open("INBOX")
        return Maildrop(registry, store, inbox, unlock, marks_seen)
    except BaseException:
        if inbox is not None:
            store.close(inbox)
        if unlock is not None:
            unlock()
        registry.close(store)
        raise
