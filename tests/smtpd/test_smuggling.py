"""Smuggling and lines without measure: RELIABILITY B1, T3, T4; TWISTED.md, ESMTP server."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.wire.lines import BareNewline
from tests.smtpd.harness import NEIGHBOUR, STRANGER, House

ENVELOPE = ("MAIL FROM:<s@example.com>", "RCPT TO:<alice@example.org>", "DATA")
INNER = (
    b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: evil\r\n\r\nx\r\n.\r\n"
)
FORMS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"x" * 20_000 + b"\r\n",
]


@pytest.mark.parametrize("step", [1, 7, 16_384, 1 << 20])
@pytest.mark.parametrize("form", FORMS)
def test_one_message_and_no_command(tmp_path: Path, form: bytes, step: int) -> None:
    """Whatever looks like an end of DATA: exactly one message, and nothing behind it is obeyed."""
    house = House(tmp_path)
    client = house.connect()
    client.say("EHLO client.example", *ENVELOPE)
    wire = b"Subject: outer\r\n\r\nbody" + form + INNER
    said = "".join(client.send(wire[start : start + step]) for start in range(0, len(wire), step))
    assert said.startswith("250 2.0.0 Ok: queued as ")
    assert said.count("\n") == 1
    assert len(house.accepted) == 1
    assert b"MAIL FROM:<evil@example.com>\n" in house.contents()[0]
    assert b"\r" not in house.contents()[0]


@pytest.mark.parametrize("form", FORMS[:3])
def test_reject(tmp_path: Path, form: bytes) -> None:
    """`smtpd_forbid_bare_newline = reject`: 550 5.5.2, the connection ends, nothing is queued."""
    house = House(tmp_path, forbid_bare_newline=BareNewline.REJECT)
    client = house.connect()
    client.say("EHLO client.example", *ENVELOPE)
    assert client.send(b"body" + form + INNER) == "550 5.5.2 mx.example.org Error: bare <LF> received\n"
    assert client.is_closed
    assert house.accepted == []


def test_reject_in_commands(tmp_path: Path) -> None:
    """A command that ends in a bare LF is refused likewise."""
    client = House(tmp_path, forbid_bare_newline=BareNewline.REJECT).connect()
    assert client.send(b"NOOP\nNOOP\r\n") == "550 5.5.2 mx.example.org Error: bare <LF> received\n"
    assert client.is_closed


def test_the_old_way_gives_two(tmp_path: Path) -> None:
    """`smtpd_forbid_bare_newline = no` is as unsafe as it says: LF.LF ends the message."""
    house = House(tmp_path, forbid_bare_newline=BareNewline.ACCEPT)
    client = house.connect(NEIGHBOUR)
    client.say("EHLO client.example", *ENVELOPE)
    client.send(b"body\n.\n" + INNER)
    assert len(house.accepted) == 2


def test_dots_come_back(tmp_path: Path) -> None:
    """RFC 5321 §4.5.2, through the whole server, octet by octet."""
    house = House(tmp_path)
    client = house.connect()
    client.say("EHLO client.example", *ENVELOPE)
    for octet in b"A: b\r\n\r\n..\r\n...x\r\n.y\r\n\r\n.\r\n":
        client.server.dataReceived(bytes([octet]))
    assert house.contents() == [b"A: b\n\n.\n..x\ny\n\n"]


def test_an_overlong_command(tmp_path: Path) -> None:
    """One 500 for the line, however long; what follows it is the next command."""
    client = House(tmp_path).connect()
    assert client.send(b"x" * 3000) == ""
    assert client.send(b"y" * 3000 + b"\r\nNOOP\r\n") == "500 5.5.2 Error: line too long\n250 2.0.0 Ok\n"


def test_a_command_without_end(tmp_path: Path) -> None:
    """A line that never ends is given up, and memory stays bounded (TWISTED.md: 50 MiB held)."""
    client = House(tmp_path).connect()
    sent = 0
    while not client.is_closed and sent < 1 << 20:
        client.server.dataReceived(b"x" * 4096)
        sent += 4096
    assert client.is_closed
    assert sent < 1 << 17
    assert client.take().startswith("421 4.7.0 ")


def test_old_clients_may_be_excepted(tmp_path: Path) -> None:
    """smtpd_forbid_bare_newline_exclusions: for them LF.LF ends a message, for nobody else."""
    clients = {"may_send_bare_newlines": "10.0.0.0/8"}
    for address, count in ((NEIGHBOUR, 2), (STRANGER, 1)):
        house = House(tmp_path / address, clients=clients)
        client = house.connect(address)
        client.say("EHLO client.example", *ENVELOPE)
        client.send(b"body\n.\n" + INNER + b"\r\n.\r\n")
        assert len(house.accepted) == count


def test_the_code_for_bare_newlines_may_be_chosen(tmp_path: Path) -> None:
    """smtpd_forbid_bare_newline_reject_code."""
    house = House(tmp_path, forbid_bare_newline=BareNewline.REJECT, forbid_bare_newline_reject_code=450)
    assert house.connect().send(b"NOOP\n") == "450 4.5.2 mx.example.org Error: bare <LF> received\n"
