"""Work that goes better together: items of one key that come while it is at work are its next batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.threads import Threads

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class _Line(Generic[T, R]):
    """Who waits while a batch of the same key is at work, and the timer that sends them away."""

    waiting: deque[tuple[T, Deferred[R | None]]] = field(default_factory=deque)
    timer: Any = None

    def drop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Batches(Generic[T, R]):
    """One batch of each key at a time is at work, in a thread; order within a key is kept.

    `work` gives an answer for each item of a batch of at most `most`. Who waits longer than `patience`
    seconds is answered None: nothing was done. `reactor` is an IReactorTime. For the reactor's thread.
    """

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        work: Callable[[Sequence[T]], Sequence[R]],
        most: int,
        patience: float,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._work = work
        self._most = most
        self._patience = patience
        self._lines: dict[str, _Line[T, R]] = {}

    def run(self, key: str, item: T) -> Deferred[R | None]:
        """Fires with the answer for the item, or fails as the whole batch did."""
        answer: Deferred[R | None] = Deferred()
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = _Line()
            self._begin(key, [(item, answer)])
            return answer
        line.waiting.append((item, answer))
        if line.timer is None:
            line.timer = self._reactor.callLater(self._patience, self._send_away, line)
        return answer

    def _begin(self, key: str, batch: Sequence[tuple[T, Deferred[R | None]]]) -> None:
        done = self._threads.run(self._work, [item for item, _ in batch])
        done.addBoth(self._finished, key, [answer for _, answer in batch])

    def _finished(
        self, result: Sequence[R] | Failure, key: str, answers: Sequence[Deferred[R | None]]
    ) -> None:
        line = self._lines[key]
        line.drop_timer()
        if line.waiting:
            batch = [line.waiting.popleft() for _ in range(min(len(line.waiting), self._most))]
            if line.waiting:
                line.timer = self._reactor.callLater(self._patience, self._send_away, line)
            self._begin(key, batch)
        else:
            del self._lines[key]
        if isinstance(result, Failure):
            for answer in answers:
                answer.errback(result)
        else:
            for answer, each in zip(answers, result, strict=True):
                answer.callback(each)

    def _send_away(self, line: _Line[T, R]) -> None:
        line.timer = None
        waiting, line.waiting = line.waiting, deque()
        for _, answer in waiting:
            answer.callback(None)
