"""The supervisor: starts the roles, restarts the dead, stops all. Parses no remote octet.

Single-threaded, without a reactor: it sleeps in sigtimedwait(2) and does nothing but fork,
wait and kill. A role that dies within `_SOON` seconds of its start waits before the next one,
1 s doubling to 60 s; listening sockets stay open here meanwhile, so that clients wait and do
not fail. SIGTERM and SIGINT stop everything: all roles get SIGTERM, and after `stop_seconds`
SIGKILL. A role with a heart that stops beating is killed. Roles die with the supervisor, however
it ends (PR_SET_PDEATHSIG). The service manager is told of a reload, of the stop, and that we live.

SIGHUP reopens the log here, and in every role (`log_line`). Where a `renewal` then has another
generation of roles, that is started beside the present one, and takes its place only when every role with a
`Passage` has said that it is ready; else it is ended, and the present one was never touched. Such roles of
the old generation get RETIRE, take nothing new from then on, say that they have let go, and end when
their work is done; as soon as one has let go, its successor gets BEGIN. The other old roles serve these
to the end, and end after them. BEGIN is said again whenever something of the past has ended, since it may
have left work. At most MOST_RETIRED generations wait for their sessions; the oldest is told to stop when
there is one more.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from mailserver.maillog import FileLog
from mailserver.rights.as_user import die_with_parent
from mailserver.rights.generation import Generation, Place, Renewal, Term
from mailserver.rights.log_line import LogLine
from mailserver.rights.process_name import name_process
from mailserver.rights.service_manager import ServiceManager

RETIRE: Final = signal.SIGUSR1
BEGIN: Final = signal.SIGUSR2
MOST_RETIRED: Final = 3
_SOON: Final = 10.0  # seconds
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_START_SECONDS: Final = 90.0  # for a generation to be ready
_LOOK: Final = 0.02  # seconds between two looks at signs
_WATCHED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
        generation: Generation,
        stop_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        manager: ServiceManager | None = None,
        renewal: Renewal | None = None,
    ) -> None:
        self._terms = [Term(generation)]  # the oldest first
        self._stop_seconds = stop_seconds
        self._clock = clock
        self._manager = manager or ServiceManager({})
        self._renewal = renewal
        self._asked: set[int] = set()

    def run(self) -> None:
        """All roles run; returns after SIGTERM or SIGINT, when none does any more."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        while not self._is_to_stop():
            if signal.SIGHUP in self._asked:
                self._asked.discard(signal.SIGHUP)
                self._hang_up()
            else:
                self._turn(self._seconds_to_wait())
        self._manager.is_stopping()
        self._stop()

    def _is_to_stop(self) -> bool:
        return not self._asked.isdisjoint((signal.SIGTERM, signal.SIGINT))

    def _turn(self, seconds: float) -> None:
        """What is due is done, and then waited for a signal, no longer than that."""
        self._start_due()
        self._manager.is_alive()
        received = signal.sigtimedwait(_WATCHED, min(seconds, self._seconds_to_wait()))
        if received is not None:
            self._asked.add(received.si_signo)
        self._reap()
        self._end_retired()
        self._kill_silent()

    def _wait(self, claim: Callable[[], bool], seconds: float) -> bool:
        """Whether the claim came true in that time, and before the stop."""
        end = self._clock() + seconds
        while not claim():
            if self._is_to_stop() or self._clock() > end:
                return False
            self._turn(_LOOK)
        return True

    @property
    def _present(self) -> Term:
        """The generation that serves who comes."""
        return next(term for term in reversed(self._terms) if not term.is_coming)

    def _places(self) -> Iterator[Place]:
        for term in self._terms:
            yield from term.places

    # A reload.

    def _hang_up(self) -> None:
        """The log is open under its name again, here and in the roles, and the next generation serves."""
        self._manager.is_reloading()
        self._reopen_logs()
        generation = self._renewal.next() if self._renewal is not None else None
        if generation is not None and self._renewal is not None:
            self._renewal.taken(self._succeed(Term(generation)))
        self._manager.is_ready()

    def _reopen_logs(self) -> None:
        for log in {id(term.generation.log): term.generation.log for term in self._terms}.values():
            try:
                if isinstance(log, FileLog):
                    log.reopen()
            except OSError as error:
                log.write("master", f"warning: reload: {error}")
        for place in self._places():
            if place.log_line is not None:
                place.log_line.hand_over()

    def _succeed(self, coming: Term) -> str:
        """The coming roles are in the place of the present ones; or the problem, and they are gone."""
        present = self._present
        coming.is_coming = True
        self._terms.append(coming)
        if (
            not self._wait(lambda: coming.is_ready() or coming.has_failed, _START_SECONDS)
            or coming.has_failed
        ):
            return self._give_up(coming)
        present.is_retired = True
        coming.is_coming = False
        coming.generation.begins()
        present.signal(present.passing(), RETIRE)
        for place in coming.passing():
            self._wait(partial(present.has_released, place.role.name), self._stop_seconds)
            self._begin(coming, [place])
        retired = [term for term in self._terms if term.is_retired and not term.is_stopping]
        for term in retired[:-MOST_RETIRED]:
            self._end(term)
        return ""

    def _give_up(self, coming: Term) -> str:
        """The problem. No process of the generation is left."""
        dead = next((place.role.name for place in coming.places if not place.pid), "")
        self._end(coming)
        self._wait(lambda: coming not in self._terms, 2 * self._stop_seconds)
        return f"process {dead} ended: the log says why" if dead else "its processes do not become ready"

    def _end_retired(self) -> None:
        """A generation that has done all its work is gone with those that served it."""
        for term in [term for term in self._terms if term.is_retired or term.is_stopping]:
            if not term.is_stopping and not any(place.pid for place in term.passing()):
                self._end(term)
            if self._clock() > term.stopped_at:
                term.signal(term.places, signal.SIGKILL)
            if term.is_stopping and not term.is_alive():
                self._terms.remove(term)
                term.generation.ended()
                self._begin(self._present, self._present.passing())

    def _begin(self, term: Term, places: Sequence[Place]) -> None:
        """Those that wait begin; who is not ready yet begins by itself."""
        term.signal([p for p in places if p.role.passage and p.role.passage.ready.is_given()], BEGIN)

    def _end(self, term: Term) -> None:
        """It ends, whatever it does."""
        term.is_stopping = True
        term.stopped_at = self._clock() + self._stop_seconds
        term.signal(term.places, signal.SIGTERM)

    # Starting.

    def _start_due(self) -> None:
        now = self._clock()
        for term in self._terms:
            for place in term.places:
                if place.pid == 0 and place.start_at <= now and term.wants(place):
                    self._start(term, place, now)

    def _start(self, term: Term, place: Place, now: float) -> None:
        place.started = now
        if place.role.heart is not None:
            place.role.heart.beat()
        if place.role.passage is not None:
            place.role.passage.ready.withdraw()
            place.role.passage.released.withdraw()
        place.pid = self._fork(term.generation, place)

    def _fork(self, generation: Generation, place: Place) -> int:
        supervisor, role, log_line = os.getpid(), place.role, LogLine(generation.log)
        kept = {id(generation.listeners[name]) for name in role.listeners}

        def prepare() -> None:
            name_process(f"mail-{role.name}")
            die_with_parent(supervisor, role.death_signal)
            log_line.listen()
            for other in self._places():
                if other.log_line is not None:
                    other.log_line.close()
            for term in self._terms:
                for listener in term.generation.listeners.values():
                    if id(listener) not in kept:
                        listener.close()

        pid = fork_child(role.main, prepare)
        log_line.forked(pid)
        place.log_line = log_line
        return pid

    def _seconds_to_wait(self) -> float:
        """Until the next start is due, hearts are to be looked at, or ours is to beat."""
        is_watching = any(term.is_stopping or any(p.role.heart for p in term.places) for term in self._terms)
        longest = min(1.0 if is_watching else _LONGEST_WAIT, self._manager.interval)
        waiting = (
            place.start_at
            for term in self._terms
            for place in term.places
            if place.pid == 0 and term.wants(place)
        )
        return min(max(min(waiting, default=math.inf) - self._clock(), 0.0), longest)

    # Ending.

    def _kill_silent(self) -> None:
        for place in [place for term in self._terms if not term.is_coming for place in term.places]:
            if place.pid and place.role.heart is not None and place.role.heart.has_stopped():
                self._present.generation.log.write(
                    "master", f"warning: process {place.role.name} pid {place.pid} does not react"
                )
                os.kill(place.pid, signal.SIGKILL)

    def _reap(self) -> None:
        for term in list(self._terms):
            for place in term.places:
                pid, status = os.waitpid(place.pid, os.WNOHANG) if place.pid else (0, 0)
                if pid:
                    self._ended(term, place, os.waitstatus_to_exitcode(status))

    def _ended(self, term: Term, place: Place, status: int) -> None:
        pid, place.pid = place.pid, 0
        if place.log_line is not None:
            place.log_line.close()
            place.log_line = None
        has_finished = term.is_retired and place.role.passage is not None
        if has_finished:
            heirs = [other for other in self._present.passing() if other.role.name == place.role.name]
            self._begin(self._present, heirs)
        if term.is_stopping or (has_finished and status == 0):
            return
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        text = f"warning: process {place.role.name} pid {pid} ended: {how}"
        if term.is_coming:
            term.has_failed = True
        elif not has_finished:
            now = self._clock()
            lived_long = now - place.started >= _SOON
            place.wait = 0.0 if lived_long else min(max(place.wait * 2, _FIRST_WAIT), _LONGEST_WAIT)
            place.start_at = now + place.wait
            text += f"; restart in {place.wait:.0f} s"
        term.generation.log.write("master", text)

    def _stop(self) -> None:
        for term in self._terms:
            term.signal(term.places, signal.SIGTERM)
        deadline = self._clock() + self._stop_seconds
        while any(place.pid for place in self._places()):
            left = deadline - self._clock()
            for term in self._terms if left <= 0 else ():
                term.signal(term.places, signal.SIGKILL)
            signal.sigtimedwait((signal.SIGCHLD,), max(left, 0.2))
            self._reap_stopped()

    def _reap_stopped(self) -> None:
        for place in self._places():
            if place.pid and os.waitpid(place.pid, os.WNOHANG)[0]:
                place.pid = 0
