"""A store in memory that honours the whole Mailbox contract, for tests of the services over it.

Nothing is durable and nothing is shared with other programs; everything else is as the
contract says, modseqs, change notices and the memory of expunges included. Tests play the
other program with `MemoryMailbox.deliver` and `MemoryMailbox.vanish`, and bring about local
faults with `fail_with`.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from mailserver.accounts.account import Account
from mailserver.message.header import header_end
from mailserver.store.contract import (
    DELETED,
    SEEN,
    AccessKey,
    AccountStore,
    BadMailboxName,
    Changes,
    Flags,
    FlagsChanged,
    Folder,
    Mailbox,
    MailboxExists,
    MailboxReplaced,
    MailboxStatus,
    Message,
    MessageGone,
    Modseq,
    NewMessage,
    NoSuchMailbox,
    OverQuota,
    Reader,
    StoreError,
    StoreMode,
    StoreRegistry,
    Uid,
)

Listener = Callable[[], None]


class MemoryMailbox(Mailbox):
    """See `Mailbox`. `expunge_memory` bounds how many expunges are remembered."""

    def __init__(self, name: str, uidvalidity: int, mailbox_id: str, quota: int | None = None) -> None:
        self.name = name
        self.uidvalidity = uidvalidity
        self.uidnext = Uid(1)
        self.highest_modseq = Modseq(1)
        self.messages: dict[Uid, Message] = {}
        self.uids: list[Uid] = []
        self.keywords: list[bytes] = []
        self.mailbox_id = mailbox_id
        self.expunge_memory = 1000
        self.fail_with: StoreError | None = None
        self.users = 0
        self.replaced = False
        self.reads = 0
        self.renderings = 0
        self._quota = quota
        self._contents: dict[Uid, bytes] = {}
        self._saved: dict[Uid, int] = {}
        self._gone: dict[Uid, Message] = {}
        self._expunged: list[tuple[Modseq, Uid]] = []
        self._forgotten = Modseq(0)
        self._facts: dict[tuple[str, Uid], bytes] = {}
        self._outside: list[Callable[[], object]] = []
        self._recent = Uid(1)
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()

    # What other programs do: seen at the next `refresh`.

    def deliver(self, *contents: bytes, flags: Flags = frozenset(), internal_date: int | None = None) -> None:
        """Another program appended messages; known after the next refresh."""
        new = [NewMessage(content, flags, internal_date) for content in contents]
        self._outside.append(lambda: self._add(new))

    def vanish(self, *uids: int) -> None:
        """Another program removed messages; `read` fails at once, the rest is known after a refresh."""
        for uid in uids:
            self._contents.pop(Uid(uid), None)
        self._outside.append(lambda: self._drop([Uid(uid) for uid in uids]))

    def replace(self) -> None:
        """The mailbox lost its UIDs: every later call raises MailboxReplaced."""
        self.replaced = True
        self._notify()

    # The contract.

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)

    @property
    def listeners(self) -> Sequence[Listener]:
        """Who would be told."""
        return tuple(self._listeners)

    def changes_since(self, modseq: Modseq) -> Changes:
        with self._lock:
            changed = [uid for uid in self.uids if self.messages[uid].modseq > modseq]
            if modseq < self._forgotten:
                gone = [Uid(uid) for uid in range(1, self.uidnext) if uid not in self.messages]
                return Changes(self.highest_modseq, changed, gone, complete=False)
            start = bisect_left(self._expunged, (modseq + 1, 0))
            gone = sorted({uid for _, uid in self._expunged[start:]})
            return Changes(self.highest_modseq, changed, gone)

    def refresh(self) -> bool:
        with self._lock:
            self._check()
            outside, self._outside = self._outside, []
            for change in outside:
                change()
        if outside:
            self._notify()
        return bool(outside)

    def claim_recent(self) -> range:
        with self._lock:
            claimed, self._recent = self._recent, self.uidnext
            return range(claimed, self.uidnext)

    def peek_recent(self) -> Uid:
        return self._recent

    def read(self, uid: Uid) -> bytes:
        self._check()
        self.reads += 1
        try:
            return self._contents[uid]
        except KeyError:
            raise MessageGone(f"message {uid} is gone") from None

    def expunged_message(self, uid: Uid) -> Message | None:
        return self._gone.get(uid)

    def sizes(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        self._check()
        return {uid: len(self._contents[uid]) for uid in uids if uid in self._contents}

    def save_dates(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        self._check()
        return {uid: self._saved[uid] for uid in uids if uid in self._contents}

    def facts(
        self, uids: Sequence[Uid], make: Callable[[bytes], bytes], kind: str, of_header: bool = False
    ) -> Mapping[Uid, bytes]:
        self._check()
        found: dict[Uid, bytes] = {}
        for uid in uids:
            if uid not in self._contents:
                continue
            if (kind, uid) not in self._facts:
                self.renderings += 1
                content = self._contents[uid]
                self._facts[kind, uid] = make(content[: header_end(content)] if of_header else content)
            found[uid] = self._facts[kind, uid]
        return found

    def known_facts(self, uids: Sequence[Uid], kind: str) -> Mapping[Uid, bytes]:
        self._check()
        known = {uid: self._facts.get((kind, uid)) for uid in uids if uid in self._contents}
        return {uid: fact for uid, fact in known.items() if fact is not None}

    def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        with self._lock:
            self._check()
            added = self._add(messages)
        self._notify()
        return added

    def change_flags(
        self,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None = None,
    ) -> FlagsChanged:
        changed: list[Uid] = []
        modified: list[Uid] = []
        with self._lock:
            self._check()
            flags = self._spelt(flags)
            modseq = Modseq(self.highest_modseq + 1)
            for uid in sorted(set(uids)):
                message = self.messages.get(uid)
                if message is None:
                    continue
                if unchanged_since is not None and message.modseq > unchanged_since:
                    modified.append(uid)
                    continue
                new = _combined(message.flags, flags, mode)
                if new != message.flags:
                    self.messages[uid] = message._replace(flags=new, modseq=modseq)
                    changed.append(uid)
            if changed:
                self.highest_modseq = modseq
        if changed:
            self._notify()
        return FlagsChanged(changed, modified)

    def expunge(self, uids: Sequence[Uid] | None = None) -> Sequence[Uid]:
        with self._lock:
            candidates = self.uids if uids is None else sorted(set(uids))
            return self.remove(
                [uid for uid in candidates if uid in self.messages and DELETED in self.messages[uid].flags]
            )

    def remove(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        with self._lock:
            self._check()
            gone = self._drop(uids)
        if gone:
            self._notify()
        return gone

    def copy(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        with self._lock:
            self._check()
            sources = [uid for uid in uids if uid in self.messages and uid in self._contents]
            copies = [
                NewMessage(self._contents[uid], self.messages[uid].flags, self.messages[uid].internal_date)
                for uid in sources
            ]
        if not copies:
            return ()
        return tuple(zip(sources, target.append(copies), strict=True))

    def move(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        with self._lock:
            pairs = self.copy(uids, target)
            self.remove([source for source, _ in pairs])
        return pairs

    # Within the lock.

    def _check(self) -> None:
        if self.replaced:
            raise MailboxReplaced("mailbox was replaced")
        if self.fail_with is not None:
            raise self.fail_with

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _spelt(self, flags: Iterable[bytes]) -> Flags:
        """The flags, keywords as first spelt; new keywords are remembered."""
        spelt = set()
        for flag in sorted(flags):
            if not flag.startswith(b"\\"):
                same = [known for known in self.keywords if known.lower() == flag.lower()]
                if not same:
                    self.keywords = [*self.keywords, flag]
                flag = same[0] if same else flag
            spelt.add(flag)
        return frozenset(spelt)

    def _add(self, messages: Sequence[NewMessage]) -> list[Uid]:
        used = sum(map(len, self._contents.values()))
        if self._quota is not None and used + sum(len(new.content) for new in messages) > self._quota:
            raise OverQuota("mailbox is full")
        modseq = Modseq(self.highest_modseq + 1)
        added = []
        for new in messages:
            uid = self.uidnext
            date = int(time.time()) if new.internal_date is None else new.internal_date
            self._contents[uid] = new.content
            self._saved[uid] = int(time.time())
            self.messages[uid] = Message(uid, self._spelt(new.flags), modseq, date)
            self.uidnext = Uid(uid + 1)
            added.append(uid)
        if added:
            self.uids = [*self.uids, *added]
            self.highest_modseq = modseq
        return added

    def _drop(self, uids: Sequence[Uid]) -> list[Uid]:
        gone = sorted({uid for uid in uids if uid in self.messages})
        if not gone:
            return gone
        self.highest_modseq = Modseq(self.highest_modseq + 1)
        leaving = set(gone)
        self.uids = [uid for uid in self.uids if uid not in leaving]
        for uid in gone:
            self._contents.pop(uid, None)
            self._gone[uid] = self.messages.pop(uid)
            self._expunged.append((self.highest_modseq, uid))
        while len(self._expunged) > self.expunge_memory:
            self._forgotten = self._expunged.pop(0)[0]
        return gone


def _combined(old: Flags, flags: Flags, mode: StoreMode) -> Flags:
    if mode is StoreMode.ADD:
        return old | flags
    if mode is StoreMode.REMOVE:
        return old - flags
    return flags


class MemoryAccountStore(AccountStore):
    """See `AccountStore`."""

    def __init__(self, quota: int | None = None) -> None:
        self.mailboxes: dict[str, MemoryMailbox] = {}
        self.fail_with: StoreError | None = None
        self.users = 0
        self._special: dict[str, bytes] = {}
        self._subscribed: set[str] = set()
        self._annotations: dict[MemoryMailbox | None, dict[str, bytes]] = {}
        self._keys: dict[str, AccessKey] = {}
        self._maildrop = threading.Lock()
        self._made = 0
        self._quota = quota
        self._add("INBOX")

    @property
    def inbox(self) -> MemoryMailbox:
        """INBOX."""
        return self.mailboxes["INBOX"]

    def folders(self) -> Sequence[Folder]:
        self._check()
        names = set(self.mailboxes)
        for name in self.mailboxes:
            names.update(_parents(name))
        return [self._folder(name, names) for name in sorted(names, key=lambda name: (name != "INBOX", name))]

    def open(self, name: str) -> MemoryMailbox:
        self._check()
        mailbox = self._find(name)
        mailbox.refresh()
        mailbox.users += 1
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        assert isinstance(mailbox, MemoryMailbox) and mailbox.users > 0, "closed more often than opened"
        mailbox.users -= 1

    def create(self, name: str, special_use: bytes = b"") -> None:
        self._check()
        _check_name(name)
        if name in self.mailboxes:
            raise MailboxExists("Mailbox already exists")
        for level in [*_parents(name), name]:
            if level not in self.mailboxes:
                self._add(level)
        if special_use:
            self._special[name] = special_use

    def delete(self, name: str) -> None:
        self._check()
        if name == "INBOX":
            raise BadMailboxName("INBOX cannot be deleted")
        self._find(name).replace()
        del self.mailboxes[name]
        self._special.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        self._check()
        _check_name(new)
        if new in self.mailboxes:
            raise MailboxExists("Mailbox already exists")
        if old == "INBOX":
            self.create(new)
            self.inbox.move(self.inbox.uids, self.mailboxes[new])
            return
        self._find(old)
        if new.startswith(old + "/"):
            raise BadMailboxName("A mailbox cannot be renamed into itself")
        for level in _parents(new):
            if level not in self.mailboxes:
                self._add(level)
        for name in [name for name in self.mailboxes if name == old or name.startswith(old + "/")]:
            mailbox = self.mailboxes.pop(name)
            mailbox.name = new + name[len(old) :]
            self.mailboxes[mailbox.name] = mailbox
            if name in self._special:
                self._special[mailbox.name] = self._special.pop(name)

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        self._check()
        if subscribed:
            self._subscribed.add(name)
        else:
            self._subscribed.discard(name)

    def subscriptions(self) -> Sequence[str]:
        self._check()
        return sorted(self._subscribed)

    def annotations(self, name: str) -> Mapping[str, bytes]:
        self._check()
        return self._annotations.get(self._find(name) if name else None, {})

    def annotate(self, name: str, values: Mapping[str, bytes | None]) -> None:
        self._check()
        known = self._annotations.setdefault(self._find(name) if name else None, {})
        known.update({entry: value for entry, value in values.items() if value is not None})
        for entry in [entry for entry, value in values.items() if value is None]:
            known.pop(entry, None)

    def access_key(self, name: str) -> AccessKey | None:
        self._check()
        return self._keys.get(name)

    def make_access_key(self, name: str, uidvalidity: int, renew: bool = False) -> AccessKey:
        self._check()
        known = self._keys.get(name)
        if known is None or known.uidvalidity != uidvalidity or renew:
            known = self._keys[name] = AccessKey.random(uidvalidity)
        return known

    def remove_access_keys(self) -> None:
        self._check()
        self._keys.clear()

    def status(self, name: str, with_size: bool = False, reader: Reader | None = None) -> MailboxStatus:
        self._check()
        mailbox = self._find(name)
        mailbox.refresh()
        messages = mailbox.messages.values()
        return MailboxStatus(
            messages=len(mailbox.uids),
            recent=sum(uid >= mailbox.peek_recent() for uid in mailbox.uids),
            uidnext=mailbox.uidnext,
            uidvalidity=mailbox.uidvalidity,
            unseen=sum(SEEN not in message.flags for message in messages),
            highest_modseq=mailbox.highest_modseq,
            deleted=sum(DELETED in message.flags for message in messages),
            size=sum(mailbox.sizes(mailbox.uids).values()) if with_size else None,
            mailbox_id=mailbox.mailbox_id,
        )

    def lock_maildrop(self) -> Callable[[], None] | None:
        self._check()
        return self._maildrop.release if self._maildrop.acquire(blocking=False) else None

    @property
    def maildrop_is_locked(self) -> bool:
        """Whether a POP3 session holds the maildrop."""
        return self._maildrop.locked()

    def _check(self) -> None:
        if self.fail_with is not None:
            raise self.fail_with

    def _add(self, name: str) -> None:
        self._made += 1
        self.mailboxes[name] = MemoryMailbox(name, 1_000_000 + self._made, f"M{self._made}", self._quota)

    def _find(self, name: str) -> MemoryMailbox:
        _check_name(name)
        if name not in self.mailboxes:
            raise NoSuchMailbox("Mailbox doesn't exist: " + name)
        return self.mailboxes[name]

    def _folder(self, name: str, names: set[str]) -> Folder:
        return Folder(
            name=name,
            selectable=name in self.mailboxes,
            has_children=any(other.startswith(name + "/") for other in names),
            subscribed=name in self._subscribed,
            special_use=self._special.get(name, b""),
        )


def _parents(name: str) -> list[str]:
    levels = name.split("/")
    return ["/".join(levels[:depth]) for depth in range(1, len(levels))]


def _check_name(name: str) -> None:
    bad = any(level in ("", ".", "..") for level in name.split("/"))
    if bad or any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise BadMailboxName("Invalid mailbox name")


class MemoryRegistry(StoreRegistry):
    """See `StoreRegistry`. `stores` may be filled beforehand, by account name."""

    def __init__(self, **stores: MemoryAccountStore) -> None:
        self.stores = dict(stores)
        self.fail_with: StoreError | None = None

    def open(self, account: Account) -> MemoryAccountStore:
        if self.fail_with is not None:
            raise self.fail_with
        store = self.stores.setdefault(account.name, MemoryAccountStore())
        store.users += 1
        return store

    def close(self, store: AccountStore) -> None:
        assert isinstance(store, MemoryAccountStore) and store.users > 0, "closed more often than opened"
        store.users -= 1
