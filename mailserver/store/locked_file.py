"""Small files that other programs change too: read and replaced under their dotlock `PATH.lock`.

The lock is the new file itself, as Dovecot does it: written, synced, renamed over the old one. A lock
older than two minutes is of a program that died.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

from mailserver.durable import sync_directory, write_all
from mailserver.store.uidlist import read_small_file

PATIENCE: Final = 5.0  # seconds
_STALE: Final = 120.0
_PAUSE: Final = 0.02


class LockHeld(OSError):
    """Another program holds the lock, and did not let go in time."""


def update_under_lock(path: str, change: Callable[[bytes], bytes]) -> None:
    """The file's content is what `change` made of it, durable; group and mode are its directory's.

    *Blocking.* Raises LockHeld, OSError, and what `change` raises; then nothing was changed.
    """
    lock = path + ".lock"
    descriptor = _take(lock)
    try:
        content = change(read_small_file(path))
        _dress_as_directory(descriptor, os.path.dirname(path))
        write_all(descriptor, content)
        os.fsync(descriptor)
        os.rename(lock, path)
        sync_directory(os.path.dirname(path))
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock)
        raise
    finally:
        os.close(descriptor)


def _take(lock: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(lock, flags, 0o600)
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - os.lstat(lock).st_mtime > _STALE:
                    os.unlink(lock)
                    continue
        if time.monotonic() > until:
            raise LockHeld(f"{lock}: held by another program")
        time.sleep(_PAUSE)


def _dress_as_directory(descriptor: int, directory: str) -> None:
    found = os.stat(directory)
    with contextlib.suppress(PermissionError):
        if os.fstat(descriptor).st_gid != found.st_gid:
            os.fchown(descriptor, -1, found.st_gid)
        os.fchmod(descriptor, found.st_mode & 0o660 | 0o600)
