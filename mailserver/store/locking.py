"""Locks on a mailbox file that every mail program on the box can see.

Two locks, because programs differ: the dotlock `PATH.lock`, and fcntl on the whole file. Both
are taken without waiting and everything is let go between tries, so that no order of
another program's can lock us out for ever; a try is repeated after a few to some tens of
milliseconds, the sooner the longer one has waited, until `LockRules.patience` is over
(`MailboxBusy`).

- fcntl means `F_OFD_SETLK`: a lock of the open file, not of the process. A POSIX lock would not
  exclude two sessions of this process, and would be lost at any close of the file.
- The dotlock holds `PID:HOST`, which liblockfile and Dovecot read too, and appears under its
  name with that text in it (link(2)), so it is never found empty after a kill. One whose
  process is dead is broken at once; one that names no process of this host, when it and
  the mailbox are both unchanged for `stale_after`. A live one is never broken. It is broken
  only under the fcntl lock, so that two of us cannot break each other's.
- Where the directory does not let us make files (a spool of mode 0755, or group mail not
  ours) fcntl alone must do, as it does in Postfix; a dotlock of others is still heeded.
- In front stands one queue per mailbox and process: threads get their turn in order, and
  no two of them ever fight over the file. It is keyed by directory and name, since a rewrite
  changes the file's inode.

After both locks are held the file must still be the one of that name; a mailbox replaced
meanwhile is opened anew. A crash leaves at most a dotlock of a dead process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import re
import socket
import stat
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from mailserver.store.contract import MailboxBusy

T = TypeVar("T")
Identity = tuple[int, int]  # device and inode

_LONGEST_PAUSE: Final = 0.03  # seconds
_SHORTEST_PAUSE: Final = 0.003
_TOUCH_EVERY: Final = 30.0
_NO_UNNAMED_FILES: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_MAY_NOT: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_LOCK_TEXT: Final = re.compile(rb"\s*(\d{1,9})(?::([^\s:]+))?\s*")


@dataclass(frozen=True, slots=True)
class LockRules:
    """How long to try, in seconds, and when a dotlock of an unknown process counts as left behind."""

    patience: float = 20.0
    stale_after: float = 300.0


USUAL_RULES: Final = LockRules()


class Turns:
    """Threads of one process, first come, first served, by key."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._lines: dict[tuple[int, int, str], deque[threading.Event]] = {}

    def take(self, key: tuple[int, int, str], patience: float) -> bool:
        """True when it is the caller's turn; false when `patience` seconds were not enough."""
        mine = threading.Event()
        with self._guard:
            line = self._lines.setdefault(key, deque())
            line.append(mine)
            if line[0] is mine:
                return True
        if mine.wait(patience):
            return True
        with self._guard:
            if mine.is_set():
                return True
            line.remove(mine)
            return False

    def give(self, key: tuple[int, int, str]) -> None:
        """The next in line has its turn."""
        with self._guard:
            line = self._lines[key]
            line.popleft()
            if line:
                line[0].set()
            else:
                del self._lines[key]


_TURNS: Final = Turns()  # one per process by nature: it stands for the process before the file


class Held:
    """An exclusive lock, and the open file it was taken on.

    The dotlock is kept open: its link count tells whether it was broken, where an inode number could
    have been given to a new file already.
    """

    def __init__(self, path: str, descriptor: int, dotlock: int | None) -> None:
        self.descriptor = descriptor
        self._lock = path + ".lock"
        self._dotlock = dotlock
        self._touched = time.monotonic()

    def refresh(self) -> None:
        """The dotlock looks alive; called between the blocks of long work, nearly free.

        Raises MailboxBusy where somebody broke the lock (we were stopped for too long): stop writing.
        """
        now = time.monotonic()
        if self._dotlock is None or now - self._touched < _TOUCH_EVERY:
            return
        if not os.fstat(self._dotlock).st_nlink:
            raise MailboxBusy(f"{self._lock} was broken by another program")
        os.utime(self._dotlock)
        self._touched = now

    def release(self) -> None:
        """Both locks are gone, unless the dotlock is somebody else's by now."""
        if self._dotlock is not None:
            if os.fstat(self._dotlock).st_nlink:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._lock)
            os.close(self._dotlock)
        os.close(self.descriptor)


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
        yield deadline
    finally:
        _TURNS.give(key)


def _until(deadline: float, path: str, attempt: Callable[[], T | None]) -> T:
    """The first answer of `attempt` that is not None."""
    pause = _LONGEST_PAUSE
    while True:
        answer = attempt()
        if answer is not None:
            return answer
        if time.monotonic() + pause > deadline:
            raise MailboxBusy(f"unable to lock {path} for exclusive access")
        time.sleep(random.uniform(pause / 2, pause))
        pause = max(_SHORTEST_PAUSE, pause * 0.9)


def _try_exclusive(path: str, descriptor: int, rules: LockRules) -> Held | None:
    """Both locks on the file that has that name, or None and nothing held."""
    held: Held | None = None
    try:
        if lock_descriptor(descriptor, exclusive=True):
            held = _with_dotlock(path, descriptor, rules)
            if held is not None and not _is_named(descriptor, path):
                held.release()
                return None
        return held
    finally:
        if held is None:
            os.close(descriptor)


def _with_dotlock(path: str, descriptor: int, rules: LockRules) -> Held | None:
    lock = path + ".lock"
    if not _make_way(lock, os.fstat(descriptor), rules):
        return None
    try:
        return Held(path, descriptor, _place(lock))
    except FileExistsError:
        return None
    except OSError as error:
        if error.errno in _MAY_NOT:
            return Held(path, descriptor, None)
        raise


def _try_shared(path: str, descriptor: int, rules: LockRules) -> int | None:
    answer: int | None = None
    try:
        if (
            lock_descriptor(descriptor, exclusive=False)
            and not is_dotlocked(path, rules)
            and _is_named(descriptor, path)
        ):
            answer = descriptor
        return answer
    finally:
        if answer is None:
            os.close(descriptor)


def _is_named(descriptor: int, path: str) -> bool:
    mine = os.fstat(descriptor)
    return _identity_of(path) == (mine.st_dev, mine.st_ino)


def _place(lock: str) -> int:
    """The dotlock is there and ours; its descriptor. Raises FileExistsError.

    link(2) is atomic on NFS too, where O_EXCL is not; an unnamed file leaves no litter after a kill.
    """
    draft = f"{lock}.{os.getpid()}.{threading.get_native_id()}"
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        descriptor = os.open(os.path.dirname(lock), flags | os.O_TMPFILE, 0o444)
        source = f"/proc/self/fd/{descriptor}"
    except OSError as error:
        if error.errno not in _NO_UNNAMED_FILES:
            raise
        descriptor = os.open(draft, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
        source = draft
    try:
        os.write(descriptor, f"{os.getpid()}:{socket.gethostname()}\n".encode())
        # A directory descriptor makes Python call linkat(2), which alone follows /proc's link.
        os.link(source, lock, src_dir_fd=descriptor, follow_symlinks=True)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        if source == draft:
            os.unlink(draft)
    return descriptor


def is_dotlocked(path: str, rules: LockRules = USUAL_RULES) -> bool:
    """Whether another program holds the mailbox's dotlock, and is alive as far as one can tell."""
    lock = path + ".lock"
    try:
        return not _is_stale(lock, os.lstat(lock), os.stat(path), rules)
    except FileNotFoundError:
        return False


def _make_way(lock: str, mailbox: os.stat_result, rules: LockRules) -> bool:
    """Whether there is no dotlock; one left behind is removed. Called with the fcntl lock held."""
    try:
        found = os.lstat(lock)
        if not _is_stale(lock, found, mailbox, rules):
            return False
        if _identity_of(lock) == (found.st_dev, found.st_ino):
            os.unlink(lock)
    except FileNotFoundError:
        pass
    except PermissionError:
        return False
    return True


def _is_stale(lock: str, found: os.stat_result, mailbox: os.stat_result, rules: LockRules) -> bool:
    pid, is_local = _holder(lock, found)
    now = time.time()
    is_old = now - max(found.st_mtime, mailbox.st_mtime) >= rules.stale_after
    if not is_local:
        return is_old
    # A lock with our own number was left by a process before us: our turn keeps our threads apart.
    if pid == os.getpid() or not _is_alive(pid):
        return True
    return is_old and _started_after(pid, found.st_mtime)


def _holder(lock: str, found: os.stat_result) -> tuple[int, bool]:
    """The process that the dotlock names, and whether it names one of this host."""
    if not stat.S_ISREG(found.st_mode):
        return 0, False
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return 0, False
    try:
        match = _LOCK_TEXT.fullmatch(os.read(descriptor, 300))
    finally:
        os.close(descriptor)
    if match is None or int(match[1]) == 0:
        return 0, False
    host = (match[2] or b"").decode("ascii", "replace")
    return int(match[1]), host in ("", socket.gethostname())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started_after(pid: int, moment: float) -> bool:
    """Whether the process is younger than the lock: then the number was given again (a reboot, say)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as process:
            ticks = int(process.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return False
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK") > moment + 2
