"""The one door through which blocking work leaves the reactor.

fsync, lock waits, password hashes and large parses go through `Threads.run`; nothing else
may block for more than a millisecond or two. `Inline` does the work at once: it serves
single-threaded roles and tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Protocol):
    """Runs blocking functions somewhere that may block."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires with the function's result or exception. Order between two calls is not kept."""


class PooledThreads:
    """`Threads` on a thread pool, answering in the reactor's thread."""

    def __init__(self, reactor: Any, pool: ThreadPool) -> None:
        self._reactor = reactor
        self._pool = pool

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See `Threads.run`."""
        return deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)


class Inline:
    """`Threads` without a thread: the work is done before `run` returns."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See `Threads.run`."""
        return cast("Deferred[T]", defer.execute(function, *args, **kwargs))
