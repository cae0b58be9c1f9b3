"""Files that are on stable storage: what a power cut leaves. All functions here block."""

from __future__ import annotations

import os
import tempfile


def sync_directory(path: str) -> None:
    """The names in the directory ("" is the current one) are durable. Raises OSError."""
    descriptor = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """All of the data is written, however often that takes. Raises OSError, perhaps with a part written."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace_file(path: str, text: str) -> None:
    """The file holds the text, durably, with the mode and owner it had; readers see the old or the new.

    Raises OSError; the old file is then untouched.
    """
    directory = os.path.dirname(path)
    status = os.stat(path)
    descriptor, draft = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=directory or ".")
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, status.st_mode & 0o7777)
            os.fsync(descriptor)
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    sync_directory(directory)
