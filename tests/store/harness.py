"""File stores under test: an account below a directory of the test, and the other program."""

from __future__ import annotations

import mailbox
import os
import time
from pathlib import Path

from mailserver.accounts.account import Account
from mailserver.maillog import ListLog
from mailserver.store.account import FileAccountStore
from mailserver.store.contract import Uid
from mailserver.store.layout import Layout, layout_for
from mailserver.store.maildir import deposit
from mailserver.store.open_mailboxes import Unwatched, Watcher
from mailserver.store.registry import FileStoreRegistry


class FileHarness:
    """One account over files. `location` is a mail_location."""

    def __init__(
        self,
        root: Path,
        location: str,
        watcher: Watcher | None = None,
    ) -> None:
        self.account = Account("alice", os.getuid(), os.getgid(), str(root / "home"))
        self.location = location
        self.watcher = watcher or Unwatched()
        self.state_directory = root / "state"
        self.log = ListLog()
        self.registry = self._make_registry()
        self.store = self._open()

    @property
    def layout(self) -> Layout:
        return layout_for(self.account, self.location)

    @property
    def inbox_path(self) -> Path:
        return Path(self.layout.inbox)

    @property
    def state_path(self) -> Path:
        return self.state_directory / "alice"

    def _make_registry(self) -> FileStoreRegistry:
        return FileStoreRegistry(
            lambda account: layout_for(account, self.location),
            str(self.state_directory),
            "host.example",
            self.watcher,
            self.log,
        )

    def _open(self) -> FileAccountStore:
        store = self.registry.open(self.account)
        assert isinstance(store, FileAccountStore)
        return store

    def restart(self) -> FileAccountStore:
        """The process ends in good order and another opens the account."""
        self.registry.shut()
        self.registry = self._make_registry()
        self.store = self._open()
        return self.store

    def crash(self) -> FileAccountStore:
        """Another process opens the account; the first never got to tidy up."""
        self.registry = self._make_registry()
        self.store = self._open()
        return self.store


class MaildirHarness(FileHarness):
    """Over maildirs."""

    def __init__(
        self, root: Path, location: str = "maildir:~/Maildir", watcher: Watcher | None = None
    ) -> None:
        super().__init__(root, location, watcher=watcher)

    def deliver(self, content: bytes) -> None:
        deposit(str(self.inbox_path), [content.replace(b"\r\n", b"\n")], "host.example")

    def files(self) -> list[Path]:
        """Every message of INBOX, in the order of names."""
        found = [path for name in ("new", "cur") for path in (self.inbox_path / name).iterdir()]
        return sorted(found, key=lambda path: path.name)

    def file_of(self, uid: Uid) -> Path:
        """Where a message of INBOX lies, found by its content."""
        box = self.store.open("INBOX")
        content = box.read(uid).replace(b"\r\n", b"\n")
        self.store.close(box)
        return next(path for path in self.files() if path.read_bytes() == content)

    def vanish(self, uid: Uid) -> None:
        self.file_of(uid).unlink()


class MboxHarness(FileHarness):
    """Over mboxes; the other program appends and rewrites with the standard library's mailbox module."""

    def __init__(self, root: Path, watcher: Watcher | None = None) -> None:
        (root / "spool").mkdir(exist_ok=True)
        super().__init__(root, f"mbox:~/mail:INBOX={root}/spool/%u", watcher=watcher)

    def deliver(self, content: bytes) -> None:
        with open(self.inbox_path, "ab") as file:
            file.write(b"From other Thu Jan  1 00:00:00 2026\n" + content.replace(b"\r\n", b"\n") + b"\n")

    def vanish(self, uid: Uid) -> None:
        box = self.store.open("INBOX")
        start = box.read(uid)[:14]
        self.store.close(box)
        spool = mailbox.mbox(self.inbox_path)
        spool.lock()
        (key,) = [key for key in spool.iterkeys() if start in spool.get_bytes(key)]
        spool.remove(key)
        spool.flush()
        spool.close()


def let_time_pass(harness: FileHarness) -> None:
    """The mailbox was last changed a while ago, so that a later change cannot hide behind its time."""
    if isinstance(harness, MaildirHarness):
        for name in ("new", "cur"):
            os.utime(harness.inbox_path / name, (time.time() - 100, time.time() - 100))
