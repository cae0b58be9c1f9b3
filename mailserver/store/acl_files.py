"""Where ACLs lie: `dovecot-acl` beside each mailbox, as Dovecot's vfile backend reads and writes them.

    maildir     DIRECTORY/dovecot-acl; that of INBOX in a Maildir++ is the root's
    mbox        .imap/NAME/dovecot-acl in the directory that the mailbox NAME lies in
    default     that of a public namespace: dovecot-acl in its root; with mbox in the root's .imap

A file is written under its dotlock `dovecot-acl.lock` and renamed into place; it then has group and
mode of its directory, as far as we may. `dovecot-acl-list`, which Dovecot makes of all of them for its
own LIST, is removed after a change: Dovecot makes a new one. What was read is remembered with
the file's stamp: asking again costs one stat(2). A file that cannot be read or understood gives
the owner his rights, and nobody else any.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from mailserver.accounts.account import Account
from mailserver.durable import sync_directory
from mailserver.store.acl import Acl, BadAcl, parse_acl, render_acl
from mailserver.store.contract import MailboxBusy, StoreFailure
from mailserver.store.folders import folders_of
from mailserver.store.layout import Kind, Layout
from mailserver.store.locked_file import LockHeld, update_under_lock
from mailserver.store.names import INBOX, plain
from mailserver.store.uidlist import read_small_file

NAME: Final = "dovecot-acl"
_LAYOUT_KEPT: Final = 60.0  # seconds for which a table that says where mail lies is not asked again
UNREADABLE: Final = Acl()  # no other empty one is this one
MOST_REMEMBERED: Final = 10_000  # files
_Stamp = tuple[int, int, int]


class _Site:
    """Where the ACLs of an account lie, for as long as that is taken for true."""

    def __init__(self, account: Account, layout: Layout, until: float) -> None:
        self.account = account
        self.layout = layout
        self.until = until
        self._folders = folders_of(layout)
        self._paths: dict[str, str] = {}

    def path(self, name: str) -> str:
        """Of the mailbox's ACL; "" stands for a namespace's own."""
        path = self._paths.get(name)
        if path is None:
            if len(self._paths) >= MOST_REMEMBERED:
                self._paths.clear()
            path = self._paths[name] = self._found(name)
        return path

    def _found(self, name: str) -> str:
        layout = self.layout
        if not name:
            return os.path.join(layout.root, ".imap" if layout.kind is Kind.MBOX else "", NAME)
        kind = layout.inbox_kind if name == INBOX else layout.kind
        if kind is Kind.MAILDIR:
            return os.path.join(layout.inbox if name == INBOX else self._folders.path(name), NAME)
        *above, level = [INBOX] if name == INBOX else plain(name)
        return os.path.join(layout.root, *above, ".imap", level, NAME)


class AclFiles:
    """The ACLs of every account's mailboxes, shared by the sessions of this process. Methods block.

    `generation` grows with each change that this process makes.
    """

    def __init__(self, layout_for: Callable[[Account], Layout], warn: Callable[[str], None]) -> None:
        self._layout_for = layout_for
        self._sites: dict[str, _Site] = {}
        self.warn = warn
        self._known: dict[str, tuple[_Stamp, Acl]] = {}
        self._lock = threading.Lock()
        self.generation = 0

    def _site(self, account: Account) -> _Site:
        site = self._site_at_hand(account)
        if site is None:
            until = time.monotonic() + _LAYOUT_KEPT
            site = self._sites[account.name] = _Site(account, self._layout_for(account), until)
        return site

    def _site_at_hand(self, account: Account) -> _Site | None:
        site = self._sites.get(account.name)
        if site is None or time.monotonic() > site.until:
            return None
        return site if site.account is account or site.account == account else None

    def names(self, account: Account) -> Mapping[str, bool]:
        """The account's mailboxes, and levels above them (false). Raises StoreFailure."""
        layout = self._site(account).layout
        try:
            names = folders_of(layout).names()
        except OSError as error:
            raise StoreFailure("The mailboxes cannot be read for now") from error
        return {INBOX: True, **names} if layout.inbox else names

    def read(self, account: Account, name: str) -> Acl:
        """The mailbox's ACL, empty where it has none, UNREADABLE where nobody can tell."""
        return self._read(self._path(account, name))

    def all(self, account: Account) -> Mapping[str, Acl]:
        """The ACLs of all mailboxes that have one. Raises StoreFailure."""
        found = {name: self.read(account, name) for name in self.names(account)}
        return {name: acl for name, acl in found.items() if acl}

    def has_none(self, account: Account, name: str) -> bool:
        """Whether the mailbox has no ACL, as one access(2) says; false where that cannot be said at once."""
        site = self._site_at_hand(account)
        return site is not None and not os.access(site.path(name), os.F_OK)

    def default(self, account: Account) -> Acl:
        """The ACL of a namespace of its own: it counts for all mailboxes, under their own ones."""
        return self._read(self._path(account, ""))

    def _read(self, path: str) -> Acl:
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return Acl()
        except OSError as error:
            return self._unreadable(path, error)
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            acl = parse_acl(read_small_file(path).decode("utf-8"))
        except OSError as error:
            return self._unreadable(path, error)
        except (UnicodeError, BadAcl) as error:
            acl = self._unreadable(path, error)  # told once
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[path] = stamp, acl
        return acl

    def _unreadable(self, path: str, error: Exception) -> Acl:
        self.warn(f"{path}: {error}: nobody but the owner has rights")
        return UNREADABLE

    def update(self, account: Account, name: str, change: Callable[[Acl], Acl]) -> Acl:
        """The mailbox's ACL is what `change` made of it, durable. `name` "": the namespace's default.

        Raises BadAcl where the file there cannot be understood, MailboxBusy, StoreFailure.
        """
        path = self._path(account, name)
        made: list[Acl] = []

        def content(before: bytes) -> bytes:
            made.append(change(parse_acl(before.decode("utf-8"))))
            return render_acl(made[-1]).encode("utf-8")

        try:
            with self._lock:
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                update_under_lock(path, content)
                self._known.pop(path, None)
                self.generation += 1
            self._drop_list(self._site(account).layout)
        except LockHeld as error:
            raise MailboxBusy("Another program is changing the rights") from error
        except OSError as error:
            self.warn(f"{path}: {error}")
            raise StoreFailure("The rights cannot be written for now") from error
        except UnicodeError as error:
            raise BadAcl("not UTF-8") from error
        return made[-1]

    def inherit(self, account: Account, name: str, acl: Acl) -> None:
        """A new mailbox has that ACL. RFC 4314 §4."""
        if acl:
            self.update(account, name, lambda before: acl)

    def remove(self, account: Account, name: str) -> None:
        """The mailbox, which is gone or going, has no ACL; one of that name that is made later neither."""
        path = self._path(account, name)
        with self._lock, contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)
            self.generation += 1
            sync_directory(os.path.dirname(path))

    def move(self, account: Account, old: str, new: str) -> None:
        """The ACLs of a mailbox that was renamed are where its new name has them; below it they lie right."""
        source, target = self._path(account, old), self._path(account, new)
        self.generation += 1
        if os.path.lexists(source) and not os.path.lexists(target):
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            os.rename(source, target)
            sync_directory(os.path.dirname(target))

    def _drop_list(self, layout: Layout) -> None:
        root = os.path.join(layout.root, ".imap") if layout.kind is Kind.MBOX else layout.root
        for directory in (layout.control or root, root):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, NAME + "-list"))

    def _path(self, account: Account, name: str) -> str:
        return self._site(account).path(name)
