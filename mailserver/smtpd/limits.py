"""How much one client may do: connections at once, and events in a unit of time. anvil(8).

Counts are kept for addresses, those of IPv6 by their /64, and forgotten when they say nothing
any more, so that memory is bounded by what happens within one time unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


class ClientLimits:
    """The counters of all sessions that share them. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float], time_unit: float = 60.0) -> None:
        self._clock = clock
        self._time_unit = time_unit
        self._period = 0
        self._connected: Counter[str] = Counter()
        self._events: Counter[tuple[str, str]] = Counter()

    @property
    def connections(self) -> int:
        """Connections open now, of all clients."""
        return self._connected.total()

    def connected(self, address: str) -> int:
        """One more connection is open; how many this client has now."""
        key = _network(address)
        self._connected[key] += 1
        return self._connected[key]

    def disconnected(self, address: str) -> None:
        """One connection less is open."""
        key = _network(address)
        self._connected[key] -= 1
        if self._connected[key] <= 0:
            del self._connected[key]

    def count(self, event: str, address: str) -> int:
        """One more event of the kind happened; how many in this time unit."""
        period = int(self._clock() / self._time_unit)
        if period != self._period:
            self._period = period
            self._events.clear()
        key = (event, _network(address))
        self._events[key] += 1
        return self._events[key]


def _network(address: str) -> str:
    if ":" not in address:
        return address
    head, gap, _ = address.partition("::")
    groups = head.split(":")[:4]
    return ":".join(groups) + ("::" if gap and len(groups) < 4 else "")
