"""Bounded concurrency for each key (an account, a next hop), and rest for next hops that are down."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred

from mailserver.envelope import Outcome


class Slots:
    """At most `limit` holders for each key, or `limit(key)`, served in order of arrival within the key.

    A limit of 0 is none.
    `try_take` may be called in any thread, everything else in the reactor's.
    """

    def __init__(self, limit: int | Callable[[str], int]) -> None:
        self._limit = limit if callable(limit) else lambda key: limit
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, deque[Deferred[None]]] = {}
        self._called: deque[Deferred[None]] = deque()
        self._guard = threading.Lock()

    def try_take(self, key: str) -> bool:
        """Whether a slot was free and is the caller's now. Never overtakes somebody who waits."""
        with self._guard:
            taken = self._taken.get(key, 0)
            if taken >= self._limit(key) > 0 or key in self._waiting:
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
        """The slot is free, or the next one's.

        A successor that gives its slot back at once, as all do at a stop, is not called from within
        this call's own: thousands in a row would be too deep.
        """
        successor = self._hand_over(key)
        if successor is None:
            return
        self._called.append(successor)
        if len(self._called) > 1:
            return  # the loop below, further up, comes to it
        while self._called:
            self._called[0].callback(None)
            self._called.popleft()

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


class Suspensions:
    """Next hops that could not be reached, left alone for a while.

    Thousands of messages for a dead host would otherwise each wait for its time-outs, and hold up
    others (P9). For the reactor's thread.
    """

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, Outcome]] = {}

    def suspend(self, key: str, outcome: Outcome, until: float) -> None:
        """Deliveries by that key are deferred until then, with that outcome as the reason."""
        text = f"delivery temporarily suspended: {outcome.text}"
        self._until[key] = (until, Outcome.deferred(text, outcome.dsn, "none"))

    def outcome(self, key: str, now: float) -> Outcome | None:
        """Why a delivery by that key is not to be tried now; None where it may be."""
        until, outcome = self._until.get(key, (0.0, None))
        if outcome is not None and now >= until:
            del self._until[key]
            return None
        return outcome

    def clear(self) -> None:
        """Everything may be tried at once (`postqueue -f`)."""
        self._until.clear()
