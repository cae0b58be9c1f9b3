"""The dotlock `PATH.lock`: the lock that every mail program on the box takes before it writes a mailbox.

Ours holds one line `PID:HOST`, which liblockfile and Dovecot read too, and appears under its name with
that text in it (link(2)), so it is never found empty after a kill. A second line `DEVICE INODE SIZE`
notes the mailbox's length before something is appended: whoever breaks the lock of a killed
process learns from it what to undo.

A lock whose process is dead is left behind at once, and so is one from before this host was booted: after a
power cut its text may be lost. One that names no process of this host, when it and the mailbox are both
unchanged for `stale_after` seconds; another host's boot is not ours. A live one never is, unless its
process is younger than the lock: then the number was given again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import threading
import time
from dataclasses import dataclass
from typing import Final

_CLOCK_SLACK: Final = 2.0  # seconds
_NO_UNNAMED_FILES: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_LONGEST: Final = 1 << 16  # octets: one line for each message that was appended under the lock
_TEXT: Final = re.compile(rb"\s*(\d{1,9})(?::([^\s:]+))?[ \t]*(?:\n(?:(\d+) (\d+) (\d+)\n)*|$)")


@dataclass(frozen=True, slots=True)
class Note:
    """The mailbox, by device and inode, and its length before its killed writer began to append."""

    device: int
    inode: int
    size: int


@dataclass(frozen=True, slots=True)
class _Holder:
    """What a dotlock says: a process of this host, or 0, or of another host; a note, where there is one."""

    pid: int = 0
    note: Note | None = None
    is_elsewhere: bool = False


class DotLock:
    """A dotlock of ours, held open: its link count tells whether it was broken.

    Its inode number could not: a file made later may have been given the same one.
    """

    def __init__(self, lock: str, descriptor: int) -> None:
        self._lock = lock
        self._descriptor = descriptor

    def is_held(self) -> bool:
        """Whether nobody broke it."""
        return os.fstat(self._descriptor).st_nlink > 0

    def touch(self) -> None:
        """It looks alive to those who judge by age."""
        os.utime(self._descriptor)

    def note(self, mailbox: int) -> None:
        """Should we be killed from now on, what is appended to the mailbox (a descriptor) can be undone.

        The last note counts.
        """
        found = os.fstat(mailbox)
        os.write(self._descriptor, f"{found.st_dev} {found.st_ino} {found.st_size}\n".encode())

    def release(self) -> None:
        """It is gone, unless the name is somebody else's lock by now."""
        if self.is_held():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._lock)
        os.close(self._descriptor)


def place(lock: str) -> DotLock:
    """The dotlock is there and ours. Raises FileExistsError, and OSError where we may not make it.

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
    return DotLock(lock, descriptor)


def is_held_by_another(lock: str, mailbox: os.stat_result, stale_after: float) -> bool:
    """Whether the dotlock is there, and its holder alive as far as one can tell."""
    try:
        return not _is_stale(_holder(lock), os.lstat(lock), mailbox, stale_after)
    except FileNotFoundError:
        return False


def is_left_behind(lock: str, stale_after: float) -> bool:
    """Whether there is a dotlock of a process that is gone. `lock` is that of an existing mailbox."""
    try:
        return _is_stale(_holder(lock), os.lstat(lock), os.stat(lock.removesuffix(".lock")), stale_after)
    except FileNotFoundError:
        return False


def make_way(lock: str, mailbox: os.stat_result, stale_after: float) -> tuple[bool, Note | None]:
    """Whether there is no dotlock now, one left behind being removed; and the note that one held.

    Called with the mailbox's fcntl lock held, so that no two of us break each other's.
    """
    try:
        found, holder = os.lstat(lock), _holder(lock)
        if not _is_stale(holder, found, mailbox, stale_after):
            return False, None
        again = os.lstat(lock)
        if (again.st_dev, again.st_ino) == (found.st_dev, found.st_ino):
            os.unlink(lock)
        return True, holder.note
    except FileNotFoundError:
        return True, None
    except PermissionError:
        return False, None


def _is_stale(holder: _Holder, found: os.stat_result, mailbox: os.stat_result, stale_after: float) -> bool:
    if not holder.is_elsewhere and found.st_mtime + _CLOCK_SLACK < _boot_time():
        return True
    is_old = time.time() - max(found.st_mtime, mailbox.st_mtime) >= stale_after
    if not holder.pid:
        return is_old
    # A lock with our own number was left by a process before us: our turn keeps our threads apart.
    if holder.pid == os.getpid() or not _is_alive(holder.pid):
        return True
    return is_old and _started_after(holder.pid, found.st_mtime)


def _holder(lock: str) -> _Holder:
    """What the dotlock says. Raises FileNotFoundError."""
    if not stat.S_ISREG(os.lstat(lock).st_mode):
        return _Holder()
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return _Holder()
    try:
        match = _TEXT.match(os.read(descriptor, _LONGEST))
    finally:
        os.close(descriptor)
    if match is None:
        return _Holder()
    if (match[2] or b"").decode("ascii", "replace") not in ("", socket.gethostname()):
        return _Holder(is_elsewhere=True)
    note = Note(int(match[3]), int(match[4]), int(match[5])) if match[3] else None
    return _Holder(int(match[1]), note)


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
    return _boot_time() + ticks / os.sysconf("SC_CLK_TCK") > moment + _CLOCK_SLACK


def _boot_time() -> float:
    """When this host was booted, as its clock has it now."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
