"""Workloads of many at once: mail to other hosts, aliases of thousands, readers beside writers, slow clients.

Other hosts are Debian's smtp-sink, whose processor time is not the servers'.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks import messages
from benchmarks.measure import Sample, Workload, once
from benchmarks.servers import ALIAS_MEMBERS, Server

_DEADLINE: Final = 120.0  # seconds
_READERS: Final = 20
_RATE: Final = 50  # messages a second
_SECONDS: Final = 8.0
_SLOW: Final = 2000


@contextlib.contextmanager
def _sink(server: Server) -> Iterator[None]:
    """Another host takes, within, whatever the server sends out."""
    program = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin")
    if program is None:
        raise FileNotFoundError("smtp-sink is not installed (Debian: postfix)")
    command = [program, "-u", "nobody", f"127.0.0.1:{server.ports['sink']}", "1000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _sent(server: Server) -> int:
    """Recipients that the log says were delivered."""
    return (server.directory / "mail.log").read_bytes().count(b" status=sent ")


def _until_sent(server: Server, count: int) -> None:
    end = time.monotonic() + _DEADLINE
    while (sent := _sent(server)) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{server.name}: {sent} of {count} recipients after {_DEADLINE:g} s")
        time.sleep(0.05)


def _relay(count: int) -> Callable[[Server], Sample]:
    """Messages to another host, until it has all of them."""

    def run(server: Server) -> Sample:
        content, before = messages.of_size(4096), _sent(server)

        def talk(number: int) -> None:
            client = server.smtp()
            for each in range(count // 10):
                client.send([f"user{number}-{each}@elsewhere.example"], content)
            client.close()

        def act() -> int:
            with ThreadPoolExecutor(10) as pool:
                list(pool.map(talk, range(10)))
            _until_sent(server, before + count)
            return count

        with _sink(server):
            return once(server, act)

    return run


def _alias(server: Server) -> Sample:
    """Seconds until one message to an alias has reached all its members elsewhere."""
    before = _sent(server)
    with _sink(server):
        client = server.smtp()
        began = time.perf_counter()
        client.send(["everybody@example.org"], messages.of_size(4096))
        _until_sent(server, before + ALIAS_MEMBERS)
        took = time.perf_counter() - began
    return Sample(ALIAS_MEMBERS, figure=took)


def _readers_beside_writers(server: Server) -> Sample:
    """Milliseconds of a reader's command (STATUS, FETCH, STORE) while mail pours in, worst in a hundred."""
    accounts = [server.new_account(20) for _ in range(_READERS)]
    latencies: list[float] = []
    is_over = threading.Event()

    def read(account: str) -> None:
        client = server.imap(account)
        client.command("SELECT INBOX")
        while not is_over.is_set():
            for command in ("NOOP", "FETCH 1:10 (FLAGS ENVELOPE)", "STORE 1 +FLAGS (\\Seen)"):
                began = time.perf_counter()
                client.command(command)
                latencies.append(time.perf_counter() - began)
            is_over.wait(0.1)
        client.close()

    def write() -> None:
        client, content = server.smtp(), messages.of_size(4096)
        began = time.perf_counter()
        for number in range(int(_SECONDS * _RATE)):
            time.sleep(max(0.0, began + number / _RATE - time.perf_counter()))
            client.send([f"{accounts[number % _READERS]}@example.org"], content)
        client.close()

    with ThreadPoolExecutor(_READERS) as pool:
        reading = [pool.submit(read, account) for account in accounts]
        try:
            write()
        finally:
            is_over.set()
        for each in reading:
            each.result()
    sample = Sample(len(latencies), latencies=latencies)
    sample.figure = sample.percentile(99)
    return sample


def _beside_slow_clients(server: Server) -> Sample:
    """How many times longer a transaction takes, worst in a hundred, while 2,000 clients dawdle."""
    account, content = server.new_account(), messages.of_size(4096)

    def worst(count: int) -> float:
        latencies = []
        for _ in range(count):
            began = time.perf_counter()
            client = server.smtp()
            client.send([f"{account}@example.org"], content)
            client.close()
            latencies.append(time.perf_counter() - began)
        return Sample(count, latencies=latencies).percentile(99) or 0.0

    alone = worst(200)
    slow: list[socket.socket] = []
    try:
        for _ in range(_SLOW):
            client = socket.create_connection(("127.0.0.1", server.ports["smtp"]), 10)
            client.settimeout(10)
            slow.append(client)
            client.sendall(b"E")
        return Sample(200, figure=worst(200) / alone)
    finally:
        for client in slow:
            client.close()


WORKLOADS: Final = (
    Workload("relay", "relaying 4 KiB to a sink", _relay(1000)),
    Workload("alias", f"an alias of {ALIAS_MEMBERS:,} addresses elsewhere, s", _alias, 1.0, True),
    Workload("readers", "20 readers beside 50 messages/s, ms, p99", _readers_beside_writers, 1.0, True),
    Workload(
        "slow-clients", "SMTP beside 2,000 slow clients, times as long, p99", _beside_slow_clients, 2.0, True
    ),
)
