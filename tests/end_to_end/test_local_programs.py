"""procmail, maildrop and vacation as system users have them: mailbox_command and .forward, end to end."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.root_mail import forwarding, logged, send, user_file
from tests.end_to_end.root_server import USERS, RootServer
from tests.end_to_end.server import wait_for

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    started = RootServer()
    started.configure(
        "recipient_delimiter = +",
        'mailbox_command = /usr/bin/procmail -a "$EXTENSION"',
        "mailbox_command_maps = inline:{ { viktor = /usr/bin/maildrop -d ${USER} } }",
    )
    started.start()
    yield started
    started.remove()


def contains(path: Path, text: str) -> None:
    """Returns once the file has the text."""
    wait_for(lambda: path.exists() and text in path.read_text(), f"{text!r} in {path}")


@pytest.mark.needs("procmail")
def test_procmail_delivers_by_its_recipes(server: RootServer) -> None:
    """mailbox_command as Debian's documentation has it; $1 of the recipes is the address extension."""
    recipes = "DEFAULT=$HOME/inbox\nARG = $1\n:0:\n* ARG ?? ^lists$\nlists\n"
    user_file(server, "ursula", ".procmailrc", "MAILDIR=$HOME\n" + recipes, 0o644)
    send(server, "plain", "ursula@example.org")
    send(server, "listed", "ursula+lists@example.org")
    logged(server, 'status=sent (delivered to command: /usr/bin/procmail -a "$EXTENSION")')
    contains(server.home("ursula") / "inbox", "Subject: plain")
    contains(server.home("ursula") / "lists", "Delivered-To: ursula+lists@example.org")
    assert (server.home("ursula") / "lists").stat().st_uid == USERS["ursula"]


@pytest.mark.needs("maildrop")
def test_maildrop_delivers_for_single_users(server: RootServer) -> None:
    """mailbox_command_maps before mailbox_command; a filter that fails for now defers, as it says."""
    rules = user_file(server, "viktor", ".mailfilter", 'to "$HOME/filtered"\n', 0o600)
    send(server, "sieved", "viktor@example.org")
    contains(server.home("viktor") / "filtered", "Subject: sieved")
    rules.write_text("EXITCODE=75\nexit\n")
    send(server, "later", "viktor@example.org")
    logged(server, "dsn=4.3.0, status=deferred (temporary failure)")


def ended(server: RootServer, command: str, count: int) -> None:
    """Returns once the command has run so often."""
    line = f"(delivered to command: {command})"
    wait_for(lambda: server.log_text().count(line) == count, f"{count} runs of {command}")


def ask(server: RootServer, subject: str) -> None:
    """A message that names ursula in To:, as vacation(1) wants it."""
    fields = f"From: carol@example.net\r\nTo: ursula@example.org\r\nSubject: {subject}\r\n"
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.sendmail("carol@example.net", ["ursula@example.org"], f"{fields}\r\nhi\r\n")


@pytest.mark.needs("vacation", "sendmail", "nsenter")
def test_vacation_answers_from_a_forward_file(server: RootServer) -> None:
    r""".forward `\user, "|vacation user"`: the mail is kept, the sender answered once.

    A recorder stands in for sendmail, in the server's mount namespace.
    """
    assert server.process is not None
    recorder = server.directory / "sendmail"
    recorder.write_text('#!/bin/sh\n(echo "$@"; cat) >> "$HOME/answers"\n')
    recorder.chmod(0o755)
    inside = ["nsenter", "--mount", f"--target={server.process.pid}"]
    subprocess.run([*inside, "mount", "--bind", str(recorder), "/usr/sbin/sendmail"], check=True)
    user_file(server, "ursula", ".vacation.msg", "Subject: away\n\nI am away.\n", 0o644)
    user_file(server, "ursula", ".procmailrc", "DEFAULT=$HOME/inbox\n", 0o644)
    subprocess.run([*inside, "su", "ursula", "-c", "vacation -i"], check=True)
    with forwarding(server, "ursula", '\\ursula, "|/usr/bin/vacation ursula"\n'):
        for count, number in enumerate(("first", "second"), 1):
            ask(server, f"asked-{number}")
            contains(server.home("ursula") / "inbox", f"Subject: asked-{number}")
            ended(server, "/usr/bin/vacation ursula", count)
    answers = (server.home("ursula") / "answers").read_text()
    assert answers.count("I am away.") == 1
    assert "carol@example.net" in answers
