"""Locks on a mailbox file that every mail program on the box can see.

Two locks, because programs differ: the dotlock `PATH.lock`, and fcntl on the whole file. Both
are taken without waiting and everything is let go between tries, so that no order of
another program's can lock us out for ever; a try is repeated after a few to some tens of
milliseconds, the sooner the longer one has waited, until `LockRules.patience` is over
(`MailboxBusy`).

- fcntl means `F_OFD_SETLK`: a lock of the open file, not of the process. A POSIX lock would not
  exclude two sessions of this process, and would be lost at any close of the file.
- The dotlock is `store.dotlock`'s. One that its process left behind is broken, under the fcntl
  lock; a live one never.
- Where the directory does not let us make files (a spool of mode 0755, or group mail not
  ours) fcntl alone must do, as it does in Postfix; a dotlock of others is still heeded.
- In front stands one queue per mailbox and process (`store.turns`), keyed by directory and name, since a
  rewrite changes the file's inode. It also leaves gaps for programs that look once a second.

After both locks are held the file must still be the one of that name; a mailbox replaced
meanwhile is opened anew. A crash leaves at most a dotlock of a dead process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import signal
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from mailserver.store import dotlock
from mailserver.store.contract import MailboxBusy
from mailserver.store.dotlock import DotLock, Note
from mailserver.store.turns import Turns

T = TypeVar("T")
Identity = tuple[int, int]  # device and inode

_LONGEST_PAUSE: Final = 0.03  # seconds
_SHORTEST_PAUSE: Final = 0.003
_PAUSES_OF_A_DELIVERY: Final = (0.002, 0.003, 0.005, 0.01)  # the usual lock is held for one fsync
_TOUCH_EVERY: Final = 30.0
_MAY_NOT: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, slots=True)
class LockRules:
    """How long to try, in seconds, and when a dotlock of an unknown process counts as left behind."""

    patience: float = 20.0
    stale_after: float = 300.0


USUAL_RULES: Final = LockRules()


_TURNS: Final = Turns()  # one per process by nature: it stands for the process before the file


class Held:
    """An exclusive lock, and the open file it was taken on.

    `unfinished` is the length the mailbox had before somebody who was killed began to append to it.
    """

    def __init__(self, path: str, descriptor: int, lock: DotLock | None, unfinished: int | None) -> None:
        self.descriptor = descriptor
        self.unfinished = unfinished
        self._path = path
        self._lock = lock
        self._touched = time.monotonic()

    def refresh(self) -> None:
        """The dotlock looks alive; called between the blocks of long work, nearly free.

        Raises MailboxBusy where somebody broke the lock (we were stopped for too long): stop writing.
        """
        now = time.monotonic()
        if self._lock is None or now - self._touched < _TOUCH_EVERY:
            return
        if not self._lock.is_held():
            raise MailboxBusy(f"{self._path}.lock was broken by another program")
        self._lock.touch()
        self._touched = now

    def assure(self, size: int) -> None:
        """The lock is ours still, and the file as long as we know it: what comes next harms nobody's mail.

        Raises MailboxBusy where we were stopped so long that others took the lock, or appended.
        """
        if not self.is_ours() or os.fstat(self.descriptor).st_size != size:
            raise MailboxBusy(f"{self._path} was changed by another program while we held its lock")

    def is_ours(self) -> bool:
        """Nobody broke the lock."""
        return self._lock is None or self._lock.is_held()

    def regain(self) -> bool:
        """Whether the lock is ours, now if it was not."""
        if self._lock is not None and not self._lock.is_held():
            try:
                taken = dotlock.place(self._path + ".lock")
            except OSError:
                return False
            self._lock.release()  # its name went long ago: only our descriptor of it is closed
            self._lock = taken
        return True

    def note_append(self) -> None:
        """Should we be killed from now on, the next one finds in `unfinished` what to undo."""
        if self._lock is not None:
            self._lock.note(self.descriptor)

    def release(self) -> None:
        """Both locks are gone, unless the dotlock is somebody else's by now."""
        if self._lock is not None:
            self._lock.release()
        os.close(self.descriptor)


def _applicable(note: Note | None, mailbox: os.stat_result) -> int | None:
    if note is None or (note.device, note.inode) != (mailbox.st_dev, mailbox.st_ino):
        return None
    return note.size


def _identity_of(path: str) -> Identity | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _key(path: str) -> tuple[int, int, str]:
    directory, name = os.path.split(path)
    found = os.stat(directory)
    return found.st_dev, found.st_ino, name


def lock_descriptor(descriptor: int, exclusive: bool) -> bool:
    """Whether the whole file is now locked for this open file. Does not wait. fcntl(2), F_OFD_SETLK."""
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    whole = struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, whole)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_open_for_writing(descriptor: int) -> bool:
    """Whether anybody has this file, which is open here for reading, open for writing.

    A lease is had only where nobody has; it is given back at once. Somebody who opens the file meanwhile
    waits for that. True also where there are no leases, as on NFS. fcntl(2), F_SETLEASE
    """
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # ignored by default, as SIGIO is not
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return True
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


@contextlib.contextmanager
def exclusive(path: str, open_file: Callable[[], int], rules: LockRules = USUAL_RULES) -> Iterator[Held]:
    """Within, nobody else reads or writes the mailbox by the rules. *Blocking.*

    `open_file` opens it for writing and is called again for each try.
    Raises MailboxBusy, and what that raises.
    """
    path = os.path.abspath(path)
    with _turn(path, rules) as deadline:
        held = _until(deadline, path, lambda: _try_exclusive(path, open_file(), rules))
        try:
            yield held
        finally:
            held.release()


@contextlib.contextmanager
def shared(path: str, open_file: Callable[[], int], rules: LockRules = USUAL_RULES) -> Iterator[int]:
    """Within, nobody writes the mailbox by the rules; the descriptor. *Blocking.*

    An fcntl read lock; a dotlock is not taken, but heeded: some programs take no other to append.
    """
    path = os.path.abspath(path)
    with _turn(path, rules) as deadline:
        descriptor = _until(deadline, path, lambda: _try_shared(path, open_file(), rules))
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _turn(path: str, rules: LockRules) -> Iterator[float]:
    key = _key(path)
    deadline = time.monotonic() + rules.patience
    if not _TURNS.take(key, rules.patience):
        raise MailboxBusy(f"{path} is in use")
    try:
        gap = _TURNS.gap(key)
        if gap > rules.patience:
            raise MailboxBusy(f"{path} is left to other programs for a moment")
        time.sleep(gap)
        yield deadline
    finally:
        _TURNS.give(key)


def _until(deadline: float, path: str, attempt: Callable[[], T | None]) -> T:
    """The first answer of `attempt` that is not None."""
    for pause in _pauses():
        try:
            answer = attempt()
        except BlockingIOError:  # at that very moment somebody asked `is_open_for_writing`
            answer = None
        if answer is not None:
            return answer
        if time.monotonic() + pause > deadline:
            break
        time.sleep(random.uniform(pause / 2, pause))
    raise MailboxBusy(f"unable to lock {path} for exclusive access")


def _pauses() -> Iterator[float]:
    """Seconds between tries: short while it may be a delivery, then long, and shorter with each try."""
    yield from _PAUSES_OF_A_DELIVERY
    pause = _LONGEST_PAUSE
    while True:
        yield pause
        pause = max(_SHORTEST_PAUSE, pause * 0.9)


def _try_exclusive(path: str, descriptor: int, rules: LockRules) -> Held | None:
    """Both locks on the file that has that name, or None and nothing held."""
    held: Held | None = None
    try:
        if lock_descriptor(descriptor, exclusive=True):
            opened = os.fstat(descriptor)
            held = _with_dotlock(path, descriptor, opened, rules)
            if held is not None and not _is_named(opened, path):
                held.release()
                return None
        return held
    finally:
        if held is None:
            os.close(descriptor)


def _with_dotlock(path: str, descriptor: int, opened: os.stat_result, rules: LockRules) -> Held | None:
    lock = path + ".lock"
    is_free, left = dotlock.make_way(lock, opened, rules.stale_after)
    if not is_free:
        return None
    unfinished = _applicable(left, opened)
    try:
        return Held(path, descriptor, dotlock.place(lock), unfinished)
    except FileExistsError:
        return None
    except OSError as error:
        if error.errno in _MAY_NOT:
            return Held(path, descriptor, None, unfinished)
        raise


def _try_shared(path: str, descriptor: int, rules: LockRules) -> int | None:
    answer: int | None = None
    try:
        if lock_descriptor(descriptor, exclusive=False):
            opened = os.fstat(descriptor)
            if not dotlock.is_held_by_another(path + ".lock", opened, rules.stale_after) and _is_named(
                opened, path
            ):
                answer = descriptor
        return answer
    finally:
        if answer is None:
            os.close(descriptor)


def _is_named(opened: os.stat_result, path: str) -> bool:
    return _identity_of(path) == (opened.st_dev, opened.st_ino)
