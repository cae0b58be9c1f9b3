"""Debian's log readers on our log: fail2ban's stock filters and pflogsumm. ECOSYSTEM §9."""

from __future__ import annotations

import base64
import re
import smtplib
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import Server, running, wait_for
from tests.hostile.attacker import Attacker
from tests.hostile.test_guessing import at_once, imap_login, pop3_login

RELAY, UNKNOWN, GUESS_SMTP, GUESS_IMAP, GUESS_POP3, ERRORS, NAMELESS = (f"127.0.70.{n}" for n in range(1, 8))
FILTERS = Path(__file__).parent.parent.parent / "etc" / "fail2ban" / "filter.d"
SENT = {"alice": 3, "bob": 2}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of a day with some mail and one attack of each kind."""
    directory = tmp_path_factory.mktemp("readers")
    lines = (
        f"maillog_file = {directory}/mail.log",
        "mynetworks = 127.0.0.1/32",
        "smtpd_soft_error_limit = 50",
    )
    with running(directory / "home", "mbox", *lines) as server:
        server.log = directory / "mail.log"
        attack(server)
        ordinary_mail(server)
        wait_for(lambda: server.log_text().count("status=sent") == sum(SENT.values()), "the mail")
        wait_for(lambda: server.log_text().count(": removed") == sum(SENT.values()), "the queue's end")
        yield server.log


def attack(server: Server) -> None:
    """Each kind from an address of its own."""
    rejected(server, RELAY, "nobody@other.test")
    rejected(server, UNKNOWN, "nosuchuser@example.org")
    at_once(
        lambda: guess_smtp(server),
        lambda: imap_login(server, GUESS_IMAP, "alice", "wrong"),
        lambda: pop3_login(server, GUESS_POP3, "nosuchuser", "wrong"),
        lambda: imap_login(server, NAMELESS, "x>, rip=10.9.9.9, ", "wrong"),
        lambda: too_many_errors(server),
    )


def rejected(server: Server, address: str, recipient: str) -> None:
    """One recipient that is refused."""
    with Attacker(server, "smtp", address) as client:
        client.ask(b"EHLO attacker.test")
        client.ask(b"MAIL FROM:<x@example.net>")
        client.ask(f"RCPT TO:<{recipient}>".encode())
        client.ask(b"QUIT")


def guess_smtp(server: Server) -> bytes:
    """One wrong password for AUTH."""
    with Attacker(server, "smtp", GUESS_SMTP) as client:
        client.ask(b"EHLO attacker.test")
        client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0alice\0wrong"))
        return client.ask(b"QUIT")


def too_many_errors(server: Server) -> bytes:
    """Commands that do not exist, without waiting, until the server has had enough."""
    with Attacker(server, "smtp", ERRORS) as client:
        client.ask(b"EHLO attacker.test")
        client.ask(b"MAIL FROM:<x@example.net>")
        client.send(b"RCPT TO:<nosuchuser@example.org>\r\n" * 21)
        return client.rest()


def ordinary_mail(server: Server) -> None:
    """So many messages for each."""
    for name, count in SENT.items():
        for _ in range(count):
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
                client.sendmail("carol@example.net", [f"{name}@example.org"], b"Subject: s\r\n\r\nhi\r\n")


def matched(log: Path, filter_name: str) -> set[str]:
    """The addresses that fail2ban would count against."""
    done = subprocess.run(
        ["fail2ban-regex", "--out", "ip", str(log), filter_name], capture_output=True, text=True, check=False
    )
    return set(re.findall(r"127\.0\.70\.\d+|10\.9\.9\.9", done.stdout))


@pytest.mark.needs("fail2ban-regex")
@pytest.mark.parametrize(
    ("filter_name", "attackers"),
    [
        ("postfix[mode=more]", {RELAY, UNKNOWN, ERRORS}),
        ("postfix[mode=auth]", {GUESS_SMTP}),
        ("postfix[mode=extra]", {RELAY, UNKNOWN, ERRORS, GUESS_SMTP}),
        ("postfix[mode=errors]", {ERRORS}),
        ("postfix[mode=ddos]", {GUESS_SMTP}),
        ("dovecot", {GUESS_IMAP, GUESS_POP3, NAMELESS}),
    ],
)
def test_fail2ban_sees_each_attacker_and_nobody_else(
    log: Path, filter_name: str, attackers: set[str]
) -> None:
    """Debian's stock filters, unchanged; a name with `>` hides nobody."""
    assert matched(log, filter_name) == attackers


@pytest.mark.needs("fail2ban-regex")
def test_our_filters_serve_other_names(log: Path, tmp_path: Path) -> None:
    """Where the log says `mailserver`, the filters that we ship see what the stock ones would."""
    renamed = tmp_path / "mail.log"
    text = log.read_text().replace(" postfix/", " mailserver/").replace(" dovecot: ", " mailserver: ")
    renamed.write_text(text)
    for name in FILTERS.iterdir():  # they stand beside the stock filters that they include
        (tmp_path / name.name).write_bytes(name.read_bytes())
    for stock in ("postfix.conf", "dovecot.conf", "common.conf"):
        (tmp_path / stock).symlink_to(f"/etc/fail2ban/filter.d/{stock}")
    assert matched(renamed, str(tmp_path / "mailserver-smtp.conf")) == {RELAY, UNKNOWN, ERRORS, GUESS_SMTP}
    found = matched(renamed, str(tmp_path / "mailserver-retrieval.conf"))
    assert found == {GUESS_IMAP, GUESS_POP3, NAMELESS}


@pytest.mark.needs("pflogsumm")
def test_pflogsumm_counts_what_was_sent(log: Path) -> None:
    """Its grand totals are the truth."""
    text = subprocess.run(["pflogsumm", str(log)], capture_output=True, text=True, check=True).stdout
    totals = Counter({name: int(count) for count, name in re.findall(r"^ +(\d+) +(\w+)", text, re.MULTILINE)})
    assert totals["received"] == sum(SENT.values())
    assert totals["delivered"] == sum(SENT.values())
    assert totals["bounced"] == totals["deferred"] == 0
    assert totals["rejected"] == 2 + 20  # the 20th error is the last
    assert re.search(r"^ +3 +alice@example\.org$", text, re.MULTILINE)
