"""Who the client is: confirmed names, XCLIENT, XFORWARD, and the socket's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailserver.smtpd.admission import NAME_SECONDS
from tests.smtpd.harness import STRANGER, House


def logged(house: House) -> str:
    """The first line of the log."""
    return house.log.lines[0][1]


@pytest.mark.parametrize(
    ("names", "hosts", "client"),
    [
        ({}, {}, "unknown[192.0.2.7]"),
        ({STRANGER: ("mx.good",)}, {"mx.good": ("198.51.100.9", STRANGER)}, "mx.good[192.0.2.7]"),
        ({STRANGER: ("mx.liar",)}, {"mx.liar": ("198.51.100.9",)}, "unknown[192.0.2.7]"),
    ],
)
def test_names(tmp_path: Path, names: dict[str, Any], hosts: dict[str, Any], client: str) -> None:
    """RELIABILITY B32: a PTR name counts when its addresses agree."""
    house = House(tmp_path)
    house.names.names, house.names.hosts = names, hosts
    house.connect()
    assert f"connect from {client}" in [text for _, text in house.log.lines]


def test_a_client_that_leaves_before_its_name_is_known(tmp_path: Path) -> None:
    """Nothing is greeted, counted or logged twice."""
    house = House(tmp_path)
    answer: Deferred[tuple[str, ...]] = Deferred()
    house.names.ptr = lambda address: answer  # type: ignore[method-assign, assignment, return-value]
    client = house.connect()
    assert client.greeting == ""
    assert client.say("EHLO x") == ""
    client.server.connectionLost()
    answer.callback(())
    assert house.log.lines == [
        ("smtpd", "lost connection after CONNECT from unknown[192.0.2.7]"),
        ("smtpd", "disconnect from unknown[192.0.2.7] commands=0/0"),
    ]
    assert house.services.limits.connections == 0


def test_name_servers_that_are_dead(tmp_path: Path) -> None:
    """The greeting waits NAME_SECONDS and no longer; who has no name for the time being hears 450."""
    house = House(tmp_path, texts={"client": "reject_unknown_client_hostname"})
    asked: list[Deferred[tuple[str, ...]]] = [Deferred()]
    house.names.ptr = lambda address: asked[0]  # type: ignore[method-assign, assignment, return-value]
    client = house.connect()
    house.clock.advance(NAME_SECONDS - 0.1)
    assert client.take() == ""
    house.clock.advance(0.1)
    assert client.take() == "220 mx.example.org ESMTP Postfix\r\n"
    client.say("EHLO x", "MAIL FROM:<>")
    answer = client.say("RCPT TO:<alice@example.org>")
    assert answer.startswith("450 4.7.25 Client host rejected: cannot find your hostname, [192.0.2.7]")


def test_a_name_whose_address_is_not_answered(tmp_path: Path) -> None:
    """The name of the PTR record is known to decisions that ask for it; it is not the client's."""
    house = House(tmp_path)
    house.names.names = {STRANGER: ("mx.good",)}
    house.names.addresses = lambda name: Deferred()  # type: ignore[method-assign, assignment, return-value]
    client = house.connect()
    house.clock.advance(NAME_SECONDS)
    assert client.take().startswith("220 ")
    request = client.server.session.request
    assert (request.client_name, request.reverse_name, request.name_is_temporary) == (
        "unknown",
        "mx.good",
        True,
    )


def test_ipv4_in_ipv6_is_ipv4(tmp_path: Path) -> None:
    """A dual-stack socket shows `::ffff:192.0.2.7`; lists and logs mean 192.0.2.7."""
    house = House(tmp_path)
    house.connect("::ffff:192.0.2.7")
    assert logged(house) == "connect from unknown[192.0.2.7]"


def test_xclient(tmp_path: Path) -> None:
    """A trusted host speaks for another client; the session begins anew with that client's rights."""
    house = House(tmp_path, xclient="10.0.0.0/8")
    client = house.connect("10.1.1.1")
    assert "250 XCLIENT NAME ADDR" in client.say("EHLO x")
    assert client.say("XCLIENT NAME=a+2Bb.example ADDR=192.0.2.99") == "220 mx.example.org ESMTP Postfix\n"
    assert client.say("DATA") == "503 5.5.1 Error: need RCPT command\n"
    client.say("EHLO y", "MAIL FROM:<>")
    assert client.say("RCPT TO:<x@other.test>") == "454 4.7.1 <x@other.test>: Relay access denied\n"
    assert "RCPT from a+b.example[192.0.2.99]" in house.log.lines[-1][1]


@pytest.mark.parametrize(
    "argument",
    ["", "ADDR", "ADDR=999.1.1.1", "WHAT=x", "NAME=a+0D+0Ab", "NAME=" + "x" * 300, "NAME=\xe9"],
)
def test_xclient_refused(tmp_path: Path, argument: str) -> None:
    """RELIABILITY B12, B31."""
    client = House(tmp_path, xclient="10.0.0.0/8").connect("10.1.1.1")
    assert client.say(f"XCLIENT {argument}").startswith("501 5.5.4 ")


def test_xclient_is_not_for_strangers(tmp_path: Path) -> None:
    """Who is not named may not, and sees nothing of it."""
    client = House(tmp_path, xclient="10.0.0.0/8").connect()
    assert "XCLIENT" not in client.say("EHLO x")
    assert client.say("XCLIENT ADDR=127.0.0.1") == "502 5.5.1 Error: command not implemented\n"


def test_xforward(tmp_path: Path) -> None:
    """XFORWARD_README: whose mail it is is logged, for one transaction; no decision changes."""
    house = House(tmp_path, clients={"may_forward_client": "10.0.0.0/8"})
    client = house.connect("10.1.1.1")
    assert "250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE" in client.say("EHLO filter")
    assert client.say("XFORWARD NAME=a+2Bb.example ADDR=192.0.2.9 PORT=4711") == "250 2.0.0 Ok\n"
    assert client.say("XFORWARD IDENT=1A2B3C PROTO=ESMTP HELO=x SOURCE=REMOTE") == "250 2.0.0 Ok\n"
    client.say("MAIL FROM:<>")
    assert client.say("XFORWARD NAME=x") == "503 5.5.1 Error: MAIL transaction in progress\n"
    client.say("RCPT TO:<alice@example.org>", "DATA", "Subject: x", "", "x", ".")
    first = next(text for _, text in house.log.lines if "client=" in text)
    words = ", orig_queue_id=1A2B3C, orig_client=a+b.example[192.0.2.9]"
    assert first.endswith(f"client=unknown[10.1.1.1]{words}")
    assert b"Message-Id" not in house.contents()[0]
    client.say("XFORWARD NAME=[UNAVAILABLE] SOURCE=LOCAL", "MAIL FROM:<>")
    client.say("RCPT TO:<alice@example.org>", "DATA", "Subject: y", "", "y", ".")
    second = [text for _, text in house.log.lines if "client=" in text][1]
    assert second.endswith("client=unknown[10.1.1.1], orig_client=unknown[unknown]")
    assert b"Message-Id" in house.contents()[1]
    client.say("MAIL FROM:<>", "RCPT TO:<alice@example.org>", "DATA", "Subject: z", "", "z", ".")
    assert [text for _, text in house.log.lines if "client=" in text][2].endswith("client=unknown[10.1.1.1]")


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "ADDR",
        "ADDR=999.1.1.1",
        "WHAT=x",
        "PORT=70000",
        "SOURCE=ELSEWHERE",
        "NAME=" + "x" * 300,
        "NAME=\xe9",
    ],
)
def test_xforward_refused(tmp_path: Path, argument: str) -> None:
    """What is wrong is not half taken."""
    client = House(tmp_path, clients={"may_forward_client": "10.0.0.0/8"}).connect("10.1.1.1")
    assert client.say(f"XFORWARD {argument}").startswith("501 5.5.4 ")


def test_xforward_is_not_for_strangers(tmp_path: Path) -> None:
    """RELIABILITY B31: for them there is no such command."""
    client = House(tmp_path, clients={"may_forward_client": "10.0.0.0/8"}).connect()
    assert "XFORWARD" not in client.say("EHLO x")
    assert client.say("XFORWARD ADDR=127.0.0.1") == "502 5.5.1 Error: command not implemented\n"


def test_no_delay(tmp_path: Path) -> None:
    """TWISTED.md: without TCP_NODELAY every round trip may cost 40 ms."""
    house = House(tmp_path)
    client = house.connect()
    assert client.transport.no_delay
