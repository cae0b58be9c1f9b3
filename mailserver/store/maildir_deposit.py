"""Putting a message into a maildir: written in tmp, published by one rename.

Write in `tmp`, fsync, rename to `new` (or `cur`), fsync that directory. The rename publishes the
whole message, the last fsync its name: without it a power cut leaves the message in `tmp`,
lost to every reader. A crash before the rename leaves a file in `tmp`, removed after 36 hours.
Names carry time, device and inode, so that none is given twice.

Files are stored with LF line ends, as Postfix and mutt do.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from mailserver.durable import sync_directory, write_all
from mailserver.store.maildir_names import unique_name
from mailserver.store.shared_files import make_directory, share_file
from mailserver.store.side_by_side import SideBySide

SUBDIRECTORIES: Final = ("tmp", "new", "cur")
_NO_HELPERS: Final = SideBySide(0)
counter = itertools.count()  # of this process's names
_LONE_LF: Final = re.compile(rb"(?<!\r)\n")


def with_crlf(content: bytes) -> bytes:
    """The content with CRLF line ends, each LF a line end."""
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
    return content.replace(b"\n", b"\r\n")


def as_stored(content: bytes) -> bytes:
    """The content with LF line ends, or unchanged where that could not be undone."""
    if b"\r\r\n" in content:
        return content
    return content.replace(b"\r\n", b"\n")


def make_maildir(*directories: str, is_shared: bool = False) -> None:
    """Each directory and its tmp, new and cur are there; parents are not made. Durable.

    `is_shared`: a new one belongs to a group, where its parent does.
    """
    changed: set[str] = set()
    for directory in directories:
        for path in (directory, *(os.path.join(directory, name) for name in SUBDIRECTORIES)):
            with contextlib.suppress(FileExistsError):
                make_directory(path, is_shared or path != directory)
                changed.add(os.path.dirname(path) or ".")
    for parent in changed:
        sync_directory(parent)


def deposit(directory: str, pieces: Iterable[bytes], hostname: str, size_limit: int = 0) -> str:
    """A new message is durable in `new`; its path. The pieces have LF line ends and are written as they are.

    Missing tmp, new and cur are made. Whatever goes wrong, nothing of it is left and OSError is
    raised; EFBIG for a message above `size_limit` (0: none).
    """
    return deposit_all(directory, (pieces,), hostname, size_limit)[0]


def deposit_all(
    directory: str,
    messages: Iterable[Iterable[bytes]],
    hostname: str,
    size_limit: int = 0,
    helpers: SideBySide | None = None,
) -> list[str]:
    """As `deposit`, for several messages at once: all of them, or none. `helpers` wait for the disk, too."""
    drafts: list[Draft] = []
    try:
        for pieces in messages:
            drafts.append(draft := Draft(directory, hostname))
            for piece in pieces:
                draft.write(piece)
                if size_limit and draft.size > size_limit:
                    raise OSError(errno.EFBIG, "File too large")
        if len(drafts) > 1:
            for draft in drafts:
                draft.hurry()
        # When the last one is durable, most of the others are too.
        (helpers or _NO_HELPERS).do([draft.finish for draft in reversed(drafts)])
        paths = [draft.publish("new", draft.name()) for draft in drafts]
        sync_directory(os.path.join(directory, "new"))
    except BaseException:
        for draft in drafts:
            draft.discard()
        raise
    return paths


@lru_cache(maxsize=16)
def harmless(name: str) -> str:
    return name.replace("/", "\\057").replace(":", "\\072")


class Draft:
    """A file on its way through tmp."""

    def __init__(self, directory: str, hostname: str) -> None:
        self._directory = directory
        self._hostname = hostname
        self.size = 0
        self._extra = 0  # octets that CRLF line ends add
        self._last = b""
        self._now = time.time_ns()
        self._path = f"{directory.rstrip('/')}/tmp/{self._temporary_name()}"
        self._descriptor = self._open()
        self._unique = unique_name(
            self._now // 10**9, self._now // 1000 % 10**6, os.fstat(self._descriptor), hostname
        )

    def _temporary_name(self) -> str:
        return f"{self._now // 10**9}.P{os.getpid()}Q{next(counter)}.{harmless(self._hostname)}"

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            make_maildir(self._directory)
            descriptor = os.open(self._path, flags, 0o600)
        share_file(descriptor, os.path.dirname(self._path))
        return descriptor

    def write(self, piece: bytes) -> None:
        """The piece is written, wholly."""
        if not piece:
            return
        lone = piece.count(b"\n") if b"\r" not in piece else len(_LONE_LF.findall(piece))
        if self._last == b"\r" and piece[:1] == b"\n":
            lone -= 1
        self._extra += lone
        self._last = piece[-1:]
        self.size += len(piece)
        write_all(self._descriptor, piece)

    def hurry(self) -> None:
        """The content is on its way to the disk, together with others'. posix_fadvise(2)."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def finish(self, internal_date: int | None = None) -> None:
        """The content is durable."""
        if internal_date is not None:
            os.utime(self._descriptor, (internal_date, internal_date))
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def name(self) -> str:
        """The key: unique part and sizes."""
        return f"{self._unique},S={self.size},W={self.size + self._extra}"

    def publish(self, subdirectory: str, name: str) -> str:
        """The file is in the subdirectory, though not yet durably."""
        path = f"{self._directory.rstrip('/')}/{subdirectory}/{name}"
        os.rename(self._path, path)
        self._path = path
        return path

    def discard(self) -> None:
        """Nothing of the file is left."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
