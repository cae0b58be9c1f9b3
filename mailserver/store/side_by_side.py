"""Threads that wait for the disk beside the caller's: many files are durable sooner than in turn.

Each fsync(2) waits for the file system's journal; the kernel joins those that wait at the same time, so
that twenty-five files of 4 KiB take a quarter of the time. The threads are started when first needed, and
end with the process. Not for a process that forks afterwards: its child has none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

Act = Callable[[], object]


class SideBySide:
    """At most `helpers` threads beside the caller's; none where that is 0. Safe to use from any thread."""

    def __init__(self, helpers: int) -> None:
        self._helpers = helpers
        self._pool = ThreadPoolExecutor(helpers, "sync") if helpers else None

    def do(self, acts: Sequence[Act]) -> None:
        """All acts are done. *Blocking.* Raises what one of them raised, once all that were begun have ended.

        Of those that stand behind one that raises, some may not have been begun.
        """
        if self._pool is None or len(acts) < 2:
            _do(acts)
            return
        shares = min(len(acts), self._helpers + 1)
        helping = [self._pool.submit(_do, acts[share::shares]) for share in range(1, shares)]
        try:
            _do(acts[::shares])
        finally:
            wait(helping)
        for each in helping:
            each.result()


def _do(acts: Sequence[Act]) -> None:
    for act in acts:
        act()
