"""Mail from programs of this machine through our sendmail, and the queue's commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import DEADLINE, Server, running, wait_for
from tests.end_to_end.test_exchange import received

NOWHERE = "relayhost = [127.0.0.1]:1"  # nobody listens there
REASON = "(connect to 127.0.0.1[127.0.0.1]:1: Connection refused)"


Done = subprocess.CompletedProcess[str]


class Machine:
    """A running server, and programs that find its commands."""

    def __init__(self, server: Server, base: Path) -> None:
        self.server = server
        self.sendmail = base / "sendmail"
        self.sendmail.write_text(f'#!/bin/sh\nexec {sys.executable} -m mailserver.commands.sendmail "$@"\n')
        self.sendmail.chmod(0o755)
        mailrc = base / "mailrc"
        mailrc.write_text(f"set sendmail={self.sendmail} nosave\n")
        own = {"MAIL_CONFIG": str(server.directory), "MAILRC": str(mailrc), "HOME": str(base)}
        self.environment = {**os.environ, **own, "LC_ALL": "C.UTF-8"}

    def run(self, *words: str, text: str = "", status: int = 0, **environment: str) -> Done:
        """What the program prints; its exit status must be the one given."""
        done = subprocess.run(
            words,
            input=text,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def command(self, name: str, *words: str, text: str = "", status: int = 0) -> Done:
        """One of our own commands."""
        return self.run(sys.executable, "-m", f"mailserver.commands.{name}", *words, text=text, status=status)

    def listing(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.command("postqueue", "-j").stdout.splitlines()]

    def queues(self) -> list[object]:
        """In which queue each message is."""
        return [each["queue_name"] for each in self.listing()]

    def deferred(self, subject: str) -> str:
        """The id of a message that waits for a host that is down."""
        self.command(
            "sendmail", "-f", "sender@example.com", "away@example.net", "other@example.net",
            text=f"Subject: {subject}\n\nhello\n",
        )  # fmt: skip
        wait_for(lambda: self.queues() == ["deferred"], "a deferred message")
        return str(self.listing()[0]["queue_id"])

    def arrived(self, name: str, subject: str) -> bytes:
        """The message with that subject, once it is in the mailbox."""
        inbox = self.server.inbox(name)

        def found() -> bytes:
            texts = inbox.read_bytes().split(b"\n\nFrom ") if inbox.exists() else []
            return next((text for text in texts if f"Subject: {subject}\n".encode() in text), b"")

        wait_for(found, f"{subject} for {name}")
        return found()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    base = tmp_path_factory.mktemp("local")
    with running(base / "home", "mbox", NOWHERE) as server:
        yield Machine(server, base)


@pytest.mark.needs("mutt")
def test_mutt(machine: Machine, tmp_path: Path) -> None:
    """mutt -s, with a copy, a blind copy and an attachment."""
    attached = tmp_path / "note.txt"
    attached.write_text("attached\n")
    muttrc = tmp_path / "muttrc"
    muttrc.write_text(f'set sendmail="{machine.sendmail} -oem -oi"\nset copy=no\nset hostname=example.org\n')
    machine.run(
        "mutt", "-n", "-F", str(muttrc), "-s", "from-mutt", "-b", "bob@example.org", "-a", str(attached),
        "--", "alice@example.org", text="hello\n.\nmore\n",
    )  # fmt: skip
    text = machine.arrived("alice", "from-mutt")
    assert b"hello\n.\nmore\n" in text and b'filename="note.txt"' in text
    assert b"bcc:" not in text.lower() and machine.arrived("bob", "from-mutt")


@pytest.mark.needs("bsd-mailx")
def test_bsd_mailx(machine: Machine) -> None:
    """mail -s: sendmail -i -t, with no From, Date or Message-Id in the text."""
    machine.run(
        "bsd-mailx", "-n", "-s", "from-mailx", "-b", "bob@example.org", "alice@example.org", text="hello\n"
    )  # fmt: skip
    text = machine.arrived("alice", "from-mailx")
    assert re.search(rb"\nMessage-Id: <\d{14}\.[0-9A-F]+@mail\.example\.org>\n", text)
    assert b"\nFrom: " in text and b"\nDate: " in text and b"bob" not in text
    machine.arrived("bob", "from-mailx")


@pytest.mark.needs("s-nail")
def test_s_nail(machine: Machine) -> None:
    """s-nail -r: sendmail -i -f X -- RCPT."""
    machine.run(
        "s-nail", "-:/", "-S", f"mta=file://{machine.sendmail}", "-S", "v15-compat=yes", "-S", "nosave",
        "-r", "carol@example.net", "-s", "from-snail", "alice@example.org", text="hello\n",
    )  # fmt: skip
    assert b"\nReturn-Path: <carol@example.net>\n" in machine.arrived("alice", "from-snail")


def test_cron(machine: Machine) -> None:
    """cron names the user alone, and its own full name."""
    text = "From: root (Cron Daemon)\nTo: alice\nSubject: from-cron\n\noutput\n"
    machine.command("sendmail", "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "alice", text=text)
    assert b"X-Original-To: alice\n" in machine.arrived("alice", "from-cron")
    machine.command("sendmail", "-FCronDaemon", "-i", "alice", text="Subject: nameless\n\noutput\n")
    assert b"\nFrom: CronDaemon <" in machine.arrived("alice", "nameless")


def test_git_send_email(machine: Machine) -> None:
    """sendmail -f X -i RCPT..., with a Message-Id of its own."""
    text = "From: Dev <dev@example.net>\nMessage-Id: <patch@git>\nSubject: from-git\n\n---\n.\n-- \n2.39\n"
    machine.command(
        "sendmail", "-f", "dev@example.net", "-i", "alice@example.org", "bob@example.org", text=text
    )
    for name in ("alice", "bob"):
        assert b"---\n.\n-- \n2.39\n" in machine.arrived(name, "from-git")
    assert received(machine.server, "alice", "<patch@git>")


def test_mail_while_the_server_is_down(machine: Machine) -> None:
    """It waits in the drop directory, is listed, and delivered at the next start."""
    machine.server.stop()
    try:
        machine.command("sendmail", "alice", text="Subject: patience\n\nhello\n")
        (entry,) = machine.listing()
        assert entry["queue_name"] == "maildrop" and entry["recipients"] == [{"address": "alice"}]
        shown = machine.command("postcat", "-q", str(entry["queue_id"])).stdout
        assert "recipient: alice\n" in shown and "Subject: patience\n" in shown
        down = machine.command("postqueue", "-f", status=69)
        assert down.stderr == "postqueue: fatal: Cannot flush mail queue - mail system is down\n"
    finally:
        machine.server.start()
    machine.arrived("alice", "patience")


def test_the_commands_beside_a_message_that_waits(machine: Machine) -> None:
    """postqueue, postcat and postsuper, as scripts use them."""
    queue_id = machine.deferred("waits")
    lines = machine.command("postqueue", "-p").stdout.splitlines()
    assert lines[0] == "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
    arrival = r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"{queue_id} {{5}}\d{{3}} {arrival}  sender@example\.com", lines[1])
    assert lines[2:5] == [REASON.rjust(78), " " * 41 + "away@example.net", " " * 41 + "other@example.net"]
    assert lines[5:] == ["", "-- 0 Kbytes in 1 Request."]
    shown = machine.command("postcat", queue_id).stdout
    assert f"*** ENVELOPE RECORDS deferred/{queue_id} ***\n" in shown
    assert "\nsender: sender@example.com\n" in shown and "\nrecipient: away@example.net\n" in shown
    assert f"*** MESSAGE CONTENTS deferred/{queue_id} ***\nReceived: by mail.example.org" in shown

    held = machine.command("postsuper", "-h", queue_id).stderr
    assert held == f"postsuper: {queue_id}: placed on hold\npostsuper: Placed on hold: 1 message\n"
    assert f"{queue_id}! " in machine.command("postqueue", "-p").stdout
    released = machine.command("postsuper", "-H", queue_id).stderr
    assert released.endswith("postsuper: Released from hold: 1 message\n")
    attempts = machine.server.log_text().count(f"{queue_id}: to=<away@example.net>")
    machine.command("postqueue", "-f")
    wait_for(
        lambda: machine.server.log_text().count(f"{queue_id}: to=<away@example.net>") > attempts,
        "another attempt",
    )
    machine.command("postqueue", "-i", queue_id)
    wait_for(lambda: machine.queues() == ["deferred"], "the end of the attempt")
    assert queue_id in machine.server.command("queue")
    deleted = machine.command("postsuper", "-d", "-", text=f"{queue_id}\nFFFFFFFFFFF\n").stderr
    assert deleted.endswith("postsuper: Deleted: 1 message\n")
    assert machine.command("postqueue", "-p").stdout == "Mail queue is empty\n"
    assert machine.command("postsuper", "-d", queue_id).stderr == "postsuper: Deleted: 0 messages\n"


def test_forced_expiry(machine: Machine) -> None:
    """postsuper -e: the sender hears at once why it was not delivered."""
    machine.command(
        "sendmail", "-f", "alice@example.org", "away@example.net", text="Subject: expires\n\nhello\n"
    )
    wait_for(lambda: machine.queues() == ["deferred"], "a deferred message")
    queue_id = str(machine.listing()[0]["queue_id"])
    machine.command("postsuper", "-e", queue_id)
    report = machine.arrived("alice", "Undelivered Mail Returned to Sender")
    assert b"Connection refused" in report
    wait_for(lambda: machine.listing() == [], "an empty queue")


def test_where_mail_would_go(machine: Machine) -> None:
    """sendmail -bv: the report says it for each recipient; nobody gets anything, nothing waits."""
    before = machine.server.inbox("bob").read_bytes() if machine.server.inbox("bob").exists() else b""
    said = machine.command("sendmail", "-bv", "-f", "alice", "bob", "nosuch", "away@example.net").stdout
    assert said == "Mail Delivery Status Report will be mailed to <alice>.\n"
    report = machine.arrived("alice", "Mail Delivery Status Report").decode()
    for line in (
        "<bob@example.org> (expanded from <bob>): delivery via local: delivers to\n    mailbox",
        '<nosuch@example.org> (expanded from <nosuch>): delivery via local: unknown\n    user: "nosuch"',
        "<away@example.net>: connect to 127.0.0.1[127.0.0.1]:1: Connection refused",
    ):
        assert line in report
    assert report.count("\nAction: deliverable\n") == 1 and report.count("\nAction: undeliverable\n") == 2
    wait_for(lambda: machine.listing() == [], "an empty queue")
    now = machine.server.inbox("bob").read_bytes() if machine.server.inbox("bob").exists() else b""
    assert now == before


def test_check_and_status(machine: Machine) -> None:
    """A clean configuration has nothing to say, also while its own server holds the ports."""
    clean = machine.command("postfix", "check")
    assert (clean.stdout, clean.stderr) == ("", "")
    pid = machine.server.process.pid if machine.server.process else 0
    status = machine.command("postfix", "status")
    assert status.stderr == f"postfix/postfix-script: the Postfix mail system is running: PID: {pid}\n"
    again = machine.command("postfix", "start", status=1)
    assert again.stderr == "postfix/postfix-script: fatal: the Postfix mail system is already running\n"
