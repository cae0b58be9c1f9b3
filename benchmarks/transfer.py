"""SMTP workloads, and those that need more than one protocol at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks import messages
from benchmarks.measure import Sample, Workload, once
from benchmarks.processes import memory
from benchmarks.servers import Server

_IDLE_ACCOUNTS: Final = 50
_NOTICES: Final = 100


def _until_visible(connections: int, count: int, octets: int) -> Callable[[Server], Sample]:
    """Messages over so many connections, until all lie in the mailbox."""

    def run(server: Server) -> Sample:
        account = server.new_account()
        content = messages.of_size(octets)
        latencies: list[float] = []

        def talk(number: int) -> None:
            client = server.smtp()
            for _ in range(count // connections):
                latencies.append(client.send([f"{account}@example.org"], content))
            client.close()

        def act() -> int:
            with ThreadPoolExecutor(connections) as pool:
                list(pool.map(talk, range(connections)))
            server.wait_for(account, count)
            return count

        server.smtp().send([f"{server.new_account()}@example.org"], content)
        sample = once(server, act)
        sample.latencies = latencies
        return sample

    return run


def _notice(server: Server) -> Sample:
    """Milliseconds from the dot to EXISTS on an idle connection, median."""
    account = server.new_account(10)
    reader, writer = server.imap(account), server.smtp()
    reader.command("SELECT INBOX")
    reader.idle()
    latencies = []
    for number in range(_NOTICES):
        content = messages.of_size(4096, number)
        since_dot = writer.send([f"{account}@example.org"], content)
        dot = time.perf_counter() - since_dot
        while b"EXISTS" not in reader.line():
            pass
        latencies.append(time.perf_counter() - dot)
        time.sleep(0.02)
    sample = Sample(_NOTICES, latencies=latencies)
    sample.figure = sample.percentile(50)
    return sample


def _idle_memory(connections: int, is_tls: bool = False) -> Callable[[Server], Sample]:
    """KiB of memory (PSS) for each of many idle connections with an INBOX of 100 selected."""

    def run(server: Server) -> Sample:
        accounts = [server.new_account(100, is_mixed=False) for _ in range(_IDLE_ACCOUNTS)]
        for account in accounts:
            client = server.imap(account)
            client.command("SELECT INBOX")
            client.command("LOGOUT")
        time.sleep(1)
        before = memory(server.roots())
        clients = []
        try:
            for number in range(connections):
                client = server.imap(accounts[number % len(accounts)], is_tls)
                client.command("SELECT INBOX")
                client.idle()
                clients.append(client)
            time.sleep(1)
            used = memory(server.roots()) - before
        finally:
            for client in clients:
                client.close()
        return Sample(connections, figure=used / connections / 1024)

    return run


def _beside_a_long_fetch(server: Server) -> Sample:
    """Milliseconds of NOOP on one connection while another fetches 5,000 bodies, worst in a hundred."""
    account = server.new_account(5000)
    other = server.new_account(1)
    reader, client = server.imap(account), server.imap(other)
    for each in (reader, client):
        each.command("SELECT INBOX")
    latencies = []
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(reader.command, "FETCH 1:* (ENVELOPE BODYSTRUCTURE BODY.PEEK[])")
        while not fetching.done():
            began = time.perf_counter()
            client.command("NOOP")
            latencies.append(time.perf_counter() - began)
            time.sleep(0.002)
        fetching.result()
    sample = Sample(len(latencies), latencies=latencies)
    sample.figure = sample.percentile(99)
    return sample


WORKLOADS: Final = (
    Workload("smtp-1", "SMTP, 4 KiB, 1 connection, until visible", _until_visible(1, 1000, 4096), 2.0),
    Workload("smtp-10", "SMTP, 4 KiB, 10 connections", _until_visible(10, 1500, 4096), 2.0),
    Workload("smtp-50", "SMTP, 4 KiB, 50 connections", _until_visible(50, 1500, 4096), 2.0),
    Workload("smtp-large", "SMTP, 10 MiB", _until_visible(1, 15, 10_000_000), 2.0),
    Workload("notice", "dot to EXISTS, ms, p50", _notice, 0.01, smaller_is_better=True),
    Workload("noop-beside-fetch", "NOOP beside a long FETCH, ms, p99", _beside_a_long_fetch, 1.0, True),
    Workload(
        "idle-memory", "memory of one of 1,000 idle IMAP connections, KiB", _idle_memory(1000), 1 / 65, True
    ),
    Workload("idle-memory-5000", "the same of 5,000", _idle_memory(5000), 1 / 65, True),
    Workload("idle-memory-tls", "the same of 1,000 under TLS", _idle_memory(1000, True), 1.0, True),
)
