"""The process of a role that has a reactor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any

from mailserver.rights.fresh_reactor import fresh_reactor
from mailserver.rights.heart import Heart
from mailserver.roles.signals import on_signal, stop_once


class RoleProcess:
    """A role's reactor and threads, from its start to its orderly end."""

    def __init__(self, threads: int = 16, few_threads: int = 0) -> None:
        """`few_threads`: see `WorkerThreads`."""
        from mailserver.roles.quiet_log import begin_logging
        from mailserver.threads import WorkerThreads

        begin_logging()
        self.reactor = fresh_reactor()
        self.threads = WorkerThreads(self.reactor, threads, "mail", few_threads)

    def when_running(self, function: Callable[[], object]) -> None:
        """The function is called once the reactor runs."""
        self.reactor.callWhenRunning(function)

    def beat(self, heart: Heart) -> None:
        """The supervisor sees every second that the reactor turns."""
        heart.beat()
        self.reactor.callLater(1.0, self.beat, heart)

    def at(self, number: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The work is begun whenever the signal comes. For the main thread."""
        on_signal(self.reactor, number, lambda: self.spawn(work))

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The work is begun; where it fails the process ends, and the supervisor starts another."""
        from twisted.internet.defer import Deferred

        Deferred.fromCoroutine(work()).addErrback(self._fail)

    def _fail(self, failure: Any) -> None:
        failure.printTraceback()
        os._exit(1)

    def stop(self) -> None:
        """The process ends in order; where it does already, it goes on doing so."""
        self.reactor.callLater(0, self._stop)

    def _stop(self) -> None:
        from twisted.internet.error import ReactorNotRunning

        with contextlib.suppress(ReactorNotRunning):
            self.reactor.stop()

    def run(self, stop: Callable[[], Any]) -> None:
        """Runs until SIGTERM or `stop`; then `stop` is awaited."""
        from twisted.internet.defer import Deferred

        self.reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(stop()))
        self.reactor.addSystemEventTrigger("after", "shutdown", self.threads.stop)
        self.reactor.callLater(0, stop_once)  # when the reactor has its own handlers
        self.reactor.run()
