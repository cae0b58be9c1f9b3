"""An account as it was at one moment: what state.db said, and the messages, wherever they are by now.

A message that was moved after the moment is read where it went, an expunged one of a maildir where it
is buried (`store.graveyard`); one that is gone for good (an mbox's, or without `expunge_grace`) is left out.
In an mbox the key that moves along tells where; a maildir's file gets another name, and is known by its
inode, size and time of change.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Final

from mailserver.store.account import FileAccountStore
from mailserver.store.contract import Flags, Mailbox, MailboxReplaced, MessageGone, NoSuchMailbox, Uid
from mailserver.store.maildir_deposit import with_crlf
from mailserver.store.maildir_names import key_of
from mailserver.store.state import decode_flags

_Mark = tuple[int, int, int, int]  # device, inode, octets, time of change
_LOOK_EVERY: Final = 1.0  # seconds
_NOT_WAL: Final = b"\1\1"  # a data base in memory has no WAL


@dataclass(frozen=True, slots=True)
class PastMessage:
    """What state.db knew of a message. `key` is the format's name for it."""

    uid: Uid
    key: str
    flags: Flags
    internal_date: int


@dataclass(frozen=True, slots=True)
class PastMailbox:
    """A mailbox as it was."""

    name: str
    uidvalidity: int
    uidnext: int
    messages: Sequence[PastMessage]


class Moment:
    """Taken at once when it is made; `state` is state.db's content. *Blocking.*"""

    def __init__(self, store: FileAccountStore) -> None:
        self._store = store
        names = {folder.name for folder in store.folders() if folder.selectable}
        for name in names:
            with suppress(NoSuchMailbox):
                store.status(name)  # what others delivered has its UID
        self._marks = {key: mark for key, mark, _ in self._files()}
        self.state = store.snapshot()
        self._marks.update((key, mark) for key, mark, _ in self._files())
        self.mailboxes = [box for box in _mailboxes(self.state) if box.name in names]
        self._paths: dict[_Mark, str] = {}
        self._looked = -_LOOK_EVERY

    def contents(self, box: PastMailbox) -> Iterator[tuple[PastMessage, bytes | None]]:
        """Each message with CRLF line ends; None where it is gone for good. Raises StoreError."""
        with ExitStack() as stack:
            mailbox: Mailbox | None = None
            with suppress(NoSuchMailbox):
                mailbox = stack.enter_context(self._store.borrow(box.name))
            if mailbox is not None and mailbox.uidvalidity != box.uidvalidity:
                mailbox = None
            for message in box.messages:
                content = None
                with suppress(MessageGone, MailboxReplaced):
                    content = mailbox.read(message.uid) if mailbox is not None else None
                yield message, self._elsewhere(message.key) if content is None else content

    def _elsewhere(self, key: str) -> bytes | None:
        for name, uid in self._store.places_of(key):
            with suppress(NoSuchMailbox, MessageGone, MailboxReplaced), self._store.borrow(name) as mailbox:
                return mailbox.read(uid)
        mark = self._marks.get(key)
        if mark is None:
            return None
        if mark not in self._paths and time.monotonic() - self._looked >= _LOOK_EVERY:
            self._paths = {mark: path for _, mark, path in self._files()}
            self._looked = time.monotonic()
        try:
            with open(self._paths[mark], "rb") as file:
                return with_crlf(file.read()) if _mark(os.fstat(file.fileno())) == mark else None
        except (KeyError, FileNotFoundError):
            return None

    def _files(self) -> Iterator[tuple[str, _Mark, str]]:
        """Key, mark and path of each file of a maildir, the buried ones too."""
        for directory in self._store.maildirs():
            for part in ("new", "cur"):
                with suppress(FileNotFoundError), os.scandir(os.path.join(directory, part)) as entries:
                    for entry in entries:
                        with suppress(FileNotFoundError):
                            yield key_of(entry.name), _mark(entry.stat(follow_symlinks=False)), entry.path
        for each in self._store.buried():
            with suppress(FileNotFoundError):
                yield key_of(each.name), _mark(os.lstat(each.path)), each.path


def _mark(found: os.stat_result) -> _Mark:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _mailboxes(state: bytes) -> Iterator[PastMailbox]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(state[:18] + _NOT_WAL + state[20:])
        for identity, name, validity, uidnext in db.execute(
            "SELECT id, name, uidvalidity, uidnext FROM mailbox ORDER BY name"
        ).fetchall():
            rows = db.execute(
                "SELECT uid, key, flags, date FROM message WHERE mailbox=? ORDER BY uid", (identity,)
            )
            messages = [
                PastMessage(uid, key if isinstance(key, str) else key.decode("utf-8", "surrogateescape"),
                            decode_flags(flags), date)
                for uid, key, flags, date in rows
            ]  # fmt: skip
            yield PastMailbox(name, validity, uidnext, messages)
