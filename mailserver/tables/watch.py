"""A file that may change under us: read once, and again when stat(2) says that it changed.

An editor may be in the middle of writing: a file that changed within the last second is
taken up only when it has been quiet for one, and the copy in memory serves until then. So a
lookup never sees half a file, unless the first read of all meets one.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from mailserver.tables.table import TableError

T = TypeVar("T")

SETTLED: Final = 1.0  # seconds without a change
LARGEST_SOURCE: Final = 256 * 1024 * 1024  # octets

Signature = tuple[int, int, int, int]


def signature(status: os.stat_result) -> Signature:
    """What differs when a file was written or replaced."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def stat_or_fail(path: str) -> os.stat_result:
    """The status of a regular file; TableError where it cannot be had, or the file is another kind."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise cannot_open(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise TableError(f"{path}: not a regular file")  # a FIFO would wait for ever
    return status


def cannot_open(path: str, error: OSError) -> TableError:
    """The error of a file that is absent or unreadable, in Postfix's words."""
    return TableError(f"open {path}: {error.strerror or error}")


def read_text(path: str) -> str:
    """The file's text, octets that are no UTF-8 kept as surrogates. Raises TableError."""
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_SOURCE + 1)
    except OSError as error:
        raise cannot_open(path, error) from error
    if len(content) > LARGEST_SOURCE:
        raise TableError(f"{path}: larger than {LARGEST_SOURCE} octets: make an index of it with postmap")
    return content.decode("utf-8", "surrogateescape")


class WatchedFile(Generic[T]):
    """The parsed content of a file, parsed again after a change. Safe to ask from any thread."""

    def __init__(self, path: str, parse: Callable[[str], T], now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._parse = parse
        self._now = now
        self._lock = threading.Lock()
        self._loaded: tuple[Signature, T] | None = None

    def current(self) -> T:
        """The content as of the last change that has settled. Raises TableError."""
        status = stat_or_fail(self.path)
        loaded = self._loaded
        if loaded is not None and (
            loaded[0] == signature(status) or self._is_being_written(status, loaded[0])
        ):
            return loaded[1]
        with self._lock:
            content = self._parse(read_text(self.path))
            self._loaded = signature(status), content
        return content

    def version(self) -> object:
        """Which content `current` gives now. Raises TableError."""
        self.current()
        assert self._loaded is not None
        return self._loaded[0]

    def _is_being_written(self, status: os.stat_result, known: Signature) -> bool:
        """Whether the same file grew or shrank just now; a file renamed into place is whole."""
        same_file = known[:2] == (status.st_dev, status.st_ino)
        return same_file and 0 <= self._now() - status.st_mtime < SETTLED
