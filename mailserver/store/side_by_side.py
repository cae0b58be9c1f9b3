"""Threads that wait for the disk beside the caller's: many files are durable sooner than in turn.

Each fsync(2) waits for the file system's journal; the kernel joins those that wait at the same time, so
that twenty-five files of 4 KiB take a quarter of the time. The threads are started when first needed, and
end with the process; where none is to be had the caller's does everything. Not for a process that forks
afterwards: its child has none of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

Act = Callable[[], object]


class SideBySide:
    """At most `helpers` threads beside the caller's; none where that is 0. Safe to use from any thread."""

    def __init__(self, helpers: int) -> None:
        self._helpers = helpers
        self._pool = ThreadPoolExecutor(helpers, "sync") if helpers else None

    def do(self, acts: Sequence[Act]) -> None:
        """All acts are done. *Blocking.* Raises what the first that failed raised, once none is under way.

        Some of the others may not have been begun then.
        """
        work = _Work(acts)
        if self._pool is not None:
            try:
                for _ in range(min(len(acts) - 1, self._helpers)):
                    self._pool.submit(work.help)
            except RuntimeError:  # no more threads: whoever comes to it late finds nothing left
                pass
        work.help()
        work.wait()


class _Work:
    """Acts that several threads take in turn; a thread that comes when none is left does nothing."""

    def __init__(self, acts: Sequence[Act]) -> None:
        self._left = deque(acts)
        self._under_way = 0
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def help(self) -> None:
        """No act is left that nobody has begun."""
        while (act := self._next()) is not None:
            failure: BaseException | None = None
            try:
                act()
            except BaseException as error:
                failure = error
            self._ended(failure)

    def _next(self) -> Act | None:
        with self._changed:
            if not self._left:
                return None
            self._under_way += 1
            return self._left.popleft()

    def _ended(self, failure: BaseException | None) -> None:
        with self._changed:
            self._under_way -= 1
            if failure is not None:
                self._left.clear()
                self._failure = self._failure or failure
            self._changed.notify_all()

    def wait(self) -> None:
        """No act is under way. Raises what one of them raised."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)
        if self._failure is not None:
            raise self._failure
