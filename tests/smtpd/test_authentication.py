"""AUTH: RFC 4954; RELIABILITY B20, B21, T9, T10."""
# ruff: noqa: E501 -- replies are shown whole

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from mailserver.accounts.login import Refused
from tests.accounts.scram_client import ScramClient, log_in
from tests.smtpd.harness import STRANGER, Connection, House, read_content

LOCAL = "127.0.0.1"
GOOD = "235 2.7.0 Authentication successful\n"
BAD = "535 5.7.8 Error: authentication failed: (reason unavailable)\n"


def plain(name: str, password: str, authzid: str = "") -> str:
    """The response of SASL PLAIN."""
    return base64.b64encode(f"{authzid}\0{name}\0{password}".encode()).decode()


def encoded(text: str) -> str:
    """The text in base64."""
    return base64.b64encode(text.encode()).decode()


def hello(house: House, address: str = LOCAL) -> Connection:
    """A connection that has said EHLO."""
    client = house.connect(address)
    client.say("EHLO client.example")
    return client


def test_offered_where_it_is_safe(tmp_path: Path) -> None:
    """Both forms of the line, from this host; a stranger in clear is offered nothing."""
    house = House(tmp_path)
    assert "250-AUTH PLAIN LOGIN\n250-AUTH=PLAIN LOGIN\n" in house.connect(LOCAL).say("EHLO x")
    assert "AUTH" not in house.connect(STRANGER).say("EHLO x")
    assert "AUTH" not in House(tmp_path, sasl_auth_enable=False).connect(LOCAL).say("EHLO x")


def test_plain_with_initial_response(tmp_path: Path) -> None:
    """RFC 4954 §4: one line in, one line out; the message then says who sent it."""
    house = House(tmp_path)
    client = hello(house)
    assert client.say("AUTH PLAIN " + plain("alice", "secret")) == GOOD
    assert client.say("AUTH PLAIN") == "503 5.5.1 Error: already authenticated\n"
    client.say("MAIL FROM:<alice@example.org>", "RCPT TO:<x@other.test>", "DATA")
    assert "queued as" in client.say("x", ".")
    message = house.accepted[0]
    assert b" with ESMTPA id " in read_content(message)
    assert message.accepted.envelope.client.login == "alice"
    assert (
        "smtpd",
        f"{message.queue_id}: client=unknown[127.0.0.1], sasl_method=PLAIN, sasl_username=alice",
    ) in house.log.lines


def test_plain_step_by_step(tmp_path: Path) -> None:
    """Without an initial response the challenge is empty."""
    client = hello(House(tmp_path))
    assert client.say("AUTH PLAIN") == "334 \n"
    assert client.say(plain("bob", "secret", "bob")) == GOOD


def test_login(tmp_path: Path) -> None:
    """Outlook's way, with and without the name in the command."""
    client = hello(House(tmp_path))
    assert client.say("auth login") == "334 VXNlcm5hbWU6\n"
    assert client.say(encoded("alice")) == "334 UGFzc3dvcmQ6\n"
    assert client.say(encoded("secret")) == GOOD
    client = hello(House(tmp_path))
    assert client.say("AUTH LOGIN " + encoded("alice"), encoded("secret")) == "334 UGFzc3dvcmQ6\n" + GOOD


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        (["AUTH"], "501 5.5.4 Syntax: AUTH mechanism\n"),
        (["AUTH PLAIN x y"], "501 5.5.4 Syntax: AUTH mechanism\n"),
        (["AUTH CRAM-MD5"], "504 5.5.4 Error: unrecognized authentication mechanism\n"),
        (["AUTH \xff"], "504 5.5.4 Error: unrecognized authentication mechanism\n"),
        (["AUTH PLAIN =", ], "535 5.7.8 Error: authentication failed: malformed response\n"),
        (["AUTH PLAIN !!!"], "501 5.5.2 Error: cannot base64-decode the response\n"),
        (["AUTH PLAIN " + plain("alice", "secret", "bob")], "535 5.7.8 Error: authentication failed: malformed response\n"),
        (["AUTH PLAIN " + encoded("alice")], "535 5.7.8 Error: authentication failed: malformed response\n"),
        (["AUTH PLAIN", "*"], "334 \n501 5.7.0 Authentication aborted\n"),
        (["AUTH LOGIN", "*"], "334 VXNlcm5hbWU6\n501 5.7.0 Authentication aborted\n"),
        (["AUTH LOGIN", ""], "334 VXNlcm5hbWU6\n535 5.7.8 Error: authentication failed: malformed response\n"),
        (["AUTH LOGIN", encoded("alice"), ""], "334 VXNlcm5hbWU6\n334 UGFzc3dvcmQ6\n" + BAD),
        (["AUTH PLAIN " + plain("alice", "wrong")], BAD),
        (["AUTH PLAIN " + plain("nobody", "wrong")], BAD),
    ],
)  # fmt: skip
def test_failures(tmp_path: Path, lines: list[str], reply: str) -> None:
    """Nothing a client can send drops the connection or raises (T9); unknown user and wrong password sound alike."""
    house = House(tmp_path)
    client = hello(house)
    assert client.say(*lines) == reply
    assert client.say("NOOP") == "250 2.0.0 Ok\n"


def test_a_password_in_clear_is_not_looked_at(tmp_path: Path) -> None:
    """RELIABILITY B21: the right password is refused like any other, and nobody asks about it."""
    house = House(tmp_path)
    client = hello(house, STRANGER)
    assert client.say("AUTH PLAIN " + plain("alice", "secret")).startswith("538 5.7.11 ")
    assert house.passwords.attempts == []
    house = House(tmp_path, allow_plaintext_auth=True)
    assert hello(house, STRANGER).say("AUTH PLAIN " + plain("alice", "secret")) == GOOD


def test_three_failures_end_the_connection(tmp_path: Path) -> None:
    """RELIABILITY B20, T10; the log has the lines that fail2ban counts."""
    house = House(tmp_path)
    client = hello(house)
    said = client.say(*["AUTH PLAIN " + plain("bob", "wrong")] * 5)
    assert said == BAD * 3 + "421 4.7.0 mx.example.org Error: too many errors\n"
    assert client.is_closed
    line = "warning: unknown[127.0.0.1]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=bob"
    assert house.log.lines.count(("smtpd", line)) == 3


def test_a_name_cannot_forge_the_log(tmp_path: Path) -> None:
    """RELIABILITY B24."""
    house = House(tmp_path)
    hello(house).say("AUTH PLAIN " + plain("x>, rip=10.0.0.1,\n<", "wrong"))
    assert house.log.lines[-1][1].endswith(", sasl_username=x rip=10.0.0.1?")


def test_a_broken_data_base_is_temporary(tmp_path: Path) -> None:
    """454, and no failure is counted."""
    house = House(tmp_path)
    house.passwords.answer = succeed(Refused(temporary=True, reason="passwd: Input/output error"))
    client = hello(house)
    for _ in range(5):
        said = client.say("AUTH PLAIN " + plain("bob", "secret"))
        assert said == "454 4.7.0 Temporary authentication failure: try again later\n"
        house.passwords.answer = succeed(Refused(temporary=True))


def test_commands_behind_auth_wait_for_its_answer(tmp_path: Path) -> None:
    """TWISTED.md: commands pipelined behind an unanswered Deferred were answered first."""
    house = House(tmp_path)
    waiting: Deferred[Any] = Deferred()
    house.passwords.answer = waiting
    client = hello(house)
    assert client.say("AUTH PLAIN " + plain("bob", "x"), "NOOP") == ""
    waiting.callback(Refused())
    assert client.take().replace("\r\n", "\n") == BAD + "250 2.0.0 Ok\n"


def test_who_may_send_as_whom(tmp_path: Path) -> None:
    """reject_sender_login_mismatch with smtpd_sender_login_maps."""
    from mailserver.tables.open import open_table

    owners = (open_table("inline:{alice@example.org=alice, {shared@example.org=alice bob}}"),)
    house = House(
        tmp_path, texts={"sender": "reject_sender_login_mismatch"}, tools={"sender_login_maps": owners}
    )
    client = hello(house)
    client.say("AUTH PLAIN " + plain("bob", "secret"))
    client.say("MAIL FROM:<alice@example.org>")
    assert client.say("RCPT TO:<alice@example.org>") == (
        "553 5.7.1 <alice@example.org>: Sender address rejected: not owned by user bob\n"
    )
    client.say("RSET", "MAIL FROM:<shared@example.org>")
    assert client.say("RCPT TO:<alice@example.org>") == "250 2.1.5 Ok\n"


def test_the_password_is_nowhere_in_the_log(tmp_path: Path) -> None:
    """RELIABILITY B25."""
    house = House(tmp_path)
    client = hello(house)
    client.say(
        "AUTH PLAIN " + plain("alice", "hunter2"), "AUTH LOGIN", encoded("alice"), encoded("hunter2"), "QUIT"
    )
    client.server.connectionLost()
    text = str(house.log.lines)
    assert "hunter2" not in text
    assert encoded("hunter2") not in text


def test_noplaintext_offers_nothing_where_it_counts(tmp_path: Path) -> None:
    """smtpd_sasl_security_options = noplaintext, noanonymous: our mechanisms need TLS, even from this host."""
    house = House(tmp_path, mechanisms_in_clear=())
    client = house.connect(LOCAL)
    assert "AUTH" not in client.say("EHLO x")
    assert client.say("AUTH PLAIN " + plain("alice", "secret")).startswith("503 5.5.1 ")
    assert house.passwords.attempts == []


def test_some_networks_are_offered_no_login(tmp_path: Path) -> None:
    """smtpd_sasl_exceptions_networks."""
    house = House(tmp_path, allow_plaintext_auth=True, clients={"are_offered_no_login": STRANGER})
    assert "AUTH" not in house.connect(STRANGER).say("EHLO x")
    assert "AUTH PLAIN" in house.connect("192.0.2.8").say("EHLO x")


def scram_house(tmp_path: Path) -> House:
    """A house that knows SCRAM."""
    return House(tmp_path, mechanisms_in_clear=("PLAIN", "SCRAM-SHA-256"))


def log_in_by_scram(client: Connection, name: str, password: str) -> str:
    """The last reply to AUTH SCRAM-SHA-256."""

    def ask(line: bytes) -> bytes:
        return client.say(line.decode()).strip().encode()

    return log_in(ScramClient(name, password), ask, b"AUTH SCRAM-SHA-256").decode()


def test_scram(tmp_path: Path) -> None:
    """RFC 5802 over AUTH: the last challenge is the server's signature, and an empty line answers it."""
    house = scram_house(tmp_path)
    client = hello(house)
    assert "AUTH PLAIN SCRAM-SHA-256\n" in client.say("EHLO x")
    assert log_in_by_scram(client, "alice", "wrong") == BAD.strip()
    assert log_in_by_scram(client, "nobody", "secret") == BAD.strip()
    assert log_in_by_scram(client, "alice", "secret") == GOOD.strip()
    assert [attempt.mechanism for attempt in house.passwords.attempts] == ["SCRAM-SHA-256"] * 3


def test_scram_that_is_none(tmp_path: Path) -> None:
    """Cancelled, malformed, not offered: RFC 4954 §4."""
    client = hello(scram_house(tmp_path))
    assert client.say("AUTH SCRAM-SHA-256") == "334 \n"
    assert client.say("*") == "501 5.7.0 Authentication aborted\n"
    assert client.say("AUTH SCRAM-SHA-256 " + encoded("n,,x")).startswith("501 5.5.2 ")
    assert client.say("AUTH SCRAM-SHA-256-PLUS").startswith("504 5.5.4 ")
    assert client.say("AUTH LOGIN").startswith("504 5.5.4 ")
    assert client.say("NOOP").startswith("250 ")
