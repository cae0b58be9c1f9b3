"""AccountStore over files: the mailboxes of one account, opened once and shared by its sessions.

Folders are what lies on disk (`folders`); state.db holds what must be remembered of them.
A mailbox that no session has open stays in memory for the next one, the least used ones
going first. At the first login Drafts, Sent, Trash, Junk and Archive are made and subscribed, and
Dovecot's subscriptions are taken over.

A crash in RENAME: the intent is durable before the first file moves, and finished at the next
open. A crash in DELETE or CREATE: the folder is there or not; state.db follows at next contact.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from mailserver.store.account_use import AccountUse
from mailserver.store.adopt import read_subscriptions, subscriptions_mark, write_subscriptions
from mailserver.store.cache import Cache
from mailserver.store.contract import (
    AccessKey,
    AccountStore,
    BadMailboxName,
    Folder,
    Mailbox,
    MailboxExists,
    MailboxStatus,
    NoSuchMailbox,
    OverQuota,
    Quota,
    Reader,
    StoreError,
    StoreFailure,
    Uid,
)
from mailserver.store.folders import folders_of, make_directories
from mailserver.store.format import MailboxFormat
from mailserver.store.graveyard import Buried, Graveyard
from mailserver.store.layout import Kind, Layout
from mailserver.store.mailbox import IndexedMailbox
from mailserver.store.maildir import MaildirFormat, make_maildir
from mailserver.store.names import INBOX, checked_name
from mailserver.store.open_mailboxes import OpenMailboxes, Watcher
from mailserver.store.quota import QuotaKeeper, Usage
from mailserver.store.quota_rules import Rules
from mailserver.store.shared_files import group_of
from mailserver.store.state import State
from mailserver.store.state_readers import Said
from mailserver.store.status import is_untouched, remembered_status
from mailserver.store.text_builder import TextBuilder
from mailserver.store.text_index import TextIndex
from mailserver.wire.imap_namespace import PersonalNamespace

SPECIAL_FOLDERS: Final[Mapping[str, bytes]] = {
    "Drafts": b"\\Drafts",
    "Sent": b"\\Sent",
    "Trash": b"\\Trash",
    "Junk": b"\\Junk",
    "Archive": b"\\Archive",
}


class FileAccountStore(AccountStore):
    """See `AccountStore`. `directory` is the account's own below the state directory, and exists.

    `is_alone` says that the caller has the account alone (`store.account_use`).
    """

    def __init__(
        self,
        layout: Layout,
        directory: str,
        hostname: str,
        make_mbox: Callable[[str, str], MailboxFormat],
        watcher: Watcher,
        warn: Callable[[str], None] = lambda text: None,
        make_keeper: Callable[[Usage], QuotaKeeper] | None = None,
        expunge_grace: int = 0,
        is_alone: bool = False,
    ) -> None:
        self._graves = Graveyard(layout, expunge_grace)
        self._group = None if layout.inbox else group_of(layout.root)
        self.keeper = make_keeper(self._usage) if make_keeper else QuotaKeeper(Rules(), self._usage, warn)
        self._is_counted = False
        self._layout = layout
        self.namespace = PersonalNamespace(layout.separator, layout.prefix)
        self._directory = directory
        self._hostname = hostname
        self._make_mbox = make_mbox
        self._warn = warn
        self._lock = threading.RLock()
        self._open = OpenMailboxes(self._lock, self._exists, self._make_mailbox, watcher, warn)
        self._folders = folders_of(layout)
        self._use = None if is_alone else AccountUse(directory)
        try:
            self._state = State(directory, warn)
        except BaseException:
            self._end_use()
            raise
        self._cache = Cache(directory, warn)
        self._texts = TextBuilder(TextIndex(directory, warn), warn)
        try:
            with self._faults():
                self._prepare()
        except BaseException:
            self.shut()
            raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._warn(f"{self._layout.root}: {error}")
            if error.errno == errno.EDQUOT:
                raise OverQuota("Quota exceeded") from error
            raise StoreFailure("The mailboxes cannot be read or written for now") from error

    # First login.

    def _prepare(self) -> None:
        if not self._layout.inbox:
            make_directories(self._layout.root)
        elif self._layout.inbox_kind is Kind.MAILDIR and not os.path.isdir(self._layout.inbox + "/cur"):
            make_directories(os.path.dirname(self._layout.inbox))
            make_maildir(self._layout.inbox)
        for old, new in self._state.renames():
            self._folders.rename(old, new)
            with self._state.transaction():
                self._state.finish_rename(old, new)
        if self._state.is_prepared():
            self._take_over_subscriptions()
            return
        special = SPECIAL_FOLDERS if self._layout.inbox else {}
        there = self._folders.names()
        self._folders.create(*(name for name in special if not there.get(name)))
        subscribed = {INBOX, *special, *read_subscriptions(self._layout)} if self._layout.inbox else set()
        with self._state.transaction():
            for name, special_use in special.items():
                self._state.set_special_use(name, special_use)
            for name in subscribed:
                self._state.set_subscribed(name, True)
            self._state.set_foreign_mark(0, subscriptions_mark(self._layout))
            self._state.set_prepared()

    def _take_over_subscriptions(self) -> None:
        """What Dovecot changed since we left it our subscriptions, or last read its own, is ours."""
        mark, known = subscriptions_mark(self._layout), self._state.foreign_mark(0)
        if not mark or mark == known:
            return
        theirs = set(read_subscriptions(self._layout))
        with self._state.transaction():
            for name in self._state.subscriptions():
                if known and name not in theirs:
                    self._state.set_subscribed(name, False)
            for name in theirs:
                self._state.set_subscribed(name, True)
            self._state.set_foreign_mark(0, mark)

    # Finding mailboxes.

    def folders(self) -> Sequence[Folder]:
        """See `AccountStore.folders`."""
        with self._faults():
            names = self._names()
        subscribed = set(self._state.subscriptions())
        special = self._state.special_uses()
        parents = {name.rpartition("/")[0] for name in names}
        ordered = sorted(names, key=lambda name: (name != INBOX, name))
        return [
            Folder(name, names[name], name in parents, name in subscribed, special.get(name, b""))
            for name in ordered
        ]

    def _names(self) -> Mapping[str, bool]:
        names = self._folders.names()
        return {**names, INBOX: True} if self._layout.inbox else names

    def exists(self, name: str) -> bool:
        """See `AccountStore.exists`."""
        return self._exists(checked_name(name))

    def _exists(self, name: str) -> bool:
        with self._faults():
            return bool(self._layout.inbox) if name == INBOX else self._folders.exists(name)

    def _make_format(self, name: str) -> MailboxFormat:
        kind, path = self._layout.kind, ""
        if name == INBOX:
            kind, path = self._layout.inbox_kind, self._layout.inbox
        else:
            path = self._folders.path(name)
        if kind is Kind.MBOX:
            return self._make_mbox(path, self._directory)
        graves = self._graves
        return MaildirFormat(
            path,
            self._hostname,
            self._control(path),
            bury=partial(graves.bury, name) if graves.grace else None,
            sync_graves=partial(graves.sync, name) if graves.grace else lambda: None,
            group=self._group,
        )

    def _control(self, directory: str) -> str:
        if not self._layout.control:
            return directory
        relative = os.path.relpath(directory, self._layout.root)
        return os.path.normpath(os.path.join(self._layout.control, relative))

    def _make_mailbox(self, name: str) -> IndexedMailbox:
        return IndexedMailbox(
            name,
            self._make_format(name),
            self._state,
            self._cache,
            self._warn,
            self._texts,
            self.keeper if self.keeper.rules else None,
        )

    def open(self, name: str) -> Mailbox:
        """See `AccountStore.open`."""
        return self._open.open(checked_name(name))

    def open_at_once(self, name: str) -> Mailbox | None:
        """See `AccountStore.open_at_once`."""
        return self._open.open_at_once(name)

    @contextmanager
    def borrow(self, name: str) -> Iterator[Mailbox]:
        """See `AccountStore.borrow`: not watched, and settled when it leaves memory."""
        with self._open.borrow(checked_name(name)) as box:
            yield box

    def close(self, mailbox: Mailbox) -> None:
        """See `AccountStore.close`."""
        assert isinstance(mailbox, IndexedMailbox)
        self._open.close(mailbox)

    def close_at_once(self, mailbox: Mailbox) -> bool:
        """See `AccountStore.close_at_once`."""
        assert isinstance(mailbox, IndexedMailbox)
        return self._open.close_at_once(mailbox)

    # Figures.

    def status(self, name: str, with_size: bool = False, reader: Reader | None = None) -> MailboxStatus:
        """See `AccountStore.status`. A mailbox that is as it was when it left memory is not read again."""
        name = checked_name(name)
        status = self._status(name, with_size)
        row = self._state.mailbox(name) if reader is not None else None
        if reader is None or row is None:
            return status
        return replace(status, unseen=self._state.unseen_by(row.id, reader))

    def _status(self, name: str, with_size: bool) -> MailboxStatus:
        with self._lock:
            box = self._open.boxes.get(name)
            remembered = self._remembered(name, with_size) if box is None else None
            if remembered is not None:
                return remembered
            is_new = box is None
            box = self._open.find(name)
        box.refresh()
        status = box.figures(with_size)
        if with_size and status.size is None:
            box.sizes(box.uids)
            status = box.figures(with_size)
        if is_new:
            with self._lock:
                self._open.evict()
        return status

    def status_at_once(self, name: str, with_size: bool = False) -> MailboxStatus | None:
        """See `AccountStore.status_at_once`."""
        return self._open.figures_at_once(name, with_size)

    def stamp_at_once(self, name: str) -> Hashable | None:
        """See `AccountStore.stamp_at_once`."""
        return self._open.stamp_at_once(name)

    def _remembered(self, name: str, with_size: bool) -> MailboxStatus | None:
        """The figures that state.db keeps, where nobody touched the mailbox since."""
        row, figures = self._state.mailbox(name), self._state.figures(name)
        if row is None or figures is None or not self._exists(name) or (with_size and figures.size is None):
            return None
        with self._faults():
            is_known = is_untouched(row, figures, self._make_format(name), self._state)
        return remembered_status(row, figures, self._state) if is_known else None

    # Changing folders.

    def create(self, name: str, special_use: bytes = b"") -> None:
        """See `AccountStore.create`."""
        name = checked_name(name)
        with self._lock, self._faults():
            if self._exists(name):
                raise MailboxExists("The mailbox exists already")
            with self._nesting(name):
                self._folders.create(name)
            if special_use:
                with self._state.transaction():
                    self._state.set_special_use(name, special_use)

    @contextmanager
    def _nesting(self, name: str) -> Iterator[None]:
        """Open parents of the name that get their first child, and so a new path, are told it."""
        parents = self._open.above(name)
        before = {box: self._folders.path(box.name) for box in parents if box.name != INBOX}
        with ExitStack() as stack:
            for box in sorted(before, key=id):
                stack.enter_context(box.lock)
            try:
                yield
            finally:
                for box, path in before.items():
                    if self._folders.path(box.name) != path:
                        self._relocate(box, box.name)

    def _relocate(self, box: IndexedMailbox, name: str) -> None:
        self._open.rename(box, name, lambda: box.renamed(name, self._make_format(name)))

    def delete(self, name: str) -> None:
        """See `AccountStore.delete`."""
        name = checked_name(name)
        if name == INBOX:
            raise BadMailboxName("INBOX cannot be deleted")
        with self._lock, self._faults():
            if not self._exists(name):
                raise NoSuchMailbox("There is no such mailbox")
            box = self._open.take(name)
            with box.lock if box else self._lock:
                if self._graves.grace and self._layout.kind is Kind.MAILDIR:
                    self._graves.bury_all(name, self._folders.path(name))
                self._folders.delete(name)
                with self._state.transaction():
                    self._state.delete_mailbox(name)
                if box:
                    box.replace()

    def rename(self, old: str, new: str) -> None:
        """See `AccountStore.rename`."""
        old, new = checked_name(old), checked_name(new)
        with self._lock, self._faults():
            names = self._folders.names()
            if new == INBOX or new in names:
                raise MailboxExists("The mailbox exists already")
            if old == INBOX:
                with self._nesting(new):
                    self._folders.create(new)
            elif old not in names:
                raise NoSuchMailbox("There is no such mailbox")
            elif new.startswith(old + "/"):
                raise BadMailboxName("A mailbox cannot be moved below itself")
            else:
                with self._nesting(new):
                    self._rename(old, new)
        if old == INBOX:
            self._move_inbox(new)

    def _move_inbox(self, name: str) -> None:
        inbox, target = self.open(INBOX), self.open(name)
        try:
            inbox.move(list(inbox.uids), target)
        finally:
            self.close(inbox)
            self.close(target)

    def _rename(self, old: str, new: str) -> None:
        moving = self._open.below(old)
        with ExitStack() as stack:
            for box in sorted(moving, key=id):
                stack.enter_context(box.lock)
            with self._state.transaction():
                self._state.begin_rename(old, new)
            try:
                self._folders.rename(old, new)
            except OSError:
                self._folders.rename(new, old)
                with self._state.transaction():
                    self._state.cancel_rename(old)
                raise
            with self._state.transaction():
                self._state.finish_rename(old, new)
            for box in moving:
                self._relocate(box, new + box.name[len(old) :])

    # Quota.

    def quota(self) -> Quota | None:
        """See `AccountStore.quota`."""
        return self.keeper.quota()

    def _usage(self, rules: Rules) -> tuple[int, int]:
        """The first time all mailboxes are read; from then on state.db keeps count."""
        if not self._is_counted:
            for folder in self.folders():
                if folder.selectable:
                    self._count(folder.name)
            self._is_counted = True
        if not rules.ignored:
            return self._state.usage()
        counted = [used for name, *used in self._state.usage_by_mailbox() if not rules.ignores(name)]
        return sum(octets for octets, _ in counted), sum(messages for _, messages in counted)

    def _count(self, name: str) -> None:
        try:
            self.status(name, with_size=True)
        except NoSuchMailbox:
            pass  # deleted meanwhile

    # Annotations.

    def annotations(self, name: str) -> Mapping[str, bytes]:
        """See `AccountStore.annotations`."""
        return self._state.annotations(self._annotated(name))

    def annotate(self, name: str, values: Mapping[str, bytes | None]) -> None:
        """See `AccountStore.annotate`."""
        self._annotated(name)  # known to state.db from here on, or refused
        with self._state.transaction():
            row = self._state.mailbox(name) if name else None
            if row is not None or not name:
                self._state.annotate(row.id if row else 0, values)

    def _annotated(self, name: str) -> int:
        """The row that the annotations of that name hang on; 0 for the account."""
        if not name:
            return 0
        with self.borrow(name):
            row = self._state.mailbox(checked_name(name))
        if row is None:
            raise NoSuchMailbox("There is no such mailbox")
        return row.id

    # Mailbox access keys.

    def access_key(self, name: str) -> AccessKey | None:
        """See `AccountStore.access_key`."""
        return self._state.access_key(name)

    def make_access_key(self, name: str, uidvalidity: int, renew: bool = False) -> AccessKey:
        """See `AccountStore.make_access_key`."""
        with self._state.transaction():
            known = self._state.access_key(name)
            if known is not None and known.uidvalidity == uidvalidity and not renew:
                return known
            key = AccessKey.random(uidvalidity)
            self._state.set_access_key(name, key)
        return key

    def remove_access_keys(self) -> None:
        """See `AccountStore.remove_access_keys`."""
        with self._state.transaction():
            self._state.remove_access_keys()

    # Subscriptions, maildrop, end.

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        """See `AccountStore.set_subscribed`."""
        name = checked_name(name)
        with self._state.transaction():
            self._state.set_subscribed(name, subscribed)

    def subscriptions(self) -> Sequence[str]:
        """See `AccountStore.subscriptions`."""
        return self._state.subscriptions()

    def leave_subscriptions(self) -> None:
        """Dovecot's own file has our subscriptions. *Blocking.*"""
        with self._lock, self._faults():
            names = self._state.subscriptions()
            if set(read_subscriptions(self._layout)) != set(names):
                write_subscriptions(self._layout, names)
            with self._state.transaction():
                self._state.set_foreign_mark(0, subscriptions_mark(self._layout))

    def _export_subscriptions(self) -> None:
        """Where Dovecot has been, and did not change it since, it will find our subscriptions."""
        try:
            known = self._state.foreign_mark(0)
            if known and known == subscriptions_mark(self._layout):
                self.leave_subscriptions()
        except (StoreError, OSError) as error:
            self._warn(f"subscriptions are not left for Dovecot: {error}")

    # Care.

    def buried(self) -> Sequence[Buried]:
        """Expunged messages that can be brought back, while `expunge_grace` lasts."""
        with self._faults():
            return list(self._graves.buried())

    def check_databases(self) -> Sequence[str]:
        """What is wrong with the data bases. A damaged cache is an empty one now."""
        return [
            *(f"state.db: {text}" for text in self._state.damage()),
            *(f"cache.db: {text}: dropped" for text in self._cache.check()),
            *(f"text.db: {text}: dropped" for text in self._texts.index.check()),
        ]

    def maildirs(self) -> Sequence[str]:
        """The directories of the mailboxes that are maildirs. *Blocking.*"""
        with self._faults():
            kinds = {INBOX: self._layout.inbox_kind}
            names = [folder.name for folder in self.folders() if folder.selectable]
            chosen = [name for name in names if kinds.get(name, self._layout.kind) is Kind.MAILDIR]
            return [self._layout.inbox if name == INBOX else self._folders.path(name) for name in chosen]

    def places_of(self, key: str) -> Sequence[tuple[str, Uid]]:
        """Mailbox and UID of each message that the format knows by that key. *Blocking*, and slow."""
        return self._state.places_of(key)

    def said(self) -> Mapping[str, Said]:
        """What readers have seen for themselves, or not, in each mailbox."""
        return self._state.said()

    def snapshot(self) -> bytes:
        """state.db as it is at this moment."""
        return self._state.snapshot()

    # POP3.

    def lock_maildrop(self) -> Callable[[], None] | None:
        """See `AccountStore.lock_maildrop`. flock(2) excludes within the process, too."""
        path = os.path.join(self._directory, "maildrop.lock")
        with self._faults():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
        return _Release(descriptor)

    @property
    def is_damaged(self) -> bool:
        """Whether state.db was moved aside: this store is of no use any more, a new one is."""
        return self._state.is_damaged

    def shut(self) -> None:
        """Nothing is open any more; what was put off is done. The last session is gone."""
        self._texts.stop()
        with self._lock:
            self._open.shut()
            self._export_subscriptions()
            self._clean_graves()
            self._texts.index.close()
            self._cache.close()
            self._state.close()
            self._end_use()

    def _end_use(self) -> None:
        if self._use is not None:
            self._use.close()

    def _clean_graves(self) -> None:
        try:
            self._graves.clean()
        except OSError as error:
            self._warn(f"expunged messages are not cleaned: {error}")


class _Release:
    """Gives the maildrop lock back, once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
