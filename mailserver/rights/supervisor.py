"""The supervisor: starts the roles, restarts the dead, stops all. Parses no remote octet.

Single-threaded, without a reactor: it sleeps in sigtimedwait(2) and does nothing but fork,
wait and kill. A role that dies within `_SOON` seconds of its start waits before the next one,
1 s doubling to 60 s; listening sockets stay open here meanwhile, so that clients wait and do
not fail. SIGTERM and SIGINT stop everything: all roles get SIGTERM, and after `stop_seconds`
SIGKILL. SIGHUP reopens the log here, and in every role (`log_line`). A role with a heart that
stops beating is killed. Roles die with the supervisor, however it ends (PR_SET_PDEATHSIG). The
service manager is told of a reload, of the stop, and that we live.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailserver.maillog import FileLog, MailLog
from mailserver.rights.as_user import die_with_parent, name_process
from mailserver.rights.heart import Heart
from mailserver.rights.log_line import LogLine
from mailserver.rights.service_manager import ServiceManager

_SOON: Final = 10.0  # seconds
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_WATCHED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Role:
    """A process to keep running.

    `main` runs in the child, as root; it takes the rights it needs and drops the others
    itself. `listeners` names the sockets it keeps: all others are closed before. `death_signal`
    is what it gets when the supervisor dies: SIGTERM for one that must finish what it does.
    A role with a `heart` beats it about once a second.
    """

    name: str
    main: Callable[[], None]
    listeners: frozenset[str] = frozenset()
    death_signal: int = signal.SIGKILL
    heart: Heart | None = None


@dataclass(slots=True)
class _Place:
    """A role and its present process. `pid` 0: none; start it at `start_at`."""

    role: Role
    pid: int = 0
    log_line: LogLine | None = None
    started: float = 0.0
    start_at: float = 0.0
    wait: float = 0.0


def _take_no_notice(number: int, frame: object) -> None:
    """A signal handler that does nothing."""


def fork_child(main: Callable[[], None], prepare: Callable[[], None]) -> int:
    """The pid of a child that runs `prepare` and `main` with ordinary signals, and ends with `os._exit`.

    Exit status 0 where `main` returned, 1 where it raised (the traceback is on standard error).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for number in _WATCHED:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):  # ^C is the parent's to handle, a reload no death
            signal.signal(number, _take_no_notice)  # a handler, since ignored signals outlive exec
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        prepare()
        main()
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Supervisor:
    """Keeps roles running until it is told to stop."""

    def __init__(
        self,
        roles: Sequence[Role],
        listeners: Mapping[str, socket.socket],
        log: MailLog,
        stop_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        manager: ServiceManager | None = None,
    ) -> None:
        self._places = [_Place(role) for role in roles]
        self._listeners = dict(listeners)
        self._log = log
        self._stop_seconds = stop_seconds
        self._clock = clock
        self._manager = manager or ServiceManager({})

    def run(self) -> None:
        """All roles run; returns after SIGTERM or SIGINT, when none does any more."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        while True:
            self._start_due()
            self._manager.is_alive()
            received = signal.sigtimedwait(_WATCHED, self._seconds_to_wait())
            self._reap()
            self._kill_silent()
            if received is None:
                continue
            if received.si_signo in (signal.SIGTERM, signal.SIGINT):
                break
            if received.si_signo == signal.SIGHUP:
                self._hang_up()
        self._manager.is_stopping()
        self._stop()

    def _hang_up(self) -> None:
        """The log is open under its name again, here and in the roles."""
        self._manager.is_reloading()
        try:
            if isinstance(self._log, FileLog):
                self._log.reopen()
                for place in self._places:
                    if place.log_line is not None:
                        place.log_line.hand_over()
        except OSError as error:
            self._log.write("master", f"warning: reload: {error}")
        self._manager.is_ready()

    def _start_due(self) -> None:
        now = self._clock()
        for place in self._places:
            if place.pid == 0 and place.start_at <= now:
                place.started = now
                if place.role.heart is not None:
                    place.role.heart.beat()
                place.pid = self._fork(place)

    def _fork(self, place: _Place) -> int:
        supervisor, role, log_line = os.getpid(), place.role, LogLine(self._log)

        def prepare() -> None:
            name_process(f"mail-{role.name}")
            die_with_parent(supervisor, role.death_signal)
            log_line.listen()
            for other in self._places:
                if other.log_line is not None:
                    other.log_line.close()
            for name, listener in self._listeners.items():
                if name not in role.listeners:
                    listener.close()

        pid = fork_child(role.main, prepare)
        log_line.forked(pid)
        place.log_line = log_line
        return pid

    def _seconds_to_wait(self) -> float:
        """Until the next start is due, hearts are to be looked at, or ours is to beat."""
        longest = 1.0 if any(place.role.heart for place in self._places) else _LONGEST_WAIT
        longest = min(longest, self._manager.interval)
        due = min((place.start_at for place in self._places if place.pid == 0), default=math.inf)
        return min(max(due - self._clock(), 0.0), longest)

    def _kill_silent(self) -> None:
        for place in self._places:
            if place.pid and place.role.heart is not None and place.role.heart.has_stopped():
                self._log.write(
                    "master", f"warning: process {place.role.name} pid {place.pid} does not react"
                )
                os.kill(place.pid, signal.SIGKILL)

    def _reap(self) -> None:
        for place in self._places:
            if place.pid == 0:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                self._ended(place, os.waitstatus_to_exitcode(status))

    def _ended(self, place: _Place, status: int) -> None:
        now = self._clock()
        lived_long = now - place.started >= _SOON
        place.wait = 0.0 if lived_long else min(max(place.wait * 2, _FIRST_WAIT), _LONGEST_WAIT)
        place.start_at = now + place.wait
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        text = (
            f"warning: process {place.role.name} pid {place.pid} ended: {how}; restart in {place.wait:.0f} s"
        )
        self._log.write("master", text)
        place.pid = 0
        if place.log_line is not None:
            place.log_line.close()
            place.log_line = None

    def _signal_all(self, number: int) -> None:
        for place in self._places:
            if place.pid:
                os.kill(place.pid, number)

    def _stop(self) -> None:
        self._signal_all(signal.SIGTERM)
        deadline = self._clock() + self._stop_seconds
        while any(place.pid for place in self._places):
            left = deadline - self._clock()
            if left <= 0:
                self._signal_all(signal.SIGKILL)
            signal.sigtimedwait((signal.SIGCHLD,), max(left, 0.2))
            self._reap_stopped()

    def _reap_stopped(self) -> None:
        for place in self._places:
            if place.pid and os.waitpid(place.pid, os.WNOHANG)[0]:
                place.pid = 0
