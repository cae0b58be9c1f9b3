"""The one door through which blocking work leaves the reactor.

fsync, lock waits, password hashes and large parses go through `Threads.run`; nothing else
may block for more than a millisecond or two. `Inline` does the work at once: it serves
single-threaded roles and tests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Lock, Thread, current_thread
from time import monotonic, process_time
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

_PATIENCE: Final = 0.01  # seconds that calls wait before another thread is thought of
_BUSY: Final = 0.7  # of one processor: the interpreter runs one thread at a time
P = ParamSpec("P")
T = TypeVar("T")


class Threads(Protocol):
    """Runs blocking functions somewhere that may block."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires with the function's result or exception. Order between two calls is not kept."""


_Call = tuple[Deferred[Any], Callable[[], Any]]


class _Calls:
    """Calls in order; each that comes wakes one thread, the one that was at work last, and no other.

    A SimpleQueue wakes a second one with every call, only for it to find nothing.
    """

    def __init__(self) -> None:
        self._calls: deque[_Call | None] = deque()
        self._idle: list[Lock] = []

    def empty(self) -> bool:
        """Whether no call waits."""
        return not self._calls

    def put(self, call: _Call | None) -> None:
        """The call waits for a thread; None ends the thread that takes it."""
        self._calls.append(call)
        try:
            self._idle.pop().release()
        except IndexError:
            pass  # whoever ends its work next takes it

    def take(self) -> _Call | None:
        """The oldest call. Raises IndexError where none waits."""
        return self._calls.popleft()

    def wait(self, alarm: Lock) -> _Call | None:
        """The oldest call, as soon as there is one. `alarm` is the thread's own, and locked."""
        while True:
            try:
                return self._calls.popleft()
            except IndexError:
                self._idle.append(alarm)
            if not self._calls or not self._is_off_duty(alarm):
                alarm.acquire()

    def _is_off_duty(self, alarm: Lock) -> bool:
        """Whether the thread is no longer among the idle; if it is not, somebody is about to wake it."""
        try:
            self._idle.remove(alarm)
        except ValueError:
            return False
        return True


class WorkerThreads:
    """`Threads` on threads of its own, started as they are needed, at most `limit`.

    `few` of them do the work as long as the processor is what they lack: more would only fight over the
    interpreter. While they wait, for a disk or for somebody's lock, others join until nothing is
    left to be begun. Answers come in the reactor's thread, those that gathered while it was busy in
    one turn and for one wake-up. `run` and `stop` are for the reactor's thread.
    """

    def __init__(self, reactor: Any, limit: int, name: str = "worker", few: int = 0) -> None:
        self._reactor = reactor
        self._limit = limit
        self._few = min(few or limit, limit)
        self._name = name
        self._threads: list[Thread] = []
        self._joined: set[Thread] = set()
        self._calls = _Calls()
        self._answers: deque[tuple[Deferred[Any], Any]] = deque()
        self._unanswered = 0
        self._is_woken = False
        self._look: Any = None  # the timer of `_look_at_backlog`
        self._looked = (0.0, 0.0, 0)  # this process's time of the processor, time, and calls taken by then
        self._taken = 0

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See `Threads.run`."""
        answer: Deferred[T] = Deferred()
        self._unanswered += 1
        if len(self._threads) < min(self._unanswered, self._few):
            self._start_thread(self._work, self._threads.append)
        elif self._few < self._limit and self._unanswered > self._few and self._look is None:
            self._look_later()
        self._calls.put((answer, partial(function, *args, **kwargs)))
        return answer

    def stop(self) -> None:
        """Every thread has ended its work and is gone. *Blocking.*"""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        for _ in self._threads:
            self._calls.put(None)
        for thread in (*self._threads, *tuple(self._joined)):
            thread.join()
        self._threads.clear()

    def _look_later(self) -> None:
        self._looked = (process_time(), monotonic(), self._taken)
        self._look = self._reactor.callLater(_PATIENCE, self._look_at_backlog)

    def _look_at_backlog(self) -> None:
        """Another thread joins where calls wait although the processor has time, or none was taken lately."""
        self._look = None
        if self._unanswered <= len(self._threads) or self._calls.empty():
            return
        used, passed = process_time() - self._looked[0], monotonic() - self._looked[1]
        is_waiting = used < _BUSY * passed or self._taken == self._looked[2]
        if is_waiting and len(self._threads) + len(self._joined) < self._limit:
            self._start_thread(self._help, self._joined.add)
        self._look_later()

    def _start_thread(self, target: Callable[[], None], keep: Callable[[Thread], None]) -> None:
        number = len(self._threads) + len(self._joined)
        thread = Thread(target=target, name=f"{self._name}-{number}", daemon=True)
        keep(thread)
        thread.start()

    def _work(self) -> None:
        alarm = Lock()
        alarm.acquire()
        while (call := self._calls.wait(alarm)) is not None:
            self._answer(call)
            del call  # nothing is kept alive while the thread waits

    def _help(self) -> None:
        """Until no call waits. What tells a thread to end is left to those that wait for it."""
        try:
            while (call := self._calls.take()) is not None:
                self._answer(call)
            self._calls.put(None)
        except IndexError:
            pass
        self._joined.discard(current_thread())

    def _answer(self, call: _Call) -> None:
        self._taken += 1
        answer, function = call
        try:
            result = function()
        except BaseException:
            result = Failure()
        self._answers.append((answer, result))
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
