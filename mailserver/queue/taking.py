"""One file of `maildrop`, from its first octet to a message in the queue. What of pickup(8) blocks.

A file is removed after its message is durable in the queue: a crash in between repeats the message,
and loses none. What header_checks and their like refuse goes back to its sender. What cannot be a
message, or may not be submitted by whom the file belongs to, goes to `corrupt`, with a warning, for an
operator to look at. Anybody may write anything here, so nothing in a file is trusted, its name included,
and only regular files with one name are opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

from mailserver.delivery.content_checks import Findings
from mailserver.envelope import Address, Envelope, Outcome
from mailserver.maillog import MailLog
from mailserver.message.fields import format_date
from mailserver.message.qualify import Completion
from mailserver.milter.connection import run_blocking
from mailserver.milter.rules import Discarded, MilterRules, Refusal
from mailserver.queue import drop_file
from mailserver.queue.cleanup import Cleanup, CleanupRules, ContentRefused
from mailserver.queue.copies import affected
from mailserver.queue.directory import QueueDirectory, State
from mailserver.queue.drop_file import Malformed
from mailserver.queue.file import QueueFile
from mailserver.queue.identity import is_queue_id
from mailserver.queue.incoming import IncomingMessage
from mailserver.queue.milters import apply_changes, ask_about_local, milter_content
from mailserver.queue.progress import outcome_record
from mailserver.queue.submission import Submission, named

STALE_SECONDS: Final = 86_400  # an unfinished file of that age was left by a command that was killed
LARGEST_HEADER: Final = 1 << 20  # octets in which addresses are looked for
_UNCHECKED: Final = CleanupRules(hopcount_limit=0, message_size_limit=0, header_size_limit=0)
_PIECE: Final = 1 << 16
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NOT_OURS: Final = (errno.EACCES, errno.ELOOP, errno.EPERM, errno.ENXIO)


class Refused(Exception):
    """The file is not taken; it goes to `corrupt`. The text says why."""


@dataclass(frozen=True, slots=True)
class PickupRules:
    """Parameters: myhostname, mail_name, content_filter. `may_submit` may block.

    `completion` has what addresses lack.
    """

    host: str
    mail_name: str = "Postfix"
    completion: Completion = field(default_factory=Completion)
    cleanup: CleanupRules = field(default_factory=CleanupRules)
    may_submit: Callable[[int], bool] = lambda uid: True
    content_filter: str = ""
    adds_copies: bool = True
    milters: Sequence[MilterRules] = ()
    macros: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Drop:
    """An open file whose envelope was read. `head` is the first part of its content."""

    descriptor: int
    uid: int
    envelope: bytes
    content_start: int
    content_octets: int
    checksum: int
    head: bytes

    def pieces(self) -> Iterator[bytes]:
        """All of the content. Raises Malformed where it does not fit the checksum."""
        found = crc32(self.envelope)
        for piece in _pieces(self.descriptor, self.content_start, self.content_octets):
            found = crc32(piece, found)
            yield piece
        if found != self.checksum:
            raise Malformed("its content does not fit its checksum")


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


class Taking:
    """Takes files. Safe in threads, for different names at a time."""

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
            self._warn(name, f"{refusal.text}: will be tried again")
        except OSError as error:
            if error.errno in _NOT_OURS:
                self._set_aside(name, path, error.strerror or "")
            else:
                self._warn(name, f"{error.strerror}: will be tried again")
        except Exception:
            self._ignored.add(name)  # until the next start: the same bug every minute helps nobody
            raise
        return None

    def _warn(self, name: str, text: str) -> None:
        shown = name if is_queue_id(name) else "(strange name)"
        self._log.write("pickup", f"warning: maildrop/{shown}: {text}")

    def _set_aside(self, name: str, path: str, reason: str) -> None:
        target = f"{self._queue.path}/{State.CORRUPT.value}/maildrop-{os.urandom(8).hex()}"
        uid = -1
        try:
            uid = os.lstat(path).st_uid
            os.rename(path, target)
        except FileNotFoundError:
            return
        except OSError as error:
            self._ignored.add(name)
            where = f"and cannot be moved: {error.strerror}: remove it"
        else:
            where = f"and was moved to {target}"
        self._warn(name, f"uid={uid}: {reason}; it is not taken, {where}")

    def _take(self, path: str) -> QueueFile | None:
        descriptor = os.open(path, _OPEN)
        try:
            drop = self._examined(descriptor)
            message = self._committed(drop) if drop is not None else None
        finally:
            os.close(descriptor)
        if drop is not None:
            self._remove(path, message)
        return message

    def _remove(self, path: str, message: QueueFile | None) -> None:
        """The file is gone. Where that fails the message is: else it would come again and again."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError:
            if message is not None:
                self._queue.remove(message)
            raise

    def _examined(self, descriptor: int) -> _Drop | None:
        """What is to be taken; None where it is not complete yet. Raises Refused, Malformed, OSError."""
        status = os.fstat(descriptor)
        uid = status.st_uid
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise Refused("it is no regular file with one name")
        if not status.st_mode & stat.S_IXUSR:
            return None
        if not self._rules.may_submit(uid):
            raise Refused(f"User {_user_name(uid)}({uid}) is not allowed to submit mail")
        line = os.pread(descriptor, drop_file.LONGEST_FIRST_LINE, 0)
        line = line[: line.find(b"\n") + 1]
        envelope_octets, content_octets, checksum = drop_file.decode_first_line(line)
        start = len(line) + envelope_octets
        if status.st_size != start + content_octets:
            raise Malformed("its size is not what its first line says")
        limit = self._rules.cleanup.message_size_limit
        if limit and content_octets > limit:
            raise Refused("message file too big")
        envelope = b"".join(_pieces(descriptor, len(line), envelope_octets))
        head = os.pread(descriptor, LARGEST_HEADER, start)
        return _Drop(descriptor, uid, envelope, start, content_octets, checksum, head)

    def _committed(self, drop: _Drop) -> QueueFile | None:
        """The message in the queue, on its way back to its sender where its content is refused for good."""
        try:
            return self._commit(drop)
        except ContentRefused as refusal:
            if refusal.code < 500:
                raise
            return self._commit_refused(drop, refusal)

    def _commit_refused(self, drop: _Drop, refusal: ContentRefused) -> QueueFile:
        """The message as it is, in the queue, its recipients failed. cleanup(8), CLEANUP_FLAG_BOUNCE.

        It is on hold until that is durable: at no crash is it delivered.
        """
        rules = replace(self._rules, cleanup=_UNCHECKED, milters=(), content_filter="", adds_copies=False)
        unchecked = Taking(self._queue, rules, self._log, self._clock)
        message = unchecked._commit(drop, is_held=True)
        assert message is not None  # nothing discards it
        outcome = Outcome.failed(refusal.text, refusal.dsn, relay="none")
        recipients = message.accepted.envelope.recipients
        try:
            message.append([outcome_record(n, outcome) for n in range(len(recipients))], durable=True)
            self._queue.move(message, State.INCOMING)
        except BaseException:
            with contextlib.suppress(OSError):
                self._queue.remove(message)  # the file is still there, and comes again
            raise
        for recipient in recipients:
            line = f"{message.queue_id}: to=<{recipient.address}>, relay=none, delay=0, delays=0/0/0/0"
            self._log.write("cleanup", f"{line}, dsn={refusal.dsn}, status=bounced ({refusal.text})")
        return message

    def _commit(self, drop: _Drop, is_held: bool = False) -> QueueFile | None:
        """The message in the queue; None where header_checks had it discarded."""
        fields, owner = drop_file.decode_envelope(drop.envelope), _user_name(drop.uid)
        submission = Submission(fields, drop.uid, owner, self._rules.completion.origin.decode())
        envelope = submission.envelope(drop.head)
        if not envelope.recipients:
            raise Refused("it names no recipient")
        is_mail = envelope.trace != "verify"  # else it goes nowhere: no filter and no copy is for it
        if is_mail:
            envelope = replace(envelope, content_filter=self._rules.content_filter)
        arrival = self._clock()
        message = self._queue.create(envelope, arrival, adds_copies=self._rules.adds_copies and is_mail)
        received = self._received(message.queue_id, drop.uid, arrival)
        missing = self._missing(submission.full_name, envelope, message.queue_id, arrival)
        cleanup = Cleanup(self._rules.cleanup, received, missing, is_local=True)
        try:
            self._receive(drop, cleanup, message)
            if self._rules.milters and is_mail and not cleanup.findings.discard:
                self._pass_milters(message, received)
        except BaseException:
            message.discard()
            raise
        finally:
            self._log_findings(message, cleanup.findings)
        findings = cleanup.findings
        if findings.discard or not message.envelope.recipients:
            message.discard()
            return None
        message.envelope = affected(
            message.envelope, findings.redirect, findings.bcc, findings.content_filter
        )
        message.is_held = message.is_held or findings.hold or is_held
        committed = message.commit()
        self._log.write("pickup", f"{message.queue_id}: uid={drop.uid} from=<{submission.sender_text}>")
        self._log.write("cleanup", f"{message.queue_id}: message-id={cleanup.message_id}")
        return committed

    def _pass_milters(self, message: IncomingMessage, received: bytes) -> None:
        """The message is as non_smtpd_milters want it; without recipients where they drop it.

        Raises ContentRefused, OSError.
        """
        rules, queue_id = self._rules, message.queue_id
        content = milter_content(message, received, rules.cleanup.message_size_limit)
        macros = {"j": rules.host, "i": queue_id, **rules.macros}
        verdict = run_blocking(ask_about_local(rules.milters, content, macros, self._warn_of_milter))
        if isinstance(verdict, Refusal):
            line = f"{queue_id}: milter-reject: END-OF-MESSAGE from localhost[127.0.0.1]: {verdict.dsn}"
            self._log.write("cleanup", f"{line} {verdict.text}; from=<{message.envelope.sender or ''}>")
            raise ContentRefused(verdict.code, verdict.dsn, verdict.text)
        if isinstance(verdict, Discarded):
            content.envelope = replace(content.envelope, recipients=())
        apply_changes(message, content)

    def _warn_of_milter(self, text: str) -> None:
        self._log.write("cleanup", f"warning: {text}")

    def _log_findings(self, message: IncomingMessage, findings: Findings) -> None:
        """What header_checks and their like found, in cleanup(8)'s form."""
        sender = message.envelope.sender or ""
        to = message.envelope.recipients[0].address if message.envelope.recipients else ""
        for action, kind, content, text in findings.notes:
            line = f"{message.queue_id}: {action}: {kind} {content} from local; from=<{sender}> to=<{to}>"
            self._log.write("cleanup", f"{line}: {text}" if text else line)

    def _receive(self, drop: _Drop, cleanup: Cleanup, message: IncomingMessage) -> None:
        """The cleaned content is in the message; the header's addresses have their domains."""
        message.write(cleanup.feed(self._rules.completion.header(drop.head)))
        seen = 0
        for piece in drop.pieces():
            rest = piece[max(len(drop.head) - seen, 0) :]
            seen += len(piece)
            if rest:
                message.write(cleanup.feed(rest))
            if message.wants_flush:
                message.flush()
        message.write(cleanup.finish())

    def _received(self, queue_id: str, uid: int, arrival: float) -> bytes:
        rules = self._rules
        return (
            f"Received: by {rules.host} ({rules.mail_name}, from userid {uid})\n"
            f"\tid {queue_id}; {_date(arrival)}\n"
        ).encode()

    def _missing(self, full_name: str, envelope: Envelope, queue_id: str, arrival: float) -> dict[str, str]:
        host = self._rules.host
        sender = envelope.sender or Address("MAILER-DAEMON", host)
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(arrival))
        return {
            "Message-Id": f"<{stamp}.{queue_id}@{host}>",
            "Date": _date(arrival),
            "From": named(full_name, sender),
        }


def _pieces(descriptor: int, offset: int, octets: int) -> Iterator[bytes]:
    """Those octets of the file. Raises Malformed where it is shorter."""
    while octets:
        piece = os.pread(descriptor, min(octets, _PIECE), offset)
        if not piece:
            raise Malformed("it is cut off")
        octets -= len(piece)
        offset += len(piece)
        yield piece


def _date(posix: float) -> str:
    local = time.localtime(posix)
    return f"{format_date(posix, local.tm_gmtoff // 60)} ({local.tm_zone})"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid{uid}"
