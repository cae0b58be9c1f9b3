"""What others can make the log say, and what it never says: RELIABILITY B24, B25."""

from __future__ import annotations

import base64
import imaplib
import poplib
import re
import smtplib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.server import Server, running
from tests.end_to_end.test_exchange import untrusting
from tests.hostile.attacker import Attacker
from tests.hostile.test_guessing import at_once

LINE = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ (postfix(/[\w-]+)+\[\d+\]|dovecot): .*")
FORGED = "Nov 24 00:00:00 mail dovecot: imap-login: Login: user=<root>"
NAMES = [
    "x>, rip=10.9.9.9, ",
    "x\\r\\n" + FORGED,
    "x\\x1b[2J",
    "user=<alice>, rip=10.9.9.9",
    "x: SASL PLAIN authentication failed",
    "a" * 900,
    "\u202eevil\u2028" + FORGED,
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("logs")
    with running(directory / "home", "mbox", f"maillog_file = {directory}/mail.log") as server:
        server.log = directory / "mail.log"
        yield server


def literal(name: str) -> bytes:
    """The name as octets, escapes resolved."""
    return name.replace("\\r\\n", "\r\n").replace("\\x1b", "\x1b").encode()


def attack(house: Server, number: int) -> bytes:
    """The name is given as a user, a greeting and a sender, from an address of its own."""
    name, address = literal(NAMES[number]), f"127.0.60.{number + 1}"
    with Attacker(house, "imap", address) as client:
        client.send(b"a LOGIN {%d+}\r\n%s {5+}\r\nwrong\r\n" % (len(name), name))
        client.line()
    with Attacker(house, "smtp", address) as client:
        client.ask(b"EHLO " + name.partition(b"\r")[0])
        client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0" + name + b"\0wrong"))
        client.ask(b"MAIL FROM:<" + name + b"@evil.test>")
        return client.ask(b"QUIT")


def test_a_name_says_nothing_for_others(house: Server) -> None:
    """B24: no new line, no second address for fail2ban, no control character, nobody's login."""
    at_once(*(partial(attack, house, number) for number in range(len(NAMES))))
    for number in range(len(NAMES)):
        house.logged(rf"disconnect from \S+\[127\.0\.60\.{number + 1}\]")
    text = house.log_text()
    for line in text.splitlines():
        assert LINE.fullmatch(line), line
        assert len(line) < 2200
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e]", line)
    assert all(f"rip=127.0.60.{number + 1}," in text for number in range(len(NAMES)))
    assert not re.search(r"^.{15} \S+ dovecot: imap-login: Login: user=<root>", text, re.MULTILINE)
    assert not re.search(r">, rip=10\.9\.9\.9", text)


def play(house: Server, service: str, script: list[str]) -> bytes:
    """Each line is sent once the one before it was answered, while the server listens."""
    with Attacker(house, service, f"127.0.61.{len(service) + len(script)}") as client:
        for line in script:
            if not client.has_ended:
                client.send(f"{line}\r\n".encode())
                client.reply()
    return b""


def test_no_secret_is_ever_logged(house: Server, tmp_path: Path) -> None:
    """B25: a whole session on each service, right and wrong passwords, in every form of AUTH."""
    secrets = [house.passwords["alice"], "wrong-secret-4711", "content-secret-4712"]
    blobs = [base64.b64encode(f"\0alice\0{word}".encode()).decode() for word in secrets]
    blobs += [base64.b64encode(word.encode()).decode() for word in secrets]
    with smtplib.SMTP("127.0.0.1", house.ports["submission"]) as client:
        client.starttls(context=untrusting())
        client.login("alice", secrets[0])
        client.sendmail("alice@example.org", ["bob@example.org"], f"Subject: s\r\n\r\n{secrets[2]}\r\n")
    with imaplib.IMAP4("127.0.0.1", house.ports["imap"]) as session:
        session.login("alice", secrets[0])
    with imaplib.IMAP4("127.0.0.1", house.ports["imap"]) as session:
        session.authenticate("PLAIN", lambda challenge: f"\0alice\0{secrets[0]}".encode())
    maildrop = poplib.POP3("127.0.0.1", house.ports["pop3"])
    maildrop.user("alice")
    maildrop.pass_(secrets[0])
    maildrop.quit()
    wrong, blob = secrets[1], blobs[1]
    scripts = {
        "smtp": ["EHLO a.test", f"AUTH PLAIN {blob}", "AUTH LOGIN", "YWxpY2U=", blobs[4], f"AUTH X {blob}"],
        "imap": [f"a LOGIN alice {wrong}", f"b AUTHENTICATE PLAIN {blob}", f"c LOGIN {wrong}"],
        "pop3": ["USER alice", f"PASS {wrong}", f"AUTH PLAIN {blob}", f"PASS {wrong} x"],
    }
    at_once(*(partial(play, house, service, script) for service, script in scripts.items()))
    text = house.log_text() + (house.directory.parent / "home.log").read_text()
    for secret in (*secrets, *blobs):
        assert secret not in text
