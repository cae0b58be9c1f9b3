"""The list of relay probes: RELIABILITY §9, B10. Everything a stranger sends elsewhere is refused.

Line by line, §9 is:

    recipients that must be refused      PROBES, test_no_way_round_leads_elsewhere
    senders that must not help           SENDERS, test_no_sender_makes_a_friend
    recipients that must be accepted     WELCOME, test_our_own_addresses_are_accepted
    501 for what is no address           MALFORMED, test_malformed_addresses_are_refused
    percent and bang: local at most      LOCAL_AT_MOST, test_percent_and_bang_stay_here
"""

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
LOCAL_AT_MOST = ["alice%example.org", f"alice%{HOST}@{HOST}", "example.org!alice", f"{HOST}!alice@{HOST}"]
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


@pytest.mark.parametrize("recipient", LOCAL_AT_MOST)
def test_percent_and_bang_stay_here(server: Server, recipient: str) -> None:
    """A way round to our own user may be taken or refused; the same way to anybody else is refused."""
    assert rcpt(server, f"<{recipient}>".encode())[:3] in (b"250", b"554", b"550", b"501")
    away = recipient.replace("example.org", "other.test").replace("mail.other.test", "mx.other.test")
    assert rcpt(server, f"<{away}>".encode())[:3] in (b"554", b"550", b"501")


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
