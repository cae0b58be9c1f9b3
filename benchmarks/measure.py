"""How a workload is measured: operations per second of the server's processor time, and latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import quantiles

from benchmarks.processes import processor_seconds
from benchmarks.servers import Server

ENOUGH = 0.6  # seconds of processor time after which a figure is good to two digits
LONGEST = 8.0  # seconds that the repetitions of one workload may take
_SETTLE = 0.05  # seconds in which a server ends what it began
_IDLE = 0.02  # seconds of processor time in half a second that count as none
_LONGEST_REST = 60.0  # seconds


@dataclass
class Sample:
    """What one server did. `figure` replaces operations per second where those are not the point."""

    operations: int = 0
    processor: float = 0.0
    latencies: list[float] = field(default_factory=list)
    figure: float | None = None

    @property
    def rate(self) -> float:
        """The figure, or operations per second of processor time."""
        if self.figure is not None:
            return self.figure
        return self.operations / max(self.processor, 0.01)

    def percentile(self, percent: int) -> float | None:
        """Latency in milliseconds; None where none was measured."""
        if len(self.latencies) < 2:
            return None
        return quantiles(self.latencies, n=100)[percent - 1] * 1000


@dataclass(frozen=True)
class Workload:
    """One row of the table. `factor` is what we owe to the peers; `smaller_is_better` for memory and time."""

    name: str
    title: str
    run: Callable[[Server], Sample]
    factor: float = 1.0
    smaller_is_better: bool = False


def rest(server: Server) -> None:
    """Returns once the server has done what it put off (an index that is built behind the answer)."""
    end, spent = time.perf_counter() + _LONGEST_REST, -1.0
    while (now := processor_seconds(server.roots())) > spent and time.perf_counter() < end:
        spent = now + _IDLE
        time.sleep(0.5)


def once(server: Server, act: Callable[[], int]) -> Sample:
    """What `act`, which says how many operations it was, costs the server."""
    before = processor_seconds(server.roots())
    operations = act()
    time.sleep(_SETTLE)
    return Sample(operations, processor_seconds(server.roots()) - before)


def repeated(server: Server, act: Callable[[], int], at_most: int = 1_000_000) -> Sample:
    """As `once`, as often as a good figure needs, with the latency of each."""
    latencies: list[float] = []

    def many() -> int:
        operations, began = 0, time.perf_counter()
        before = processor_seconds(server.roots())
        while len(latencies) < at_most and time.perf_counter() - began < LONGEST:
            start = time.perf_counter()
            operations += act()
            latencies.append(time.perf_counter() - start)
            if processor_seconds(server.roots()) - before >= ENOUGH:
                break
        return operations

    sample = once(server, many)
    sample.latencies = latencies
    return sample
