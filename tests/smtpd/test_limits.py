"""What bounds a client: errors, junk, recipients, connections, rates, time. RELIABILITY §10, F42, F50."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.smtpd.limits import ClientLimits
from mailserver.smtpd.settings import SmtpdSettings
from mailserver.tables.lists import Item, StringList, read_items
from mailserver.tables.open import TableOpener
from tests.smtpd.harness import NEIGHBOUR, STRANGER, House

UNKNOWN = "500 5.5.2 Error: command not recognized\n"
ENOUGH = "421 4.7.0 mx.example.org Error: too many errors\n"


def test_too_many_errors(tmp_path: Path) -> None:
    """After ten errors each costs a second, after twenty the connection ends."""
    house = House(tmp_path)
    client = house.connect()
    said = client.say(*["BOGUS"] * 30)
    assert said == UNKNOWN * 11
    for _ in range(8):
        house.clock.advance(0.9)
        assert client.take() == ""
        house.clock.advance(0.1)
        assert client.take().replace("\r\n", "\n") == UNKNOWN
    house.clock.advance(1)
    assert client.take().replace("\r\n", "\n") == UNKNOWN + ENOUGH
    assert client.is_closed
    assert house.log.lines[-1] == ("smtpd", "too many errors after UNKNOWN from unknown[192.0.2.7]")


def test_an_accepted_message_forgives(tmp_path: Path) -> None:
    """Postfix forgets the errors before a message."""
    house = House(tmp_path)
    client = house.connect()
    for _ in range(4):
        client.say(*["BOGUS"] * 9)
        client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<alice@example.org>", "DATA")
        assert "queued as" in client.say("x", ".")


def test_junk_commands(tmp_path: Path) -> None:
    """A hundred NOOPs are free, then each counts as an error."""
    house = House(tmp_path, soft_error_limit=1000)
    client = house.connect()
    said = client.say(*["NOOP"] * 200)
    assert said == "250 2.0.0 Ok\n" * 120 + ENOUGH


def test_too_many_recipients(tmp_path: Path) -> None:
    """RCPT 1,001: 452 4.5.3, the rest of the transaction stands. RFC 5321 §4.5.3.1.10."""
    house = House(tmp_path)
    client = house.connect()
    client.say("EHLO x", "MAIL FROM:<>")
    said = client.say(*["RCPT TO:<alice@example.org>"] * 1001)
    assert said == "250 2.1.5 Ok\n" * 1000 + "452 4.5.3 Error: too many recipients\n"
    client.say("DATA")
    assert "queued as" in client.say("x", ".")
    assert len(house.accepted[0].accepted.envelope.recipients) == 1000


def test_who_ignores_452_is_sent_away(tmp_path: Path) -> None:
    """Past the overshoot each one is an error."""
    house = House(tmp_path, recipient_limit=1, recipient_overshoot_limit=10, soft_error_limit=100)
    client = house.connect()
    client.say("EHLO x", "MAIL FROM:<>")
    said = client.say(*["RCPT TO:<alice@example.org>"] * 100)
    assert said == "250 2.1.5 Ok\n" + "452 4.5.3 Error: too many recipients\n" * 30 + ENOUGH


def test_connections_of_one_client(tmp_path: Path) -> None:
    """The 51st hears 421; others, and mynetworks, are not counted against."""
    house = House(tmp_path, client_connection_count_limit=2)
    first = [house.connect(), house.connect()]
    third = house.connect()
    assert third.greeting == f"421 4.7.0 mx.example.org Error: too many connections from {STRANGER}\r\n"
    assert third.is_closed
    assert house.connect("192.0.2.8").greeting.startswith("220 ")
    for _ in range(5):
        assert house.connect(NEIGHBOUR).greeting.startswith("220 ")
    third.server.connectionLost()
    first[0].server.connectionLost()
    assert house.connect().greeting.startswith("220 ")


def test_message_and_recipient_rates(tmp_path: Path) -> None:
    """450 4.7.1 past the rate; the next time unit is a fresh one."""
    house = House(tmp_path, client_message_rate_limit=2, client_recipient_rate_limit=2)
    client = house.connect()
    client.say("EHLO x")
    said = [client.say("MAIL FROM:<>", "RSET") for _ in range(3)]
    assert said[1].startswith("250 2.1.0 Ok")
    assert said[2].startswith(f"450 4.7.1 Error: too much mail from {STRANGER}\n")
    house.clock.advance(61)
    said = [client.say("RSET", "MAIL FROM:<>", *["RCPT TO:<alice@example.org>"] * 3)]
    assert said[0].endswith(f"450 4.7.1 Error: too many recipients from {STRANGER}\n")


def test_a_silent_client(tmp_path: Path) -> None:
    """300 s, then 421 4.4.2 and the end. RFC 5321 §4.5.3.2.7."""
    house = House(tmp_path)
    client = house.connect()
    client.say("EHLO x")
    house.clock.advance(299)
    assert client.take() == ""
    house.clock.advance(1)
    assert client.take() == "421 4.4.2 mx.example.org Error: timeout exceeded\r\n"
    assert client.is_closed
    assert house.log.lines[-1] == ("smtpd", "timeout after EHLO from unknown[192.0.2.7]")


def test_a_dripping_client(tmp_path: Path) -> None:
    """An octet every five seconds does not extend the time for a command."""
    house = House(tmp_path)
    client = house.connect()
    for _ in range(60):
        house.clock.advance(5)
        client.server.dataReceived(b"x")
    assert client.is_closed


def test_dripping_content(tmp_path: Path) -> None:
    """Content slower than min_data_rate is cut; faster may take as long as it takes."""
    house = House(tmp_path)
    client = house.connect()
    client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<alice@example.org>", "DATA")
    for _ in range(100):
        house.clock.advance(10)
        client.server.dataReceived(b"x" * 6000)
    assert not client.is_closed
    for _ in range(70):
        house.clock.advance(5)
        client.server.dataReceived(b"x")
    assert client.is_closed
    assert client.take().startswith("421 4.4.2 ")
    assert house.log.lines[-1][1].startswith("timeout after DATA (")
    client.server.connectionLost()
    assert list(Path(house.queue.path, "incoming").iterdir()) == []


def test_stress_shortens_patience(tmp_path: Path) -> None:
    """With many connections open the time limit is that of stress."""
    hurried = SmtpdSettings(myhostname="mx.example.org", timeout=10.0, hard_error_limit=1)
    house = House(tmp_path, stress_connections=2, under_stress=hurried)
    first, second = house.connect(), house.connect()
    third = house.connect("192.0.2.3")
    assert house.connect("192.0.2.4").say("BOGUS") == UNKNOWN + ENOUGH
    house.clock.advance(11)
    assert (first.is_closed, second.is_closed, third.is_closed) == (False, False, True)
    assert third.take().startswith("421 4.4.2 ")


def test_a_trickle_may_be_allowed(tmp_path: Path) -> None:
    """smtpd_per_request_deadline = no: an octet now and then is enough, in commands and in content."""
    house = House(tmp_path, per_request_deadline=False)
    client = house.connect()
    for octet in b"EHLO trickle":
        client.server.dataReceived(bytes([octet]))
        house.clock.advance(200)
    assert client.say("").startswith("250-mx.example.org")
    client.say("MAIL FROM:<>", "RCPT TO:<alice@example.org>", "DATA")
    for _ in range(10):
        house.clock.advance(299)
        client.server.dataReceived(b"x")
    assert "queued as" in client.say("", ".")
    client.server.dataReceived(b"NO")
    house.clock.advance(300)
    assert client.is_closed


def test_an_unfinished_handshake(tmp_path: Path) -> None:
    """smtpd_starttls_timeout: a client that says STARTTLS and nothing more is cut."""
    house = House(tmp_path, tls=object(), starttls_timeout=60.0)
    silent, slow = house.connect(), house.connect()
    for client in (silent, slow):
        client.say("EHLO x")
        assert client.say("STARTTLS") == "220 2.0.0 Ready to start TLS\n"
    house.clock.advance(59)
    slow.server.handshakeCompleted()
    house.clock.advance(1)
    assert (silent.is_closed, slow.is_closed) == (True, False)
    assert house.log.lines[-1] == ("smtpd", f"timeout after STARTTLS from unknown[{STRANGER}]")
    house.clock.advance(298)
    assert not slow.is_closed
    house.clock.advance(2)
    assert slow.is_closed


def test_a_client_that_does_not_take_the_421_is_cut(tmp_path: Path) -> None:
    """Nothing waits for ever behind a full send buffer."""
    house = House(tmp_path)
    client = house.connect()
    client.say("QUIT")
    house.clock.advance(600)
    assert getattr(client.transport, "aborting", False)


def test_ipv6_counts_by_network() -> None:
    """A /64 is one client."""
    limits = ClientLimits(lambda: 0.0)
    assert limits.connected("2001:db8:1:2::1") == 1
    assert limits.connected("2001:db8:1:2:3:4:5:6") == 2
    assert limits.connected("2001:db8:1:3::1") == 1
    limits.disconnected("2001:db8:1:2::1")
    limits.disconnected("2001:db8:1:2:3:4:5:6")
    assert limits.connected("2001:db8:1:2::9") == 1
    assert limits.connections == 2


def test_whom_limits_do_not_count_can_be_said(tmp_path: Path) -> None:
    """smtpd_client_event_limit_exceptions, instead of mynetworks."""
    house = House(tmp_path, client_connection_count_limit=1, clients={"are_not_limited": STRANGER})
    for address, is_welcome in ((STRANGER, True), (NEIGHBOUR, False)):
        first, second = house.connect(address), house.connect(address)
        assert (first.is_closed, second.is_closed) == (False, not is_welcome)


def test_soft_bounce_says_everything_for_now(tmp_path: Path) -> None:
    """soft_bounce: 5xx 5.y.z becomes 4xx 4.y.z, in replies and in the log."""
    house = House(tmp_path, soft_bounce=True)
    client = house.connect()
    said = client.say("EHLO x", "BOGUS", "MAIL FROM:<a@example.com>", "RCPT TO:<x@other.test>")
    assert "400 4.5.2 Error: command not recognized\n" in said
    assert said.endswith("454 4.7.1 <x@other.test>: Relay access denied\n")
    house = House(tmp_path, soft_bounce=True)
    said = house.connect().say("EHLO x", "MAIL FROM:<a@example.com>", "RCPT TO:<no@example.org>")
    assert "450 4.1.1 <no@example.org>: Recipient address rejected" in said
    assert any("reject: RCPT from unknown[192.0.2.7]: 450 4.1.1 <no@" in line for _, line in house.log.lines)


def test_commands_that_end_a_session_can_be_chosen(tmp_path: Path) -> None:
    """smtpd_forbidden_commands: names, or tables of patterns."""
    client = House(tmp_path, forbidden_commands=StringList([Item("SPAM", False, "")])).connect()
    assert client.say("GET /") == UNKNOWN
    assert client.say("SPAM").startswith("221 2.7.0 ")
    assert client.is_closed
    words = ("EGGS", "regexp:{{/^[^A-Z]/ Bogus}}")
    forbidden = StringList(read_items(words, TableOpener(str(tmp_path)).table, "main.cf:1"))
    client = House(tmp_path, forbidden_commands=forbidden).connect()
    assert client.say("SPAM") == UNKNOWN
    assert client.say("\x16\x03\x01").startswith("221 2.7.0 ")


@pytest.mark.parametrize("line", ["Host: example.org", "Subject : x", "X:"])
def test_a_header_field_ends_a_session(tmp_path: Path, line: str) -> None:
    """What is no command and looks like a field comes from a browser or a proxy: smtpd(8) sends it away."""
    client = House(tmp_path).connect()
    assert client.say(line) == "221 2.7.0 Error: I can break rules, too. Goodbye.\n"
    assert client.is_closed
