"""How much one client, or one user, may do: connections at once, and events in a unit of time. anvil(8).

Clients are counted by address, those of IPv6 by their /64, users by their login. Counts are forgotten when
they say nothing any more, so that memory is bounded by what happens within one time unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Events:
    """What happened in a period: its number, counted in time units since the clock's beginning."""

    period: int = -1
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def enter(self, period: int) -> None:
        """The counts are those of that period."""
        if period != self.period:
            self.period = period
            self.counts.clear()


class ClientLimits:
    """The counters of all sessions that share them. `clock` gives monotonic seconds, so do time units."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connected: Counter[str] = Counter()
        self.connections = 0  # open now, of all clients
        self._events: dict[float, _Events] = {}

    def connected(self, address: str) -> int:
        """One more connection is open; how many this client has now."""
        key = _network(address)
        self._connected[key] += 1
        self.connections += 1
        return self._connected[key]

    def disconnected(self, address: str) -> None:
        """One connection less is open."""
        key = _network(address)
        self._connected[key] -= 1
        self.connections -= 1
        if self._connected[key] <= 0:
            del self._connected[key]

    def count(self, event: str, address: str, time_unit: float) -> int:
        """One more event of the kind happened; how many of this client in this time unit."""
        return self._count((event, _network(address)), time_unit)

    def count_user(self, event: str, login: str, time_unit: float) -> int:
        """The same for a user, wherever the user is."""
        return self._count((f"user {event}", login), time_unit)

    def _count(self, key: tuple[str, str], time_unit: float) -> int:
        events = self._in(time_unit)
        events.counts[key] += 1
        return events.counts[key]

    def _in(self, time_unit: float) -> _Events:
        events = self._events.setdefault(time_unit, _Events())
        events.enter(int(self._clock() / time_unit))
        return events

    def exported(self) -> list[Any]:
        """The counts of events as JSON values, for a successor that has the same clock."""
        return [
            [unit, events.period, [[*key, count] for key, count in events.counts.items()]]
            for unit, events in self._events.items()
        ]

    def adopt(self, exported: Iterable[Any]) -> None:
        """What a predecessor counted in time units that go on counts here too."""
        for unit, period, counts in exported:
            events = self._in(float(unit))
            if period == events.period:
                events.counts.update({(str(event), str(who)): int(count) for event, who, count in counts})


def _network(address: str) -> str:
    if ":" not in address:
        return address
    head, gap, _ = address.partition("::")
    groups = head.split(":")[:4]
    return ":".join(groups) + ("::" if gap and len(groups) < 4 else "")
