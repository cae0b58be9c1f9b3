"""How cost grows with the size of the mailbox: large mailboxes, warm and cold, and slopes.

A slope is that of the line through the logarithms of size and time: 1 where twice the messages take twice
the time, 0 where their number does not matter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import linear_regression, median
from typing import Final

from benchmarks import messages
from benchmarks.clients import ImapClient
from benchmarks.measure import Sample, Workload, repeated
from benchmarks.processes import processor_seconds
from benchmarks.servers import Server

SIZES: Final = (1_000, 10_000, 100_000)
_ENVELOPES: Final = "FETCH 1:* (FLAGS UID RFC822.SIZE INTERNALDATE ENVELOPE)"
_DELIVERIES: Final = 100
_accounts: dict[tuple[str, str, int], str] = {}


def _account(server: Server, size: int) -> str:
    """The account with so many messages, which the server has seen."""
    key = server.name, server.directory.name, size
    if key not in _accounts:
        _accounts[key] = server.new_account(size, is_mixed=False)
        client = server.imap(_accounts[key])
        client.command("SELECT INBOX")
        client.command("FETCH 1:* (UID FLAGS RFC822.SIZE)")
        client.command("LOGOUT")
    return _accounts[key]


def _selected(server: Server, size: int) -> ImapClient:
    client = server.imap(_account(server, size))
    client.command("SELECT INBOX")
    return client


def _select(size: int) -> Callable[[Server], Sample]:
    """SELECT and UNSELECT, again and again."""

    def run(server: Server) -> Sample:
        client = server.imap(_account(server, size))

        def act() -> int:
            client.command("SELECT INBOX")
            client.command("UNSELECT")
            return 1

        act()
        return repeated(server, act)

    return run


def _cold(size: int) -> Callable[[Server], Sample]:
    """Milliseconds of the first SELECT after the server was started."""

    def run(server: Server) -> Sample:
        account, latencies = _account(server, size), []
        for _ in range(3):
            server.stop()
            server.start()
            client = server.imap(account)
            began = time.perf_counter()
            client.command("SELECT INBOX")
            latencies.append(time.perf_counter() - began)
            client.command("LOGOUT")
        return Sample(3, latencies=latencies, figure=1000 * median(latencies))

    return run


def _fetch(command: str, size: int) -> Callable[[Server], Sample]:
    def run(server: Server) -> Sample:
        client = _selected(server, size)
        client.command(command)

        def act() -> int:
            client.command(command)
            return size

        return repeated(server, act)

    return run


def slope(sizes: Sequence[int], times: Sequence[float]) -> float:
    """The slope of the line through the logarithms of both."""
    return linear_regression([math.log(size) for size in sizes], [math.log(each) for each in times]).slope


def _growth(workload: Callable[[int], Callable[[Server], Sample]]) -> Callable[[Server], Sample]:
    """The slope of the processor time of one repetition; of the latency where that was measured alone."""

    def run(server: Server) -> Sample:
        samples = [workload(size)(server) for size in SIZES]
        times = [each.processor / len(each.latencies) or median(each.latencies) for each in samples]
        return Sample(sum(sample.operations for sample in samples), figure=slope(SIZES, times))

    return run


def _deliveries(server: Server) -> Sample:
    """The slope of the processor time of a message that comes by SMTP."""
    times = []
    for size in SIZES:
        account, client = _account(server, size), server.smtp()
        there = server.arrived(account)
        before = processor_seconds(server.roots())
        for number in range(_DELIVERIES):
            client.send([f"{account}@example.org"], messages.of_size(4096, number))
        server.wait_for(account, there + _DELIVERIES)
        time.sleep(0.5)
        times.append(processor_seconds(server.roots()) - before)
        client.close()
    return Sample(len(SIZES) * _DELIVERIES, figure=slope(SIZES, times))


_LARGEST: Final = SIZES[-1]
WORKLOADS: Final = (
    Workload("select-large", "SELECT of 100,000 messages", _select(_LARGEST), 2.0),
    Workload("cold", "first SELECT after a start, 10,000 messages, ms", _cold(10_000), 1.0, True),
    Workload("cold-large", "first SELECT after a start, 100,000 messages, ms", _cold(_LARGEST), 1.0, True),
    Workload(
        "fetch-flags-large",
        "FETCH (UID FLAGS) of 100,000 messages",
        _fetch("FETCH 1:* (UID FLAGS)", _LARGEST),
    ),
    Workload("search-large", "SEARCH by flags in 100,000", _fetch("SEARCH SEEN FLAGGED", _LARGEST)),
    Workload("growth-select", "SELECT against size, slope", _growth(_select), 1.0, True),
    Workload("growth-cold", "first SELECT after a start against size, slope", _growth(_cold), 1.0, True),
    Workload(
        "growth-envelope",
        "FETCH ENVELOPE against size, slope",
        _growth(lambda size: _fetch(_ENVELOPES, size)),
        1.0,
        True,
    ),
    Workload("growth-delivery", "delivery by SMTP against size, slope", _deliveries, 1.0, True),
)
