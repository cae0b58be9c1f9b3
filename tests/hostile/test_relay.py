"""The list of relay probes: RELIABILITY §9, B10. Everything a stranger sends elsewhere is refused."""

from __future__ import annotations

import pytest

from tests.end_to_end.server import Server
from tests.hostile.attacker import Attacker

HOST = "mail.example.org"
PROBES = [
    "nobody@other.test",
    '"nobody@other.test"',
    '"nobody%other.test"',
    "nobody%other.test",
    f"nobody%other.test@{HOST}",
    f'"nobody%other.test"@{HOST}',
    f'"nobody@other.test"@{HOST}',
    f"@{HOST}:nobody@other.test",
    "@[127.0.0.1]:nobody@other.test",
    "other.test!nobody",
    f"other.test!nobody@{HOST}",
    "other.test!nobody@[127.0.0.1]",
    f"nobody@other.test@{HOST}",
    "nobody%other.test@[127.0.0.1]",
    "nobody%other.test@localhost",
    "alice@[192.0.2.1]",
    "nobody@other.test.",
    "nobody@OTHER.TEST",
    f"nobody@{HOST}.other.test",
    "nobody@sub.other.test",
]
SENDERS = ["", "spam", f"spam@{HOST}", "spam@localhost", "spam@[127.0.0.1]", "alice@example.org"]
WELCOME = [
    "postmaster",
    "ALICE@EXAMPLE.ORG",
    "alice@example.org.",
    '"alice"@example.org',
    "alice+x@example.org",
    "@a.test,@b.test:alice@example.org",
]
MALFORMED = [b"<alice@>", b"<alice@example.org", b"<alice@example..org>", b"<ali\0ce@example.org>", b"<@>"]


def rcpt(server: Server, recipient: bytes, sender: str = "x@example.net") -> bytes:
    """The reply to RCPT in a transaction of its own."""
    with Attacker(server, "smtp") as client:
        client.ask(b"EHLO attacker.test")
        assert client.ask(f"MAIL FROM:<{sender}>".encode()).startswith(b"250")
        return client.ask(b"RCPT TO:" + recipient)


@pytest.mark.parametrize("recipient", PROBES)
def test_no_way_round_leads_elsewhere(server: Server, recipient: str) -> None:
    """Refused for good, before any content."""
    assert rcpt(server, f"<{recipient}>".encode())[:3] in (b"554", b"550", b"501")


@pytest.mark.parametrize("sender", SENDERS)
def test_no_sender_makes_a_friend(server: Server, sender: str) -> None:
    """What a stranger claims to be decides nothing."""
    assert rcpt(server, b"<nobody@other.test>", sender).startswith(b"554 5.7.1")


@pytest.mark.parametrize("recipient", WELCOME)
def test_our_own_addresses_are_accepted(server: Server, recipient: str) -> None:
    """However they are spelled."""
    assert rcpt(server, f"<{recipient}>".encode()).startswith(b"250 2.1.5")


@pytest.mark.parametrize("recipient", MALFORMED)
def test_malformed_addresses_are_refused(server: Server, recipient: bytes) -> None:
    """A syntax error, and the session goes on."""
    assert rcpt(server, recipient)[:3] in (b"501", b"500")


def test_submission_without_a_login_sends_nothing(server: Server) -> None:
    """Port 587 is for who logged in, under TLS."""
    with Attacker(server, "submission") as client:
        client.ask(b"EHLO attacker.test")
        assert client.ask(b"MAIL FROM:<x@example.net>").startswith(b"530")


@pytest.mark.parametrize("command", [b"ETRN example.org", b"XCLIENT ADDR=127.0.0.1", b"TURN", b"EXPN staff"])
def test_what_is_for_others_is_off(server: Server, command: bytes) -> None:
    """B31, B14."""
    with Attacker(server, "smtp") as client:
        client.ask(b"EHLO attacker.test")
        assert client.ask(command)[:1] == b"5"
