"""Who wants to be told when something changes."""

from __future__ import annotations

import threading
from collections.abc import Callable

Listener = Callable[[], None]


class Listeners:
    """Functions that are called at each `tell`. Safe to use from any thread; nobody waits for a listener."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # apart: the reactor's thread must not wait for a mailbox's
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """It is told from now on."""
        with self._lock:
            self._listeners = [*self._listeners, listener]

    def remove(self, listener: Listener) -> None:
        """It is not told any more."""
        with self._lock:
            self._listeners = [other for other in self._listeners if other != listener]

    def tell(self) -> None:
        """All are called."""
        for listener in self._listeners:
            listener()
