"""The classic programs behind `|command`: procmail, maildrop, vacation, as Debian ships them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mailserver.delivery.job import Action, Job, Owner
from mailserver.delivery.local import LocalAgents
from mailserver.envelope import Outcome, Status
from tests.store.faults import become_nobody, give_to_nobody, in_child, make_open_directory

PREFIX = b"Return-Path: <carol@example.com>\nX-Original-To: nobody\nDelivered-To: nobody@example.org\n"
CONTENT = b"From: carol@example.com\nTo: nobody@example.org\nSubject: hi\n\nFrom here\n"


@pytest.fixture
def home() -> Iterator[Path]:
    with make_open_directory() as directory:
        yield directory


def deliver(home: Path, command: str, expected: Outcome, prepare: Callable[[], None] = lambda: None) -> None:
    """The command runs as nobody, where we are root: these programs have views on root's mail."""
    queue_file = home / "queue-file"
    queue_file.write_bytes(CONTENT)
    queue_file.chmod(0o644)

    def act() -> None:
        prepare()
        become_nobody()
        owner = Owner("nobody", os.getuid(), os.getgid(), str(home), "/bin/sh")
        environment = {"RECIPIENT": "nobody@example.org", "SENDER": "carol@example.com", "LOCAL": "nobody"}
        job = Job(
            Action.COMMAND,
            owner,
            command,
            "carol@example.com",
            "nobody",
            PREFIX,
            0,
            len(CONTENT),
            environment,
        )
        with queue_file.open("rb") as content:
            outcome = LocalAgents("mx").perform(job, content.fileno())
        assert (outcome.status, outcome.dsn) == (expected.status, expected.dsn), outcome
        assert outcome.text.startswith(expected.text)

    assert in_child(act) == 0


def delivered(command: str) -> Outcome:
    return Outcome.delivered(f"delivered to command: {command}")


@pytest.mark.needs("procmail")
def test_procmail(home: Path) -> None:
    """Its recipes see the `From ` line and our header lines; it writes the mbox that it always wrote."""
    recipes = home / "recipes"
    recipes.write_text(
        f"MAILDIR={home}\nDEFAULT={home}/inbox\n:0:\n* ^Subject: hi\n* ^Delivered-To: nobody@\nsorted\n"
    )
    give_to_nobody(recipes, 0o644)
    command = f"/usr/bin/procmail -m {recipes}"
    deliver(home, command, delivered(command))
    text = (home / "sorted").read_bytes()
    assert text.startswith(b"From carol@example.com  ")
    assert text.endswith(b"Subject: hi\n\n>From here\n\n")
    assert PREFIX in text


@pytest.mark.needs("procmail")
def test_procmail_that_refuses(home: Path) -> None:
    """EXITCODE reaches the sender as the status that it stands for."""
    recipes = home / "recipes"
    recipes.write_text("EXITCODE=67\n:0\n/dev/null\n")
    give_to_nobody(recipes, 0o644)
    deliver(home, f"procmail -m {recipes}", Outcome(Status.FAILED, "5.1.1", "user unknown"))


@pytest.mark.needs("maildrop")
def test_maildrop(home: Path) -> None:
    """A filter file of the user's, and a failure that is temporary."""
    rules = home / "rules"
    rules.write_text(f'to "{home}/filtered"\n')
    give_to_nobody(rules, 0o600)
    command = f"/usr/bin/maildrop {rules}"
    deliver(home, command, delivered(command))
    assert b"Subject: hi" in (home / "filtered").read_bytes()
    rules.write_text("EXITCODE=75\nexit\n")
    deliver(home, command, Outcome(Status.DEFERRED, "4.3.0", "temporary failure"))


@pytest.mark.needs("root", "vacation", "sendmail", "mount")
def test_vacation(home: Path) -> None:
    """It answers the sender, once; a recorder stands in for sendmail, in a mount namespace of the child's."""
    give_to_nobody(_write(home / ".vacation.msg", "Subject: away\n\nI am away.\n"), 0o644)
    recorder = _write(home / "sendmail", f'#!/bin/sh\n(echo "$@"; cat) >> {home}/sent\n')
    recorder.chmod(0o755)

    stand_in = partial(_stand_in, home, recorder)

    def initialise() -> None:
        stand_in()
        become_nobody()
        assert os.system("vacation -i nobody") == 0

    assert in_child(initialise) == 0
    for _ in range(2):
        deliver(home, "/usr/bin/vacation nobody", delivered("/usr/bin/vacation nobody"), stand_in)
    sent = (home / "sent").read_text()
    assert sent.count("I am away.") == 1
    assert "carol@example.com" in sent


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _stand_in(home: Path, recorder: Path) -> None:
    """For this process and its children sendmail is the recorder, and nobody has that home.

    unshare(2), CLONE_NEWNS.
    """
    users = Path("/etc/passwd").read_text()
    passwd = _write(home / "passwd", users.replace(":/nonexistent:", f":{home}:"))
    passwd.chmod(0o644)
    assert ctypes.CDLL(None, use_errno=True).unshare(0x20000) == 0
    assert os.system("mount --make-rprivate /") == 0
    assert os.system(f"mount --bind {recorder} /usr/sbin/sendmail") == 0
    assert os.system(f"mount --bind {passwd} /etc/passwd") == 0
