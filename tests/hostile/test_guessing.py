"""Passwords guessed: RELIABILITY B14, B20, B21, B23."""

from __future__ import annotations

import base64
import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial

from tests.end_to_end.server import Server
from tests.hostile.attacker import Attacker


def imap_login(server: Server, address: str, name: str, password: str) -> bytes:
    """The answer to LOGIN."""
    with Attacker(server, "imap", address) as client:
        return client.tagged(f'LOGIN "{name}" "{password}"'.encode())


def pop3_login(server: Server, address: str, name: str, password: str) -> bytes:
    """The answer to USER and PASS."""
    with Attacker(server, "pop3", address) as client:
        client.send(f"USER {name}\r\n".encode())
        client.line()
        client.send(f"PASS {password}\r\n".encode())
        return client.line()


def smtp_login(server: Server, address: str, name: str, password: str) -> bytes:
    """The answer to AUTH PLAIN."""
    with Attacker(server, "smtp", address) as client:
        client.ask(b"EHLO attacker.test")
        return client.ask(b"AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()))


LOGINS = {"imap": imap_login, "pop3": pop3_login, "smtp": smtp_login}


def at_once(*calls: Callable[[], bytes]) -> list[bytes]:
    """The answers to all, asked in parallel."""
    answers: list[bytes] = [b""] * len(calls)

    def run(number: int) -> None:
        answers[number] = calls[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_unknown_and_wrong_are_answered_alike(server: Server) -> None:
    """B14: byte for byte, on every service, for names that exist, do not, and cannot."""
    names = ["alice", "nosuchuser", "../alice", "alice@elsewhere.test", "a%b", "root", "ALICE", "alice "]
    cases = list(itertools.product(LOGINS, names))
    calls = [
        partial(LOGINS[service], server, f"127.0.20.{n + 1}", name, "wrong")
        for n, (service, name) in enumerate(cases)
    ]
    answers: dict[str, set[bytes]] = {}
    for (service, _), answer in zip(cases, at_once(*calls), strict=True):
        answers.setdefault(service, set()).add(answer)
    assert {service: len(found) for service, found in answers.items()} == dict.fromkeys(LOGINS, 1), answers


def test_unknown_and_wrong_take_as_long(server: Server) -> None:
    """B14: the medians of the time behind the delay are within a factor of each other.

    Each attempt comes from a place of its own, so that each is held back by the same first delay.
    """
    times: dict[str, list[float]] = {"alice": [], "nosuchuser": []}

    def measure(name: str, address: str) -> bytes:
        begin = time.perf_counter()
        answer = imap_login(server, address, name, "wrong")
        times[name].append(time.perf_counter() - begin)
        return answer

    places = iter(f"127.0.30.{n + 1}" for n in range(100))
    at_once(*(partial(measure, name, next(places)) for _ in range(9) for name in times))
    known, unknown = (statistics.median(found) for found in times.values())
    assert 0.6 < known / unknown < 1.6, (known, unknown)


def test_guesses_from_one_place_wait_longer_and_longer(server: Server) -> None:
    """B20: the third different guess takes at least twice the first; a known place is not slowed."""
    assert imap_login(server, "127.0.0.1", "bob", server.passwords["bob"]).startswith(b"t OK")
    waits = []
    for guess in ("one", "two"):
        begin = time.monotonic()
        assert imap_login(server, "127.0.40.1", "bob", guess).startswith(b"t NO")
        waits.append(time.monotonic() - begin)
    assert waits[0] >= 2.0
    assert waits[1] >= 2 * 2.0
    begin = time.monotonic()
    assert imap_login(server, "127.0.0.1", "bob", server.passwords["bob"]).startswith(b"t OK")
    assert time.monotonic() - begin < waits[0]


def guess_on(server: Server, service: str, address: str) -> bytes:
    """How many guesses one connection gets answered, in digits."""
    commands = {
        "imap": b"t LOGIN bob wrong",
        "pop3": b"USER bob\r\nPASS wrong",
        "smtp": b"AUTH PLAIN " + base64.b64encode(b"\0bob\0wrong"),
    }
    with Attacker(server, service, address) as client:
        if service == "smtp":
            client.ask(b"EHLO attacker.test")
        tries = 0
        with contextlib.suppress(ConnectionError):
            while not client.has_ended and tries < 25:
                client.send(commands[service] + b"\r\n")
                for _ in range(commands[service].count(b"\r\n") + 1):
                    client.line()
                tries += not client.has_ended
        return b"%d" % tries


def test_a_connection_has_few_guesses(server: Server) -> None:
    """B20: the connection ends after a few failures, on every service."""
    calls = [partial(guess_on, server, name, f"127.0.50.{n + 1}") for n, name in enumerate(LOGINS)]
    assert all(int(tries) <= 4 for tries in at_once(*calls))
