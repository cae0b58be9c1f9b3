"""A text file kept parsed in memory and read again when it changed.

A change is a different inode, size or modification time. A file that cannot be read is
never an empty one: the caller gets OSError.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Identity = tuple[int, int, int, int]


def _identity(status: os.stat_result) -> Identity:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class FileSnapshot(Generic[T]):
    """The parsed content of one file. Safe to use from any thread."""

    def __init__(self, path: str, parse: Callable[[str], T]) -> None:
        self.path = path
        self._parse = parse
        self._lock = threading.Lock()
        self._seen: tuple[Identity, T] | None = None

    def get(self) -> T:
        """What the file says now. One stat where it did not change. Raises OSError."""
        with self._lock:
            identity = _identity(os.stat(self.path))
            if self._seen is None or self._seen[0] != identity:
                self._seen = self._read()
            return self._seen[1]

    def _read(self) -> tuple[Identity, T]:
        with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
            identity = _identity(os.fstat(file.fileno()))
            return identity, self._parse(file.read())
