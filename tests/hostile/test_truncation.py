"""TLS that ends within content, with close_notify or without: RELIABILITY B3, Exim CVE-2026-45185.

What had come so far is never delivered nor appended, and what follows in clear is never looked at.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.server import Server, wait_for
from tests.hostile.attacker import Attacker, logged_in

ENVELOPE = (b"EHLO attacker.test", b"MAIL FROM:<x@example.net>", b"RCPT TO:<bob@example.org>")


def cut(client: Attacker) -> None:
    """The connection's write side ends as if somebody between had cut it: no close_notify."""
    raw = socket.socket(fileno=client.socket.detach())
    raw.shutdown(socket.SHUT_WR)
    raw.settimeout(60)
    try:
        while raw.recv(65_536):
            pass
    except OSError:
        pass
    raw.close()


def close_and_go_on(client: Attacker) -> None:
    """close_notify, and then the rest of the content in clear."""
    tls = client.socket
    assert isinstance(tls, ssl.SSLSocket)
    raw = tls
    try:
        raw = tls.unwrap()  # type: ignore[assignment]
        raw.sendall(b"x\r\n.\r\nQUIT\r\n" + b"x" * 4096)
        while raw.recv(65_536):
            pass
    except (OSError, ValueError):
        pass
    raw.close()


ENDS: dict[str, Callable[[Attacker], None]] = {"cut": cut, "close_notify": close_and_go_on}


def smtp(server: Server, *content: bytes) -> Attacker:
    """A message for bob under way over STARTTLS; nothing of it is answered after the content."""
    client = Attacker(server, "smtp")
    client.ask(ENVELOPE[0])
    assert client.ask(b"STARTTLS").startswith(b"220")
    client.start_tls()
    for line in ENVELOPE:
        assert client.ask(line).startswith(b"250")
    for piece in content[:-1]:
        assert client.ask(piece).startswith((b"354", b"250"))
    client.send(content[-1])
    return client


CASES = {
    "DATA": (b"DATA", b"Subject: cut\r\n\r\ntruncated-mail\r\n"),
    "DATA within the end": (b"DATA", b"Subject: cut\r\n\r\ntruncated-mail\r\n."),
    "DATA before the last octet": (b"DATA", b"Subject: cut\r\n\r\ntruncated-mail\r\n.\r"),
    "BDAT": (b"BDAT 400 LAST\r\nSubject: cut\r\n\r\ntruncated-mail\r\n",),
    "BDAT between chunks": (
        b"BDAT 31\r\nSubject: cut\r\n\r\ntruncated-mail",
        b"BDAT 3 LAST\r\n\r\n",
    ),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("case", CASES)
def test_half_a_message_is_none(server: Server, case: str, end: str) -> None:
    """Neither a message nor a queue file comes of it."""
    with smtp(server, *CASES[case]) as client:
        ENDS[end](client)
    deliver_another(server)
    assert b"truncated-mail" not in server.inbox("bob").read_bytes()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("literal", [b"{400}", b"{400+}"])
def test_half_a_literal_is_not_appended(server: Server, literal: bytes, end: str) -> None:
    """APPEND wants all its octets, whoever ends TLS."""
    client = Attacker(server, "imaps", "127.0.0.1")
    client.start_tls()
    client.line()
    assert client.tagged(f'LOGIN alice "{server.passwords["alice"]}"'.encode()).startswith(b"t OK")
    client.send(b"a APPEND INBOX " + literal + b"\r\n")
    if not literal.endswith(b"+}"):
        assert client.line().startswith(b"+ ")
    client.send(b"Subject: cut\r\n\r\ntruncated-mail\r\n")
    ENDS[end](client)
    with logged_in(server) as other:
        assert other.tagged(b"EXAMINE INBOX").startswith(b"t OK")
        other.send(b"t SEARCH BODY truncated-mail\r\n")
        assert other.line() == b"* SEARCH"


def deliver_another(server: Server) -> None:
    """A whole message behind the cut one: the server has seen the end of the other connection by then."""
    with smtp(server, b"DATA", b"Subject: whole\r\n\r\nwhole\r\n.\r\n") as client:
        assert client.reply().startswith(b"250")
    wait_for(lambda: server.inbox("bob").exists() and not queued(server), "the whole one in the mailbox")


def queued(server: Server) -> list[Path]:
    """The files of messages that wait."""
    queue = server.directory / "queue"
    return [path for name in ("incoming", "deferred") for path in (queue / name).rglob("*") if path.is_file()]
