"""The one door through which blocking work leaves the reactor.

fsync, lock waits, password hashes and large parses go through `Threads.run`; nothing else
may block for more than a millisecond or two. `Inline` does the work at once: it serves
single-threaded roles and tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Protocol):
    """Runs blocking functions somewhere that may block."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires with the function's result or exception. Order between two calls is not kept."""


_Call = tuple[Deferred[Any], Callable[[], Any]]


class WorkerThreads:
    """`Threads` on threads of its own, started as they are needed, at most `limit`.

    Answers come in the reactor's thread, those that gathered while it was busy in one turn and for
    one wake-up. `run` and `stop` are for the reactor's thread.
    """

    def __init__(self, reactor: Any, limit: int, name: str = "worker") -> None:
        self._reactor = reactor
        self._limit = limit
        self._name = name
        self._threads: list[Thread] = []
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._answers: deque[tuple[Deferred[Any], Any]] = deque()
        self._unanswered = 0
        self._is_woken = False

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See `Threads.run`."""
        answer: Deferred[T] = Deferred()
        self._unanswered += 1
        if len(self._threads) < min(self._unanswered, self._limit):
            self._start_thread()
        self._calls.put((answer, partial(function, *args, **kwargs)))
        return answer

    def stop(self) -> None:
        """Every thread has ended its work and is gone. *Blocking.*"""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start_thread(self) -> None:
        thread = Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            answer, function = call
            try:
                result = function()
            except BaseException:
                result = Failure()
            self._answers.append((answer, result))
            del call, answer, function, result  # nothing is kept alive while the thread waits
            if not self._is_woken:
                self._is_woken = True
                self._reactor.callFromThread(self._deliver)

    def _deliver(self) -> None:
        self._is_woken = False  # first: what comes from now on wakes the reactor again
        for _ in range(len(self._answers)):
            answer, result = self._answers.popleft()
            self._unanswered -= 1
            answer.callback(result)


class Inline:
    """`Threads` without a thread: the work is done before `run` returns."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See `Threads.run`."""
        return cast("Deferred[T]", defer.execute(function, *args, **kwargs))
