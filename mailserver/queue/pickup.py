"""Takes what local users dropped into `maildrop` and puts it into the queue. pickup(8).

New files are seen by inotify(7) at once; the directory is also read at the start and every
minute. A file is taken when it is complete (`queue.drop_file`), and removed after its message is
durable in the queue: a crash in between repeats the message, and loses none.

The content gets our Received: field with the owner's uid, and the fields that it lacks. What
cannot be a message, or may not be submitted by whom the file belongs to, goes to `corrupt`, with a
warning, for an operator to look at. Anybody may write anything here, so nothing in a file is
trusted, and only regular files with one name are opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from zlib import crc32

from twisted.internet.defer import Deferred

from mailserver.envelope import Address, Envelope
from mailserver.maillog import MailLog
from mailserver.message.fields import format_date
from mailserver.queue import drop_file
from mailserver.queue.cleanup import Cleanup, CleanupRules, ContentRefused
from mailserver.queue.directory import QueueDirectory, State
from mailserver.queue.drop_file import Malformed
from mailserver.queue.file import QueueFile
from mailserver.queue.submission import Submission, named
from mailserver.store.inotify import IN_CLOSE_WRITE, IN_MOVED_TO, IN_Q_OVERFLOW, Inotify
from mailserver.threads import Threads

AT_ONCE: Final = 8  # files taken at the same time
SCAN_SECONDS: Final = 60
STALE_SECONDS: Final = 86_400  # an unfinished file of that age was left by a command that was killed
LARGEST_HEADER: Final = 1 << 20  # octets in which -t looks for recipients
_PIECE: Final = 1 << 16
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NEWS: Final = IN_CLOSE_WRITE | IN_MOVED_TO | IN_Q_OVERFLOW


class Refused(Exception):
    """The file is not taken; it goes to `corrupt`. The text says why."""


@dataclass(frozen=True, slots=True)
class PickupRules:
    """Parameters: myhostname, mail_name, myorigin. `may_submit` may block."""

    host: str
    mail_name: str = "Postfix"
    my_origin: str = ""
    cleanup: CleanupRules = field(default_factory=CleanupRules)
    may_submit: Callable[[int], bool] = lambda uid: True


def prepare(path: str, is_shared: bool) -> None:
    """The directory `path` is there, with the mode that many users, or one, need. Raises OSError.

    To be called as the user whom the queue belongs to.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    mode = 0o3733 if is_shared else 0o700
    if stat.S_IMODE(os.stat(path).st_mode) != mode:
        os.chmod(path, mode)


def complete_files(directory: str, now: float | None = None) -> list[str]:
    """What is to be taken, oldest first; files that are unfinished for a day are removed. Raises OSError."""
    now = time.time() if now is None else now
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode) or status.st_mode & stat.S_IXUSR:
                    found.append((status.st_mtime, entry.name))
                elif now - status.st_mtime > STALE_SECONDS:
                    os.unlink(entry.path)
            except FileNotFoundError:
                continue
    return [name for _, name in sorted(found)]


class Pickup:
    """Watches `maildrop`. `accept` gets each message, committed and locked, in the reactor's thread."""

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        queue: QueueDirectory,
        rules: PickupRules,
        accept: Callable[[QueueFile], None],
        log: MailLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._taking = Taking(queue, rules, log, clock)
        self._directory = self._taking.directory
        self._accept = accept
        self._log = log
        self._inotify: Inotify | None = None
        self._timer: Any = None
        self._is_scanning = False
        self._has_news = False
        self._is_stopping = False
        self._waiting: deque[str] = deque()
        self._under_way: set[str] = set()
        self._idle: list[Deferred[None]] = []

    def start(self) -> None:
        """What is there is taken, and what comes will be."""
        try:
            self._inotify = Inotify(self._reactor, self._seen)
            self._inotify.watch(self._directory)
            self._inotify.startReading()
        except OSError as error:
            self._log.write("pickup", f"warning: watch {self._directory}: {error.strerror}")
        self._scan_again()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is being taken any more."""
        self._is_stopping = True
        if self._inotify is not None:
            self._inotify.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._waiting.clear()
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        self._tell_idle()
        return idle

    def _seen(self, path: str, mask: int) -> None:
        if mask & _NEWS:
            self._scan_soon()

    def _scan_again(self) -> None:
        if not self._is_stopping:
            self._timer = self._reactor.callLater(SCAN_SECONDS, self._scan_again)
            self._scan_soon()

    def _scan_soon(self) -> None:
        if self._is_scanning:
            self._has_news = True
        elif not self._is_stopping:
            self._is_scanning = True
            self._threads.run(self._taking.names).addCallbacks(self._found, self._failed)

    def _found(self, names: list[str]) -> None:
        self._is_scanning = False
        known = self._under_way.union(self._waiting)
        if not self._is_stopping:
            self._waiting.extend(name for name in names if name not in known)
        self._begin()
        if self._has_news:
            self._has_news = False
            self._scan_soon()
        self._tell_idle()

    def _failed(self, failure: Any) -> None:
        self._log.write("pickup", f"warning: {self._directory}: {failure.getErrorMessage()}")
        self._found([])

    def _begin(self) -> None:
        while self._waiting and len(self._under_way) < AT_ONCE:
            name = self._waiting.popleft()
            self._under_way.add(name)
            self._threads.run(self._taking.take, name).addCallbacks(
                self._taken, self._log_bug, callbackArgs=(name,)
            ).addBoth(self._ended, name)

    def _taken(self, message: QueueFile | None, name: str) -> None:
        if message is not None:
            self._accept(message)

    def _log_bug(self, failure: Any) -> None:
        for line in failure.getTraceback().splitlines():
            self._log.write("pickup", f"error: {line}")

    def _ended(self, result: object, name: str) -> None:
        self._under_way.discard(name)
        self._begin()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._is_stopping and not self._under_way and not self._is_scanning:
            waiting, self._idle = self._idle, []
            for idle in waiting:
                idle.callback(None)


class Taking:
    """The half of pickup that blocks. Safe in threads, for different names at a time."""

    def __init__(
        self, queue: QueueDirectory, rules: PickupRules, log: MailLog, clock: Callable[[], float] = time.time
    ) -> None:
        self.directory = f"{queue.path}/{State.MAILDROP.value}"
        self._queue = queue
        self._rules = rules
        self._log = log
        self._clock = clock
        self._ignored: set[str] = set()

    def names(self) -> list[str]:
        """The files to take, oldest first; unfinished ones of yesterday are removed. Raises OSError."""
        found = complete_files(self.directory, self._clock())
        return [name for name in found if name not in self._ignored]

    def take(self, name: str) -> QueueFile | None:
        """The file's message, committed and locked, the file itself gone. None where there is none.

        Never raises but for bugs: what fails is logged, and tried again at the next scan.
        """
        path = f"{self.directory}/{name}"
        try:
            return self._take(path)
        except FileNotFoundError:
            return None
        except (Refused, Malformed) as problem:
            self._set_aside(name, path, str(problem))
        except ContentRefused as refusal:
            self._set_aside(name, path, refusal.text)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ELOOP, errno.EPERM, errno.ENXIO):
                self._set_aside(name, path, error.strerror or "")
            else:
                self._log.write("pickup", f"warning: maildrop/{name}: {error.strerror}: will be tried again")
        return None

    def _set_aside(self, name: str, path: str, reason: str) -> None:
        target = f"{self._queue.path}/{State.CORRUPT.value}/maildrop-{os.urandom(8).hex()}"
        try:
            uid = os.lstat(path).st_uid
            os.rename(path, target)
        except OSError as error:
            self._ignored.add(name)
            where = f"and cannot be moved: {error.strerror}: remove it"
        else:
            where = f"and was moved to {target}"
        self._log.write("pickup", f"warning: maildrop/{name}: uid={uid}: {reason}; it is not taken, {where}")

    def _take(self, path: str) -> QueueFile | None:
        descriptor = os.open(path, _OPEN)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise Refused("it is no regular file with one name")
            if not status.st_mode & stat.S_IXUSR:
                return None
            if not self._rules.may_submit(uid := status.st_uid):
                raise Refused(f"User {_user_name(uid)}({uid}) is not allowed to submit mail")
            message = self._commit(descriptor, status)
        finally:
            os.close(descriptor)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError:
            # It would be taken again and again: better not at all.
            self._queue.remove(message)
            raise
        return message

    def _commit(self, descriptor: int, status: os.stat_result) -> QueueFile:
        envelope_octets, content_octets, checksum = drop_file.decode_first_line(_first_line(descriptor))
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        if status.st_size != start + envelope_octets + content_octets:
            raise Malformed("its size is not what its first line says")
        limit = self._rules.cleanup.message_size_limit
        if limit and content_octets > limit:
            raise Refused("message file too big")
        envelope = _read(descriptor, envelope_octets)
        fields = drop_file.decode_envelope(envelope)
        uid, origin = status.st_uid, self._rules.my_origin
        submission = Submission(fields, uid, _user_name(uid), origin)
        arrival = self._clock()
        head = os.pread(descriptor, LARGEST_HEADER, start + envelope_octets)
        message = self._queue.create(submission.envelope(head), arrival)
        if not message.envelope.recipients:
            raise Refused("it names no recipient")
        cleanup = Cleanup(
            self._rules.cleanup,
            self._received(message.queue_id, status.st_uid, arrival),
            self._missing(submission, message.envelope, message.queue_id, arrival),
        )
        try:
            found = crc32(envelope)
            for piece in _pieces(descriptor, content_octets):
                found = crc32(piece, found)
                message.write(cleanup.feed(piece))
                if message.wants_flush:
                    message.flush()
            if found != checksum:
                raise Malformed("its content does not fit its checksum")
            message.write(cleanup.finish())
        except BaseException:
            message.discard()
            raise
        committed = message.commit()
        self._log.write("pickup", f"{message.queue_id}: uid={status.st_uid} from=<{submission.sender_text}>")
        self._log.write("cleanup", f"{message.queue_id}: message-id={cleanup.message_id}")
        return committed

    def _received(self, queue_id: str, uid: int, arrival: float) -> bytes:
        rules = self._rules
        return (
            f"Received: by {rules.host} ({rules.mail_name}, from userid {uid})\n"
            f"\tid {queue_id}; {_date(arrival)}\n"
        ).encode()

    def _missing(
        self, submission: Submission, envelope: Envelope, queue_id: str, arrival: float
    ) -> dict[str, str]:
        host = self._rules.host
        sender = envelope.sender or Address("MAILER-DAEMON", host)
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(arrival))
        return {
            "Message-Id": f"<{stamp}.{queue_id}@{host}>",
            "Date": _date(arrival),
            "From": named(submission.full_name, sender),
        }


def _first_line(descriptor: int) -> bytes:
    """The first line; the file stands behind it."""
    start = os.pread(descriptor, drop_file.LONGEST_FIRST_LINE, 0)
    line = start[: start.find(b"\n") + 1]
    os.lseek(descriptor, len(line), os.SEEK_SET)
    return line


def _read(descriptor: int, octets: int) -> bytes:
    return b"".join(_pieces(descriptor, octets))


def _pieces(descriptor: int, octets: int) -> Iterator[bytes]:
    """The next octets of the file. Raises Malformed where it is shorter."""
    while octets:
        piece = os.read(descriptor, min(octets, _PIECE))
        if not piece:
            raise Malformed("it is cut off")
        octets -= len(piece)
        yield piece


def _date(posix: float) -> str:
    local = time.localtime(posix)
    return f"{format_date(posix, local.tm_gmtoff // 60)} ({local.tm_zone})"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"
