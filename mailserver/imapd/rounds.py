"""Looking after many things every few seconds, by one timer for all of them.

A timer of its own for each idling session would be among the largest parts of what the session takes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol


class Looking(Protocol):
    """What is called."""

    def look(self) -> None:
        """It is time."""


class Rounds:
    """Each member is called every `interval` seconds from when it joined. `clock` is an IReactorTime."""

    __slots__ = ("_clock", "_due", "_interval", "_timer")

    def __init__(self, clock: Any, interval: float) -> None:
        self._clock = clock
        self._interval = interval
        self._due: OrderedDict[Looking, float] = OrderedDict()  # the first one is due first
        self._timer: Any = None

    def join(self, member: Looking) -> None:
        """The member is called until it leaves."""
        self._due[member] = self._clock.seconds() + self._interval
        if self._timer is None:
            self._wait()

    def leave(self, member: Looking) -> None:
        """It is not called any more."""
        self._due.pop(member, None)
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        first = next(iter(self._due.values()))
        self._timer = self._clock.callLater(max(0.0, first - self._clock.seconds()), self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        try:
            while self._due and (first := next(iter(self._due.items())))[1] <= now:
                self._due.move_to_end(first[0])
                self._due[first[0]] = now + self._interval
                first[0].look()
        finally:
            if self._due and self._timer is None:
                self._wait()
