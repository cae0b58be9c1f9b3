"""The queue on disk: one file per message, in a directory for each state.

    incoming   being received (mode 0600, locked) or accepted (mode 0700): due at once
    deferred   at least one recipient is to be tried again; the file's mtime says when
    hold       an operator, or header_checks, stopped it; nothing happens until it is released
    corrupt    cannot be read; kept for a human
    maildrop   local submissions, not yet looked at

`active` is no directory: whoever works on a message holds the lock on its file, so the usual
message is never renamed at all.

A message is committed by one fsync: its file has had its final name from the start, so that
the fsync of its data commits the name too, as journalling file systems do, and commits that
run in parallel threads share the journal's transaction (RELIABILITY 2.1, 2.6).
A failure at any step removes the file and raises OSError: the client hears 451, never 250.

A delivered message's file is struck out and kept under `spare`, locked, for the next message
of this process, which overwrites it: file systems are slow to free blocks and to make inodes
where many were just deleted (half of the system's time for a message on ext4), and a rename followed
by an fsync of the file is as durable. The old message is cut to the new one's length first.

After a crash the scan keeps every file that is whole, with or without its execute bit,
removes what never became whole, and moves aside what is damaged. A queue that was restored
from an archive, with other inodes, is read as it is.
The queue must be on a local file system.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mailserver.durable import sync_directory
from mailserver.envelope import Envelope
from mailserver.queue.file import COMPLETE, INCOMPLETE, QueueFile, is_locked, load, lock, look
from mailserver.queue.identity import QueueIds, is_queue_id
from mailserver.queue.incoming import IncomingMessage
from mailserver.queue.record import HEADER_SIZE, INCOMPLETE_HEADER, Accepted, Damaged

SPARES: Final = 32  # files kept for reuse, each with its descriptor
LARGEST_SPARE: Final = 1 << 17  # octets of content
_NAMES_IN_WARNING: Final = 3
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_OPEN: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class State(Enum):
    """Where a message stands: the name of its directory."""

    INCOMING = "incoming"
    DEFERRED = "deferred"
    HOLD = "hold"
    CORRUPT = "corrupt"
    MAILDROP = "maildrop"


MESSAGE_STATES: Final = (State.INCOMING, State.DEFERRED, State.HOLD)


class Busy(Exception):
    """Somebody else works on this message."""


@dataclass(slots=True)
class Found:
    """What a scan found. `deferred` holds (next attempt in wall-clock seconds, queue id)."""

    incoming: list[str] = field(default_factory=list)
    deferred: list[tuple[float, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Listed:
    """A message as operators' commands see it. The reader closes `message`, which is not locked."""

    state: State
    is_active: bool
    message: QueueFile


class QueueDirectory:
    """The queue under `path`. `warn` gets texts for the log; `clock` is wall-clock seconds.

    `complete` gives the envelope of mail from outside its last recipients (`queue.copies`).
    `worker` tells the processes that write to the same queue apart. Safe in threads.
    """

    def __init__(
        self,
        path: str,
        *,
        clock: Callable[[], float] = time.time,
        warn: Callable[[str], None] = lambda text: None,
        worker: int = 0,
        long_ids: bool = False,
        minimum_free: int = 0,
        message_size_limit: int = 10_240_000,
        complete: Callable[[Envelope], Envelope] | None = None,
    ) -> None:
        self.path = path
        self._complete = complete
        self._warn = warn
        self._clock = clock
        self._ids = QueueIds(clock, worker, long_ids)
        self._spares: deque[tuple[str, int]] = deque()
        self._reserve = max(minimum_free, message_size_limit * 3 // 2)

    def prepare(self) -> None:
        """The directories of all states are there, for nobody else. Raises OSError."""
        for name in (*(state.value for state in State), "spare"):
            os.makedirs(os.path.join(self.path, name), mode=0o700, exist_ok=True)

    def path_of(self, queue_id: str, state: State) -> str:
        """Where that message's file is while it is in that state."""
        return f"{self.path}/{state.value}/{queue_id}"

    def has_room(self, octets: int = 0) -> bool:
        """Whether a message of that size may be taken. Raises OSError.

        Room stays for queue_minfree and for 1.5 x message_size_limit.
        """
        free = os.statvfs(self.path)
        if free.f_files and not free.f_favail:
            return False
        return free.f_bavail * free.f_frsize > self._reserve + octets

    # ------------------------------------------------------------ messages coming in

    def create(
        self,
        envelope: Envelope,
        arrival: float | None = None,
        origin: str = "",
        adds_copies: bool = True,
    ) -> IncomingMessage:
        """A message with its queue id, still in memory only. Does not block.

        `arrival` is wall-clock seconds, now where not given; for `origin` see `Accepted`. Copies
        (`queue.copies`) are for mail from outside, unless told otherwise.
        """
        accepted = Accepted(envelope, self._clock() if arrival is None else arrival, origin)
        complete = self._complete if adds_copies and not origin else None
        return IncomingMessage(self._ids.next(), accepted, self._create_file, complete)

    def _create_file(self, queue_id: str, is_held: bool) -> tuple[str, int]:
        """Path and descriptor of a locked file, mode 0600; it may hold a struck-out message."""
        path = self.path_of(queue_id, State.HOLD if is_held else State.INCOMING)
        descriptor = self._reuse(path)
        if descriptor >= 0:
            return path, descriptor
        while True:
            descriptor = os.open(path, _CREATE, INCOMPLETE)
            # A scan may find the file before it is locked, and remove it as a left-over.
            if lock(descriptor) and os.fstat(descriptor).st_nlink:
                return path, descriptor
            os.close(descriptor)

    def _reuse(self, path: str) -> int:
        """The descriptor of a spare file that has this path now; -1 where there is none."""
        try:
            spare, descriptor = self._spares.popleft()
        except IndexError:
            return -1
        with contextlib.suppress(OSError):
            if not os.path.lexists(path):
                os.rename(spare, path)
                return descriptor
        _drop(spare, descriptor)
        return -1

    # ------------------------------------------------------------ messages in the queue

    def remove(self, message: QueueFile) -> None:
        """The message is no longer in the queue, and closed. *Blocking.*

        Raises OSError: it is still there and locked. No fsync: after a power cut the file may
        be back, its recipients are then delivered again.
        """
        if len(self._spares) >= SPARES or message.content_length > LARGEST_SPARE:
            message.remove()
            return
        spare = f"{self.path}/spare/{message.queue_id}"
        os.rename(message.path, spare)
        descriptor = message.release()
        try:
            os.pwrite(descriptor, INCOMPLETE_HEADER, 0)
            os.fchmod(descriptor, INCOMPLETE)
        except OSError:
            _drop(spare, descriptor)
        else:
            self._spares.append((spare, descriptor))

    def close(self) -> None:
        """The spare files are gone. Messages stay."""
        while self._spares:
            _drop(*self._spares.popleft())

    def open(self, queue_id: str, states: tuple[State, ...] = MESSAGE_STATES[:2]) -> QueueFile:
        """The message, locked, checked and complete. *Blocking.*

        Raises FileNotFoundError, Busy, OSError; Damaged after the file was moved to corrupt.
        """
        for state in states:
            path = self.path_of(queue_id, state)
            try:
                descriptor = os.open(path, _OPEN)
            except FileNotFoundError:
                continue
            try:
                return self._load(queue_id, path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        raise FileNotFoundError(f"{queue_id}: no such message in the queue")

    def _load(self, queue_id: str, path: str, descriptor: int) -> QueueFile:
        if not lock(descriptor):
            raise Busy(queue_id)
        if not _names(path, descriptor):
            raise FileNotFoundError(f"{queue_id}: moved away meanwhile")
        try:
            return load(queue_id, path, descriptor)
        except Damaged as damage:
            self._set_aside(queue_id, path, str(damage))
            raise

    def set_aside(self, message: QueueFile, reason: str) -> None:
        """The damaged message is in corrupt, with a warning, and closed. Raises OSError."""
        self._set_aside(message.queue_id, message.path, reason)
        message.close()

    def _set_aside(self, queue_id: str, path: str, reason: str) -> None:
        target = self._free_path(queue_id, State.CORRUPT)
        os.rename(path, target)
        self._warn(f"warning: {queue_id}: queue file {path} is damaged: {reason}; it was moved to {target}")

    def _free_path(self, queue_id: str, state: State) -> str:
        path = self.path_of(queue_id, state)
        suffix = 0
        while os.path.lexists(path):
            suffix += 1
            path = f"{self.path_of(queue_id, state)}.{suffix}"
        return path

    def move(self, message: QueueFile, state: State) -> None:
        """The message is in that state, durably. *Blocking.* Raises OSError: it is where it was.

        Where the state has another message of that id already, this one gets a new id.
        """
        target = self.path_of(message.queue_id, state)
        if target == message.path:
            return
        while os.path.lexists(target):
            message.queue_id = self._ids.next()
            target = self.path_of(message.queue_id, state)
        source = os.path.dirname(message.path)
        os.rename(message.path, target)
        message.path = target
        for directory in (os.path.dirname(target), source):
            sync_directory(directory)

    # ------------------------------------------------------------ the scan

    def scan(self) -> Found:
        """All messages that are to be delivered; what a crash left behind is cleaned up. *Blocking.*

        Complete files are not opened: 100,000 take a fraction of a second.
        """
        self._drop_stale_spares()
        found = Found()
        for state in (State.INCOMING, State.DEFERRED):
            for queue_id, next_attempt in self._scan_state(state):
                if state is State.INCOMING:
                    found.incoming.append(queue_id)
                else:
                    found.deferred.append((next_attempt, queue_id))
        return self._with_unique_ids(found)

    def _drop_stale_spares(self) -> None:
        """Spare files of processes that are gone are removed."""
        directory = os.path.join(self.path, "spare")
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                descriptor = os.open(path, _OPEN)
                if lock(descriptor) and _names(path, descriptor):
                    _drop(path, descriptor)
                else:
                    os.close(descriptor)

    def _scan_state(self, state: State) -> Iterator[tuple[str, float]]:
        directory = os.path.join(self.path, state.value)
        owner = os.stat(directory).st_uid
        strange: list[str] = []
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode) or status.st_uid != owner or not is_queue_id(entry.name):
                    strange.append(entry.name)
                elif status.st_mode & stat.S_IXUSR or self._is_whole_after_all(entry.name, entry.path):
                    yield entry.name, status.st_mtime
        self._warn_of_strange(directory, strange)

    def _warn_of_strange(self, directory: str, names: list[str]) -> None:
        if names:
            shown = ", ".join(sorted(names)[:_NAMES_IN_WARNING]) + (
                ", ..." if names[_NAMES_IN_WARNING:] else ""
            )
            self._warn(
                f"warning: {directory}: ignored {len(names)} entries that are no queue files of ours: {shown}"
            )

    def _is_whole_after_all(self, queue_id: str, path: str) -> bool:
        """Whether a file without its execute bit is a message: lost bit, or death after the last write.

        One that never became whole is removed, unless its process still lives.
        """
        try:
            descriptor = os.open(path, _OPEN)
        except OSError as error:
            self._warn(f"warning: {queue_id}: open queue file {path}: {error.strerror}")
            return False
        try:
            if not lock(descriptor) or not _names(path, descriptor):
                return False
            header = os.pread(descriptor, HEADER_SIZE, 0)
            if header == INCOMPLETE_HEADER or not header.strip(b"\0"):
                os.unlink(path)
                return False
            load(queue_id, path, descriptor)
            os.fchmod(descriptor, COMPLETE)
            return True
        except Damaged as damage:
            self._set_aside(queue_id, path, str(damage))
            return False
        finally:
            os.close(descriptor)

    def _with_unique_ids(self, found: Found) -> Found:
        """A deferred message that has the id of an incoming one (a clock went back) gets another."""
        taken = set(found.incoming)
        for position, (next_attempt, queue_id) in enumerate(found.deferred):
            if queue_id in taken:
                fresh = self._ids.next()
                os.rename(self.path_of(queue_id, State.DEFERRED), self.path_of(fresh, State.DEFERRED))
                found.deferred[position] = (next_attempt, fresh)
        return found

    # ------------------------------------------------------------ for operators' commands

    def listing(self, states: tuple[State, ...] = MESSAGE_STATES) -> Iterator[Listed]:
        """Every complete message, oldest id first within a state, read without taking a lock. *Blocking.*

        The reader closes each `Listed.message`. Files that vanish, or whose envelope is damaged, are left
        out; content is not looked at.
        """
        for state in states:
            for queue_id in sorted(filter(is_queue_id, os.listdir(os.path.join(self.path, state.value)))):
                listed = self.look(queue_id, state)
                if listed is not None:
                    yield listed

    def look(self, queue_id: str, state: State) -> Listed | None:
        """That message, not locked, for reading; None where there is none, or none that is complete."""
        path = self.path_of(queue_id, state)
        descriptor = -1
        with contextlib.suppress(OSError, Damaged):
            descriptor = os.open(path, _READ)
            if os.fstat(descriptor).st_mode & stat.S_IXUSR:
                message = look(queue_id, path, descriptor)
                return Listed(state, is_locked(descriptor), message)
        if descriptor >= 0:
            os.close(descriptor)
        return None

    def is_active(self, queue_id: str) -> bool:
        """Whether somebody works on the message now."""
        for state in MESSAGE_STATES:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(self.path_of(queue_id, state), _READ)
                try:
                    return is_locked(descriptor)
                finally:
                    os.close(descriptor)
        return False


def _names(path: str, descriptor: int) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _drop(path: str, descriptor: int) -> None:
    with contextlib.suppress(OSError):  # the next scan tries again
        os.unlink(path)
    os.close(descriptor)
