"""Where expunged messages of an account's maildirs lie for a while, so that they can be brought back.

    root/expunged/.Work.2024/1790000000_NAME       root/.expunged where folders are plain directories

The directory is no mailbox to us or to Dovecot, and no quota counts it. A message gets there by a
rename, when it is expunged or its folder is deleted; one that was moved does not. The number is when
that was, in POSIX seconds; NAME is the file's own, with its flags. After the time of grace it is
removed, when the account's store is closed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from mailserver.durable import sync_directory
from mailserver.store.layout import Layout
from mailserver.store.names import INBOX, dotted, from_dotted
from mailserver.store.shared_files import make_directory


@dataclass(frozen=True, slots=True)
class Buried:
    """An expunged message: its folder, where the file lies, and its name in the maildir."""

    folder: str
    path: str
    name: str
    expunged_at: int


class Graveyard:
    """The expunged messages of one account. `grace` in seconds; 0: nothing is kept. Methods block."""

    def __init__(self, layout: Layout, grace: int, clock: Callable[[], float] = time.time) -> None:
        name = ".expunged" if layout.plain else "expunged"
        self._roots: Final = {
            True: os.path.join(layout.inbox or layout.root, name),
            False: os.path.join(layout.root, name),
        }
        self._is_shared = not layout.inbox
        self._clock = clock
        self.grace = grace

    def _directory(self, folder: str) -> str:
        is_inbox = folder == INBOX
        return os.path.join(self._roots[is_inbox], INBOX if is_inbox else dotted(folder))

    def bury(self, folder: str, path: str) -> None:
        """The message's file is here, and not there any more. Raises OSError."""
        directory = self._directory(folder)
        target = f"{directory}/{int(self._clock())}_{os.path.basename(path)}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            os.lstat(path)
            self._make(directory)
            os.rename(path, target)

    def _make(self, directory: str) -> None:
        root = os.path.dirname(directory)
        for each in (root, directory):
            with suppress(FileExistsError):
                make_directory(each, is_shared=self._is_shared)
                sync_directory(os.path.dirname(each))

    def bury_all(self, folder: str, maildir: str) -> None:
        """All messages of the maildir are here, durably: the folder is to be deleted. Raises OSError."""
        for part in ("new", "cur"):
            for name in _listed(os.path.join(maildir, part)):
                with suppress(FileNotFoundError):
                    self.bury(folder, os.path.join(maildir, part, name))
        self.sync(folder)

    def sync(self, folder: str) -> None:
        """What was buried from the folder is durable."""
        with suppress(FileNotFoundError):
            sync_directory(self._directory(folder))

    def buried(self) -> Iterator[Buried]:
        """All expunged messages that are left."""
        for root in dict.fromkeys(self._roots.values()):
            for directory in _listed(root):
                folder = INBOX if directory == INBOX else from_dotted(directory)
                if folder is None:
                    continue
                for name in _listed(os.path.join(root, directory)):
                    seconds, _, original = name.partition("_")
                    if seconds.isdecimal() and original:
                        yield Buried(folder, os.path.join(root, directory, name), original, int(seconds))

    def clean(self) -> None:
        """What is older than the time of grace is gone for good."""
        limit = self._clock() - self.grace
        for each in self.buried():
            if each.expunged_at < limit:
                with suppress(FileNotFoundError):
                    os.unlink(each.path)


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
