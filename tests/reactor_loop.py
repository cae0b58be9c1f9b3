"""A reactor of the test's own, turned by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

_TURN = 0.05  # seconds


class Loop:
    """See the module."""

    def __init__(self) -> None:
        self.reactor = EPollReactor()
        self.reactor.startRunning(installSignalHandlers=False)

    def until(self, holds: Callable[[], object], seconds: float = 30) -> bool:
        """Whether the condition came to hold in time."""
        deadline = self.reactor.seconds() + seconds
        while not holds() and self.reactor.seconds() < deadline:
            self.reactor.iterate(_TURN)
        return bool(holds())

    def result(self, answer: Deferred[object]) -> object:
        """What the Deferred fires with; an exception is raised."""
        results: list[object] = []
        answer.addBoth(results.append)
        assert self.until(lambda: bool(results))
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]


@contextmanager
def own_loop() -> Iterator[Loop]:
    """A loop whose descriptors are closed at the end."""
    loop = Loop()
    try:
        yield loop
    finally:
        loop.reactor.removeAll()
        for descriptor in (loop.reactor._poller, loop.reactor.waker):
            getattr(descriptor, "close", lambda: None)()
