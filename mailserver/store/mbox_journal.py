"""Rewriting a mailbox in place so that a kill at any instruction loses nothing.

The journal is one line of JSON and the text that the mailbox is to hold from `start` on:

    {"device": D, "inode": I, "start": S, "size": OLD, "length": L, "leftover": "DIGEST"}
    L octets

It is written under another name, synced, renamed, its directory synced; then only is the mailbox
touched: L octets at `start`, cut to `start` + L, synced, journal removed. The new size is never
above the old one. So after a kill the file has either its old size, or the new one, or more
where somebody appended. `leftover`, the digest of the old text between the new end and the
old one, tells whether the cut was done, and with that where the appended part begins. `recover` then does the
whole rewrite again with the appended part behind it, under a new journal.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from mailserver.durable import sync_directory, write_all
from mailserver.store import locking
from mailserver.store.mbox_scan import pread_all

_BLOCK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Intent:
    device: int
    inode: int
    start: int
    size: int
    length: int
    leftover: str


def journal_path(directory: str, mailbox: str) -> str:
    """The path of a mailbox's journal in a directory of its owner's."""
    name = hashlib.sha256(os.fsencode(os.path.abspath(mailbox))).hexdigest()[:32]
    return os.path.join(directory, f"rewrite-{name}")


def replace(held: locking.Held, journal: str, parts: Sequence[tuple[int, int] | bytes], size: int) -> None:
    """The mailbox holds the parts (spans of the old text, or octets), durable, in the same file.

    The descriptor is not open for appending. Raises OSError before anything was changed: EFBIG where
    the mailbox would have to grow.
    """
    old = os.fstat(held.descriptor)
    if size > old.st_size:
        raise OSError(errno.EFBIG, "a mailbox that is rewritten in place cannot grow")
    first = parts[0]
    start = first[1] if isinstance(first, tuple) and first[0] == 0 else 0
    leftover = _digest(held.descriptor, size, old.st_size)
    intent = _Intent(old.st_dev, old.st_ino, start, old.st_size, size - start, leftover)
    _write(held, journal, intent, parts if not start else parts[1:])
    _carry_out(held, journal, intent)


def _write(
    held: locking.Held, journal: str, intent: _Intent, parts: Sequence[tuple[int, int] | bytes]
) -> None:
    draft = journal + ".draft"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, json.dumps(asdict(intent)).encode("ascii") + b"\n")
        for part in parts:
            if isinstance(part, bytes):
                write_all(descriptor, part)
            else:
                copy(held, held.descriptor, part[0], descriptor, part[1])
        os.fsync(descriptor)
        os.rename(draft, journal)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    finally:
        os.close(descriptor)
    sync_directory(os.path.dirname(journal))


def _carry_out(held: locking.Held, journal: str, intent: _Intent) -> None:
    """From here on the mailbox may be torn, and the journal repairs it."""
    source = os.open(journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    target = held.descriptor
    try:
        os.lseek(target, intent.start, os.SEEK_SET)
        copy(held, source, os.fstat(source).st_size - intent.length, target, intent.length)
        os.ftruncate(target, intent.start + intent.length)
        os.fsync(target)
    finally:
        os.close(source)
    os.unlink(journal)
    sync_directory(os.path.dirname(journal))


def recover(held: locking.Held, journal: str) -> bool:
    """A rewrite that a kill interrupted is completed; true where there was one. The lock is held."""
    try:
        source = os.open(journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        line, _, _ = os.pread(source, 4096, 0).partition(b"\n")
        intent = _Intent(**json.loads(line))
        content = pread_all(source, intent.length, len(line) + 1)
    finally:
        os.close(source)
    mailbox = os.fstat(held.descriptor)
    if (mailbox.st_dev, mailbox.st_ino) != (intent.device, intent.inode):
        os.unlink(journal)  # another file took the mailbox's place: ours to finish is gone
        return False
    _repeat(held, journal, intent, content, mailbox.st_size)
    return True


def _repeat(held: locking.Held, journal: str, intent: _Intent, content: bytes, size: int) -> None:
    end = intent.start + intent.length
    was_cut = size < intent.size or _digest(held.descriptor, end, intent.size) != intent.leftover
    appended_at = end if was_cut else intent.size
    appended = pread_all(held.descriptor, max(0, size - appended_at), appended_at)
    again = _Intent(
        intent.device,
        intent.inode,
        intent.start,
        max(size, end + len(appended)),
        intent.length + len(appended),
        _digest(held.descriptor, end + len(appended), size),
    )
    _write(held, journal, again, [content, appended])
    _carry_out(held, journal, again)


def _digest(descriptor: int, begin: int, end: int) -> str:
    digest = hashlib.sha256()
    while begin < end:
        block = os.pread(descriptor, min(_BLOCK, end - begin), begin)
        if not block:
            break
        digest.update(block)
        begin += len(block)
    return digest.hexdigest()


def copy(held: locking.Held, source: int, offset: int, target: int, length: int) -> None:
    """That part of the source is written where the target stands; the lock is kept fresh. Raises OSError."""
    end = offset + length
    while offset < end:
        held.refresh()
        copied = os.sendfile(target, source, offset, min(_BLOCK, end - offset))
        if not copied:
            raise OSError(errno.EIO, "a file became shorter while it was locked")
        offset += copied
