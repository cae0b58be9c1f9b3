"""Adding messages to the end of an mbox file: all of a message, durable, or nothing of it.

    From_ line, message with `From ` lines quoted, one empty line

What the message says in the fields of `store.mbox_fields` is left out: they are the mailbox's.

The file is locked (`store.locking`), written at its end, and synced; on any error it gets its old
length back to the octet, unless a stranger broke our lock and appended. A kill between two writes can
leave the beginning of a message that nobody acknowledged; it ends the file without an empty line, which
whoever appends next supplies, so the next message stands by itself. RELIABILITY 2.3, 8.2.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from mailserver.durable import write_all
from mailserver.store import locking, mbox_open
from mailserver.store.mbox_fields import without_hidden_fields
from mailserver.store.mbox_lines import from_line, quoted
from mailserver.store.mbox_scan import pread_all

_BLOCK: Final = 256 * 1024
_SECOND: Final = 1_000_000_000
_FROM_LINE: Final = re.compile(rb"From \S{0,320}\s{1,3}(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ")


@contextlib.contextmanager
def restored_on_error(held: locking.Held, length: int, end: Callable[[], int]) -> Iterator[None]:
    """Whatever goes wrong within, the file has its old length afterwards.

    Where the lock was broken meanwhile, what others wrote behind ours, which ends at `end()`, stays; and
    where the lock cannot be had again, so does the beginning of ours. RELIABILITY F12.
    """
    try:
        yield
    except BaseException:
        if held.is_ours():
            os.ftruncate(held.descriptor, length)
        elif held.regain():
            _cut_out(held.descriptor, length, end())
        with contextlib.suppress(OSError):  # the first error is the one to report
            os.fsync(held.descriptor)
        raise


def _cut_out(descriptor: int, begin: int, end: int) -> None:
    """What is between the offsets is gone. At a kill what is behind it is there, twice perhaps.

    Left as it is where that is more than what is cut out, and would have to be written over itself.
    """
    behind = pread_all(descriptor, max(os.fstat(descriptor).st_size - end, 0), end)
    if len(behind) > end - begin:
        return
    fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)  # no O_APPEND: it would write at the end
    os.lseek(descriptor, begin, os.SEEK_SET)
    write_all(descriptor, behind)
    os.fsync(descriptor)
    os.ftruncate(descriptor, begin + len(behind))


def _has_a_strangers(left: bytes) -> bool:
    """Whether more than the beginning of one message of ours, which is quoted, is in it.

    What a stranger appends may stand in the midst of our last line.
    """
    return (b"\n" + left).count(b"\nFrom ") > 1 or len(_FROM_LINE.findall(left)) > 1


def separator(descriptor: int, size: int) -> bytes:
    """What must be written first, so that the file's last message ends with an empty line."""
    end = os.pread(descriptor, min(size, 3), max(size - 3, 0))
    if not end or end.endswith((b"\n\n", b"\n\r\n")) or end in (b"\n", b"\r\n"):
        return b""
    return b"\n" if end.endswith(b"\n") else b"\n\n"


def looks_new(descriptor: int) -> bool:
    """Whether shells and mail(1) take the mailbox to hold new mail."""
    found = os.fstat(descriptor)
    return found.st_mtime_ns > found.st_atime_ns


def show_as_read(descriptor: int) -> None:
    """mtime is not above atime: there is no new mail."""
    modified = os.fstat(descriptor).st_mtime_ns
    os.utime(descriptor, ns=(max(time.time_ns(), modified), modified))


def show_as_new(descriptor: int) -> None:
    """mtime is above atime, by which shells and mail(1) tell that there is new mail."""
    found = os.fstat(descriptor)
    if found.st_mtime_ns <= found.st_atime_ns:
        os.utime(descriptor, ns=(found.st_mtime_ns - _SECOND, found.st_mtime_ns))


def undo_unfinished(held: locking.Held) -> None:
    """What a killed writer of ours left of one message is gone. Another program's message is not touched."""
    begin = held.unfinished
    if begin is None:
        return
    size = os.fstat(held.descriptor).st_size
    if size <= begin:
        return
    if not _has_a_strangers(pread_all(held.descriptor, size - begin, begin)):
        os.ftruncate(held.descriptor, begin)
        os.fsync(held.descriptor)


def deposit(
    path: str,
    sender: str,
    pieces: Iterable[bytes],
    *,
    owner: int | None = None,
    when: float | None = None,
    size_limit: int = 0,
    mboxrd: bool = False,
    rules: locking.LockRules = locking.USUAL_RULES,
) -> None:
    """One message is durable at the end of the mailbox, or the mailbox is as it was. *Blocking.*

    The pieces together are the message with LF line ends, cut anywhere. `sender` "" is the null
    sender; `when` is now unless given. A missing mailbox is made with mode 0600. `owner`, where
    given, must own it. It may not grow above `size_limit` octets (0: no limit; EFBIG).
    Raises MailboxBusy, UnsafeMailbox, OSError, and what iterating raises.
    """
    deposit_all(
        path, ((sender, pieces),), owner=owner, when=when, size_limit=size_limit, mboxrd=mboxrd, rules=rules
    )


def deposit_all(
    path: str,
    messages: Iterable[tuple[str, Iterable[bytes]]],
    *,
    owner: int | None = None,
    when: float | None = None,
    size_limit: int = 0,
    mboxrd: bool = False,
    rules: locking.LockRules = locking.USUAL_RULES,
) -> None:
    """As `deposit`, for several messages, each with its sender, at once: all of them, or none.

    A kill can leave some of them, and the beginning of one, which the next writer undoes.
    """

    def open_it() -> int:
        return mbox_open.open_mailbox(path, os.O_RDWR | os.O_APPEND, owner, create=True)

    with locking.exclusive(path, open_it, rules) as held:
        undo_unfinished(held)
        size = os.fstat(held.descriptor).st_size
        when = time.time() if when is None else when
        with restored_on_error(held, size, lambda: size):
            before = separator(held.descriptor, size)
            for sender, pieces in messages:
                held.note_append()
                for block in _blocks(
                    before + from_line(sender, when), quoted(without_hidden_fields(pieces), mboxrd)
                ):
                    held.refresh()
                    size += len(block)
                    if size_limit and size > size_limit:
                        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                    write_all(held.descriptor, block)
                before = b""
            os.fdatasync(held.descriptor)  # its times need not be durable
        with contextlib.suppress(OSError):  # the messages are there: an error here would deliver them again
            show_as_new(held.descriptor)


def _blocks(first: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces in larger blocks, with the line ends that complete the message."""
    gathered, length, end = [first], len(first), b"\n"
    for piece in pieces:
        gathered.append(piece)
        length += len(piece)
        end = piece[-1:] or end
        if length >= _BLOCK:
            yield b"".join(gathered)
            gathered, length = [], 0
    yield b"".join((*gathered, b"\n" if end == b"\n" else b"\n\n"))
