"""Plaintext that is to be taken for TLS's: RELIABILITY B2, T1, T2, on all three protocols."""

from __future__ import annotations

import pytest

from tests.end_to_end.server import Server
from tests.hostile.attacker import Attacker

# service: what opens TLS, what is injected, and a command whose answer is known.
CASES = {
    "smtp": (
        b"STARTTLS\r\n",
        b"MAIL FROM:<injected@evil.test>\r\n",
        b"RCPT TO:<alice@example.org>\r\n",
        b"503",
    ),
    "pop3": (b"STLS\r\n", b"CAPA\r\n", b"NOOP\r\n", b"-ERR"),
    "imap": (b"a STARTTLS\r\n", b"b CAPABILITY\r\n", b"c NOOP\r\n", b"c OK"),
}


def opened(server: Server, service: str) -> Attacker:
    """A connection that is ready for STARTTLS."""
    client = Attacker(server, service)
    if service == "smtp":
        client.ask(b"EHLO attacker.test")
    return client


@pytest.mark.parametrize("service", CASES)
def test_what_follows_in_the_same_segment_is_never_run_inside(server: Server, service: str) -> None:
    """The connection ends, or TLS starts as if nothing had been there."""
    begin, injected, known, answer = CASES[service]
    with opened(server, service) as client:
        client.send(begin + injected)
        client.line()
        try:
            client.start_tls()
        except OSError:
            return  # dropped: as good
        client.send(known)
        assert client.line()[: len(answer)] in (answer, b"")


@pytest.mark.parametrize("service", CASES)
def test_what_follows_in_a_second_segment_is_no_handshake(server: Server, service: str) -> None:
    """Clear text where a handshake is due ends the connection."""
    begin, injected, _, _ = CASES[service]
    with opened(server, service) as client:
        client.send(begin)
        client.line()
        client.send(injected)
        seen = client.rest()
    assert not any(word in seen for word in (b"Sender", b"250 ", b"+OK", b"CAPABILITY", b"b OK"))


@pytest.mark.parametrize("service", CASES)
def test_tls_begins_once(server: Server, service: str) -> None:
    """No STARTTLS inside TLS, and it is not offered there."""
    begin, _, _, _ = CASES[service]
    with opened(server, service) as client:
        client.send(begin)
        client.line()
        client.start_tls()
        if service == "smtp":
            client.ask(b"EHLO attacker.test")
        client.send(begin)
        assert client.line()[:3] in (b"503", b"554", b"502", b"-ER", b"a B", b"a N")


def test_a_transaction_of_before_is_forgotten(server: Server) -> None:
    """RFC 3207 §4.2: MAIL given in clear does not count inside."""
    with opened(server, "smtp") as client:
        client.ask(b"MAIL FROM:<injected@evil.test>")
        assert client.ask(b"STARTTLS").startswith(b"220")
        client.start_tls()
        assert client.ask(b"RCPT TO:<alice@example.org>").startswith(b"503")


@pytest.mark.parametrize("service", ["smtps", "pop3s", "imaps"])
def test_clear_text_on_a_tls_port_gets_nothing(server: Server, service: str) -> None:
    """No answer in clear."""
    name = {"smtps": "submissions"}.get(service, service)
    with Attacker(server, name) as client:
        client.send(b"EHLO a.test\r\n" * 3)
        assert b"250" not in client.rest()
