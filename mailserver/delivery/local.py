"""Local delivery with the rights that this process has: local(8)'s work on one leaf.

It serves where all mail has one owner, and inside a delivery agent that has become the user
already: nothing here changes identity, touches Twisted or keeps state. A message is appended to an mbox, put
into a maildir, or given to a command; it is done, durable, or it is undone.

Texts and status codes are Postfix's, except that our own trouble is never permanent
(RELIABILITY P5): only a full mailbox and a target that can never hold mail bounce.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final
from urllib.parse import quote

from mailserver.delivery import command, user_files
from mailserver.delivery.job import Action, Forward, Job, Owner
from mailserver.delivery.pipe_content import formatted
from mailserver.envelope import Outcome, Status
from mailserver.store import locking, maildir, mbox
from mailserver.store.contract import MailboxBusy
from mailserver.store.mbox_lines import from_line
from mailserver.store.mbox_open import UnsafeMailbox
from mailserver.store.quota import start_warning, usage_at_delivery
from mailserver.store.quota_rules import Grace, QuotaWarning, Rules, due, parse_rules
from mailserver.store.side_by_side import SideBySide

_BLOCK: Final = 256 * 1024
_NO_RULES: Final = Rules()
_IN_MAILDIR: Final = Outcome.delivered("delivered to maildir")
_COMMANDS: Final = (Action.COMMAND, Action.PIPE)
_CHANGED: Final = (errno.EAGAIN, errno.ESTALE)
_FULL: Final = (errno.EDQUOT, errno.EFBIG)
_WRITING: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NEVER: Final = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


class ContentUnreadable(Exception):
    """The queue file did not give the content that the job promised."""


def _to_standard_error(text: str) -> None:
    sys.stderr.write(text)


class LocalAgents:
    """`delivery.job.Agents` in this process. *Blocking*; may be called from any number of threads.

    `forward_file_mode` is the only mode a .forward may have; None: Postfix's laxer rule. Where it
    `requires_home`, mail for a user whose home is missing waits. Without `strict_ownership` a
    mailbox may belong to somebody else. `command_shell` runs all commands, where it is not empty.
    `report` gets the traceback of what nobody expected.
    `accounts_directory` holds each account's state, for quotas; `quota_warnings` are run where one is passed,
    and the last message may lead over the limit by `quota_grace`. `helpers` wait for the disk where several
    messages are deposited at once.
    """

    def __init__(
        self,
        hostname: str,
        *,
        forward_file_mode: int | None = 0o644,
        mboxrd: bool = False,
        full_is_temporary: bool = False,
        accounts_directory: str = "",
        quota_warnings: Sequence[QuotaWarning] = (),
        quota_grace: Grace = Grace(),  # noqa: B008
        rules: locking.LockRules = locking.USUAL_RULES,
        requires_home: bool = False,
        strict_ownership: bool = True,
        command_shell: Sequence[str] = (),
        report: Callable[[str], None] = _to_standard_error,
        helpers: SideBySide | None = None,
    ) -> None:
        self._hostname = hostname
        self._forward_file_mode = forward_file_mode
        self._mboxrd = mboxrd
        self._full_is_temporary = full_is_temporary
        self._accounts_directory = accounts_directory
        self._quota_warnings = quota_warnings
        self._quota_grace = quota_grace
        self._rules = rules
        self._requires_home = requires_home
        self._strict_ownership = strict_ownership
        self._command_shell = tuple(command_shell)
        self._report = report
        self._helpers = helpers

    def read_forward(self, owner: Owner, paths: tuple[str, ...]) -> tuple[Forward | None, tuple[str, ...]]:
        """See `Agents.read_forward`. The warnings do not begin with `warning: `."""
        if self._requires_home:
            os.stat(owner.home)
        return user_files.read_forward(owner, paths, self._forward_file_mode)

    def read_include(self, owner: Owner, path: str) -> bytes:
        """See `Agents.read_include`."""
        return user_files.read_include(path)

    def perform(self, job: Job, content: int) -> Outcome:
        """See `Agents.perform`. Reads with pread(2): the descriptor may be shared."""
        try:
            return self._perform(job, content)
        except ContentUnreadable as error:
            return Outcome.deferred(f"{_failure(job)}error reading message: {error}", "4.3.0")
        except MailboxBusy as error:
            return Outcome.deferred(f"{_failure(job)}{error}", "4.2.0")
        except UnsafeMailbox as error:
            return self._unsafe(job, error)
        except OSError as error:
            return self._by_errno(job, error)
        except Exception:
            self._report(traceback.format_exc())
            return Outcome.deferred(f"{_failure(job)}internal error", "4.3.0")

    def deposit(self, mail: Sequence[tuple[Job, bytes | int]]) -> Outcome | None:
        """All of the messages are durable in the mailbox that each of the jobs names; or none, and None.

        For the owner's own mailbox. Contents are octets, or in the descriptor of a file where the job says.
        Why not is not told: who delivers them one by one will meet it.
        """
        with contextlib.suppress(MailboxBusy, UnsafeMailbox, OSError):
            if not any(_rules(job) for job, _ in mail):
                return self._store_all(mail)
            if len(mail) == 1:
                outcome = self._perform(mail[0][0], mail[0][1])
                return outcome if outcome.status is Status.DELIVERED else None
        return None

    def _perform(self, job: Job, content: int | bytes) -> Outcome:
        if job.action is Action.COMMAND:
            first = from_line(job.sender, time.time())
            message = command.message_for_command(first, job.prefix, _content(job, content))
            return command.deliver(job, message, self._command_shell)
        if job.action is Action.PIPE:
            eol = job.eol.encode("latin-1")
            body = formatted(_content(job, content), job.flags, eol)
            return command.deliver_to_pipe(job, chain((job.prefix.replace(b"\n", eol),), body))
        rules = _rules(job)
        if not rules:
            return self._store(job, content)
        directory = os.path.join(self._accounts_directory, quote(job.owner.name, safe="@+"))
        octets, messages = usage_at_delivery(directory, job.target, rules)
        length = len(content) if isinstance(content, bytes) else job.content_length
        after = octets + len(job.prefix) + length, messages + 1
        if not self._quota_grace.hold(rules.limits_in("INBOX"), (octets, messages), after):
            return self._full(f"{_failure(job)}Quota exceeded (mailbox for user is full)")
        outcome = self._store(job, content)
        warning = due(self._quota_warnings, rules.limits, (octets, messages), after)
        if warning and outcome.status is Status.DELIVERED:
            start_warning(warning, job.owner.name, job.owner.home, self._report)
        return outcome

    def _store(self, job: Job, content: int | bytes) -> Outcome:
        is_mailbox = job.action is Action.MAILBOX
        if not job.target.endswith("/") and not is_mailbox:
            if job.target == os.devnull:
                return Outcome.delivered(f"delivered to file: {job.target}")
            if _is_executable(job.target):
                return Outcome.failed(f"{_failure(job)}file is executable", "5.7.0")
        return self._store_all(((job, content),))

    def _store_all(self, mail: Sequence[tuple[Job, int | bytes]]) -> Outcome:
        """The jobs have one target."""
        job = mail[0][0]
        if job.target.endswith("/"):
            self._into_maildir(job, mail)
            return _IN_MAILDIR
        is_mailbox = job.action is Action.MAILBOX
        mbox.deposit_all(
            job.target,
            ((each.sender, _message(each, content)) for each, content in mail),
            owner=job.owner.uid if is_mailbox and self._strict_ownership else None,
            size_limit=job.size_limit,
            mboxrd=self._mboxrd,
            rules=self._rules,
        )
        return Outcome.delivered("delivered to mailbox" if is_mailbox else f"delivered to file: {job.target}")

    def _into_maildir(self, job: Job, mail: Sequence[tuple[Job, int | bytes]]) -> None:
        """Into a maildir, which is made with the directories above it, as Postfix makes them."""

        def deposit() -> None:
            messages = (_message(each, content) for each, content in mail)
            maildir.deposit_all(job.target, messages, self._hostname, job.size_limit, self._helpers)

        try:
            deposit()
        except FileNotFoundError:
            _make_directory(job.target.rstrip("/"))
            deposit()

    def _full(self, text: str) -> Outcome:
        """The recipient's mailbox is full: that may pass, or the sender hears at once, as configured."""
        return Outcome.deferred(text, "4.2.2") if self._full_is_temporary else Outcome.failed(text, "5.2.2")

    def _unsafe(self, job: Job, error: UnsafeMailbox) -> Outcome:
        text = _failure(job) + error.text
        return Outcome.failed(text, "5.2.0") if error.is_permanent else Outcome.deferred(text, "4.2.0")

    def _by_errno(self, job: Job, error: OSError) -> Outcome:
        """Why the disk did not take the message, and whether it may later. RELIABILITY 2.3."""
        reason = os.strerror(error.errno) if error.errno else str(error)
        act = "error writing message: " if error.errno in _WRITING else ""
        text = f"{_failure(job)}{act}{reason}"
        if job.action in _COMMANDS:
            return Outcome.deferred(text, "4.3.0")  # fork, pipe: the command itself has its exit status
        if error.errno in _FULL:
            return self._full(text)
        if error.errno in _NEVER:
            return Outcome.failed(text, "5.2.0")
        return Outcome.deferred(text, "4.2.0" if error.errno in _CHANGED else "4.3.0")


def _rules(job: Job) -> Rules:
    """The owner's rules. What cannot be read limits nothing."""
    if not job.quota:
        return _NO_RULES
    try:
        return parse_rules(job.quota)
    except ValueError:
        return _NO_RULES


def _failure(job: Job) -> str:
    """How the text of a failure begins, up to the reason."""
    if job.action in _COMMANDS:
        return "Command failed: "
    if job.target.endswith("/"):
        return "maildir delivery failed: "
    if job.action is Action.MAILBOX:
        return f"cannot update mailbox {job.target} for user {job.owner.name}. "
    return f"cannot append message to file {job.target}: "


def _make_directory(path: str) -> None:
    """The directory and those above it are there; new ones are for nobody else. Raises OSError."""
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        _make_directory(os.path.dirname(path))
        os.mkdir(path, 0o700)
    except FileExistsError:
        return


def _is_executable(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # opening it will say why
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def _message(job: Job, content: int | bytes) -> Iterator[bytes]:
    """Header lines of this recipient's, and the content, from a descriptor or as it is."""
    if isinstance(content, bytes):
        yield job.prefix + content
        return
    yield job.prefix
    yield from _content(job, content)


def _content(job: Job, descriptor: int | bytes) -> Iterator[bytes]:
    if isinstance(descriptor, bytes):
        yield descriptor
        return
    at, end = job.content_offset, job.content_offset + job.content_length
    while at < end:
        try:
            block = os.pread(descriptor, min(_BLOCK, end - at), at)
        except OSError as error:
            raise ContentUnreadable(error.strerror)
        if not block:
            raise ContentUnreadable("the queue file is too short")
        at += len(block)
        yield block
