"""Bounded concurrency for each key: an account, a destination."""

from __future__ import annotations

import threading
from collections import deque

from twisted.internet.defer import Deferred


class Slots:
    """At most `limit` holders for each key, served in order of arrival within the key.

    `try_take` may be called in any thread, everything else in the reactor's.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, deque[Deferred[None]]] = {}
        self._guard = threading.Lock()

    def try_take(self, key: str) -> bool:
        """Whether a slot was free and is the caller's now. Never overtakes somebody who waits."""
        with self._guard:
            taken = self._taken.get(key, 0)
            if taken >= self._limit or key in self._waiting:
                return False
            self._taken[key] = taken + 1
            return True

    def take(self, key: str) -> Deferred[None]:
        """Fires when a slot is the caller's."""
        waiting: Deferred[None] = Deferred()
        if self.try_take(key):
            waiting.callback(None)
            return waiting
        with self._guard:
            self._waiting.setdefault(key, deque()).append(waiting)
        return waiting

    def release(self, key: str) -> None:
        """The slot is free, or the next one's."""
        successor = self._hand_over(key)
        if successor is not None:
            successor.callback(None)

    def _hand_over(self, key: str) -> Deferred[None] | None:
        with self._guard:
            waiting = self._waiting.get(key)
            if waiting:
                successor = waiting.popleft()
                if not waiting:
                    del self._waiting[key]
                return successor
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
            return None
