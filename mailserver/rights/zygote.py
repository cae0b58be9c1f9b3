"""The zygote: forks a session host for an account when a stream for it arrives.

Root, single-threaded, without a reactor, with everything imported and frozen, so that a fork is
cheap. It hears the helper only (`attach`), and its hosts. A host is the account's user for
good before it runs a line of protocol code. All sessions of an account share one host:
further streams are passed on over the host's control channel. A host that has been idle says
`{"leaving": true}`; from then on the next stream gets a new one, and the old one serves what
it has to the end. Hosts get SIGTERM when the zygote ends, however it ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import selectors
import signal
import socket
import stat
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from mailserver.maillog import MailLog
from mailserver.rights import messages
from mailserver.rights.as_user import Identity, become_confined, die_with_parent
from mailserver.rights.fresh_reactor import look_for_reactor
from mailserver.rights.listeners import connect_channel
from mailserver.rights.log_line import LogLine
from mailserver.rights.messages import BadMessage, Message
from mailserver.rights.process_name import name_process
from mailserver.rights.supervisor import fork_child

HostMain = Callable[[Message, socket.socket], None]
_REQUEST_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 20.0
_DIRECTORY_NAME: Final = re.compile(r"[a-z0-9_][a-z0-9._@-]{0,254}")


@dataclass(frozen=True, slots=True)
class _Host:
    pid: int
    control: socket.socket


def attach(path: str, account: Message, stream: int, guest: Message | None = None) -> int:
    """The stream is with the account's session host, whose pid is the answer.

    `account` has at least name, uid and gid. `guest`, with name and groups, is who else uses the stream: not
    the account's own client.

    Blocking. Raises OSError where it is not; the descriptor stays the caller's.
    """
    try:
        with connect_channel(path, _REQUEST_SECONDS) as connection:
            messages.send(connection, {"account": account, "guest": guest}, (stream,))
            received = messages.receive(connection)
    except BadMessage as error:
        raise OSError(f"the zygote's answer: {error}") from error
    if received is None or not isinstance(received[0].get("pid"), int):
        raise OSError("the session host could not be started")
    return int(received[0]["pid"])


class Zygote:
    """Serves `attach` on a listening channel.

    `host_main(account, control)` runs in the host. `state_directory` holds one directory for each account,
    made here and owned by it. `groups` names the supplementary groups an account's host gets
    (the spool's, where its INBOX lies there).
    """

    def __init__(
        self,
        listener: socket.socket,
        host_main: HostMain,
        state_directory: str,
        log: MailLog,
        groups: Callable[[Message], tuple[int, ...]] = lambda account: (),
        allowed_uids: Collection[int] = (0,),
    ) -> None:
        self._listener = listener
        self._host_main = host_main
        self._state_directory = state_directory
        self._log = log
        self._groups = groups
        self._allowed = frozenset(allowed_uids)
        self._hosts: dict[tuple[str, int], _Host] = {}
        self._log_lines: dict[int, LogLine] = {}  # of every host that lives, by pid
        self._selector = selectors.DefaultSelector()
        self._is_stopping = False
        self._has_new_log = False

    def run(self) -> None:
        """Serves until SIGTERM; then all hosts have ended."""
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._follow_the_log()
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake[0], selectors.EVENT_READ, self._woken)
        look_for_reactor()
        gc.collect()
        gc.freeze()
        while not self._is_stopping:
            for key, _ in self._selector.select():
                key.data()
        self._end_hosts()

    def _stop(self, *unused: Any) -> None:
        self._is_stopping = True

    def _follow_the_log(self) -> None:
        """After SIGHUP, whose handler adopts the reopened log here, the hosts get it too."""
        adopt = signal.getsignal(signal.SIGHUP)

        def hang_up(number: int, frame: FrameType | None) -> None:
            if callable(adopt):
                adopt(number, frame)
            self._has_new_log = True

        signal.signal(signal.SIGHUP, hang_up)

    def _woken(self) -> None:
        """By a signal: hosts have ended, or the log was reopened."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake[0], 4096)
        self._reap()
        if self._has_new_log:
            self._has_new_log = False
            for log_line in self._log_lines.values():
                log_line.hand_over()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            if messages.peer_uid(connection) not in self._allowed:
                return
            connection.settimeout(_REQUEST_SECONDS)
            with contextlib.suppress(OSError):
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            received = messages.receive(connection)
            if received is None:
                return
            message, descriptors = received
            guest = message.get("guest")
            pid = self._pass_on(message["account"], guest, descriptors, connection)
            messages.send(connection, {"pid": pid})
        except (BadMessage, OSError, KeyError, TypeError, ValueError) as error:
            self._log.write("imap", f"Error: no session host: {type(error).__name__}: {error}")
            messages.send(connection, {"pid": None})
        finally:
            messages.close_all(descriptors)

    def _pass_on(
        self, account: Message, guest: Message | None, descriptors: list[int], asker: socket.socket
    ) -> int:
        """The pid of the host that has the stream now."""
        key = (account["name"], account["uid"])
        if len(descriptors) != 1 or account["uid"] <= 0 or account["gid"] <= 0:
            raise ValueError("not an account and a stream")
        host = self._hosts.get(key)
        if host is None:
            identity = Identity(*key, account["gid"], self._groups(account))
            make_state_directory(self._state_directory, identity)
            host = self._fork(key, identity, account, (*descriptors, asker.fileno()))
        try:
            messages.send(host.control, {"account": account, "guest": guest}, descriptors)
        except OSError:
            self._forget(key)  # hung or gone: the next login gets a new one
            raise
        return host.pid

    def _fork(
        self, key: tuple[str, int], identity: Identity, account: Message, not_for_host: tuple[int, ...]
    ) -> _Host:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log_line = LogLine(self._log)
        zygote = os.getpid()

        def prepare() -> None:
            self._selector.close()
            self._listener.close()
            ours.close()
            messages.close_all((*not_for_host, *self._wake))
            for host in self._hosts.values():
                host.control.close()
            for other in self._log_lines.values():
                other.close()
            log_line.listen()
            name_process("mail-host")
            become_confined(identity)
            die_with_parent(zygote, signal.SIGTERM)

        pid = fork_child(lambda: self._host_main(account, theirs), prepare)
        theirs.close()
        ours.setblocking(False)
        self._hosts[key] = host = _Host(pid, ours)
        log_line.forked(pid)
        self._log_lines[pid] = log_line
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(key, host))
        return host

    def _hear(self, key: tuple[str, int], host: _Host) -> None:
        """The host leaves, or has ended, or says what it should not: it gets no further stream."""
        try:
            received = messages.receive(host.control)
            messages.close_all(received[1] if received else ())
        except (BadMessage, OSError):
            pass
        if self._hosts.get(key) is host:
            self._forget(key)

    def _forget(self, key: tuple[str, int]) -> None:
        host = self._hosts.pop(key)
        self._selector.unregister(host.control)
        host.control.close()

    def _reap(self) -> None:
        for pid in tuple(self._log_lines):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            self._log_lines.pop(pid).close()
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, -signal.SIGTERM):
                self._log.write("imap", f"Error: session host {pid} ended with {code}")

    def _end_hosts(self) -> None:
        for pid in self._log_lines:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self._log_lines and time.monotonic() < deadline:
            self._selector.select(0.2)
            self._woken()
        for pid in self._log_lines:
            os.kill(pid, signal.SIGKILL)


def make_state_directory(parent: str, identity: Identity) -> str:
    """The account's own directory is there, mode 0700 and the account's; its path. `parent` is root's alone.

    Raises OSError, ValueError.
    """
    if not _DIRECTORY_NAME.fullmatch(identity.name):
        raise ValueError("the account's name cannot be a directory")
    path = f"{parent}/{identity.name}"
    try:
        os.mkdir(path, 0o700)
        os.chown(path, identity.uid, identity.gid)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (identity.uid, 0):
            raise PermissionError(f"{path} is not a directory of {identity.name}") from None
        if found.st_uid == 0:
            os.chown(path, identity.uid, identity.gid, follow_symlinks=False)
    return path
