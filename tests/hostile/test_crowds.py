"""Many clients at once: RELIABILITY F42, B16. Slow ones starve nobody, and each costs little memory."""

from __future__ import annotations

import contextlib
import resource
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import Server
from tests.end_to_end.test_exchange import untrusting
from tests.hostile.attacker import Attacker

SLOW = 500
MANY = 1000


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """This process may have enough connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(server: Server) -> int:
    """Octets of memory that the server has in use."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def crowd(stack: contextlib.ExitStack, server: Server, service: str, count: int) -> list[Attacker]:
    """So many connections, 40 of each address."""
    return [
        stack.enter_context(Attacker(server, service, f"127.0.{100 + number // 40}.1"))
        for number in range(count)
    ]


def test_slow_clients_starve_nobody(server: Server) -> None:
    """500 that say a letter now and then, and a good one that is served whole in between."""
    with contextlib.ExitStack() as stack:
        slow = crowd(stack, server, "smtp", SLOW)
        for letter in b"EHLO":
            for client in slow:
                client.send(bytes([letter]))
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=20) as good:
                good.sendmail("x@example.net", ["alice@example.org"], b"Subject: quick\r\n\r\nhi\r\n")
        for client in slow:
            client.send(b" a.test\r\n")
        assert {client.reply()[:3] for client in slow} == {b"250"}


@pytest.mark.parametrize("service", ["imap", "smtp", "pop3"])
def test_a_thousand_connections_take_less_than_a_megabyte_each(server: Server, service: str) -> None:
    """B16, each with a command begun; RSS growth is bounded far below the rule."""
    before = resident(server)
    with contextlib.ExitStack() as stack:
        for client in crowd(stack, server, service, MANY):
            client.send(b"a" * 1500)
        with Attacker(server, service, "127.0.0.1") as good:
            assert good.greeting
        grown = resident(server) - before
    assert grown / MANY < 128 * 1024


def test_a_thousand_idle_tls_connections_take_little(server: Server) -> None:
    """SSL_MODE_RELEASE_BUFFERS: RELIABILITY §11, TWISTED.md's 28 KiB."""
    before = resident(server)
    context = untrusting()
    with contextlib.ExitStack() as stack:
        for client in crowd(stack, server, "imaps", MANY):
            client.socket = stack.enter_context(tls(context, client))
            assert client.line().startswith(b"* OK")
        grown = resident(server) - before
    assert grown / MANY < 128 * 1024


def tls(context: ssl.SSLContext, client: Attacker) -> ssl.SSLSocket:
    """The connection after its handshake."""
    return context.wrap_socket(client.socket)
