"""Delivery to one leaf with our own rights: ECOSYSTEM §6, RELIABILITY 2.3."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.delivery.job import Action, Job, Owner
from mailserver.delivery.local import LocalAgents
from mailserver.envelope import Outcome, Status
from mailserver.store import mbox
from mailserver.store.locking import LockRules
from mailserver.store.quota_rules import parse_grace, parse_warnings
from tests.end_to_end.server import wait_for
from tests.store.faults import become_nobody, in_child, make_closed_spool

PREFIX = (
    b"Return-Path: <sender@example.com>\nX-Original-To: alice+x@a.example\nDelivered-To: alice@a.example\n"
)
CONTENT = b"Subject: hi\n\nbody\nFrom here\n"
BEFORE = b"octets of the queue file before the content\n"


@pytest.fixture
def content(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "queue-file"
    path.write_bytes(BEFORE + CONTENT + b"octets after it")
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def agents() -> LocalAgents:
    return LocalAgents("mx.example.org", rules=LockRules(patience=0.1))


def job(action: Action, target: Path | str, sender: str = "sender@example.com", **options: int) -> Job:
    owner = Owner("alice", os.getuid(), os.getgid(), "/", "/bin/sh")
    return Job(action, owner, str(target), sender, "alice", PREFIX, len(BEFORE), len(CONTENT), **options)  # type: ignore[arg-type]


def test_mailbox_bytes(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """Postfix's mbox to the octet: two spaces, quoting, one empty line; mode 0600."""
    path = tmp_path / "alice"
    for _ in range(2):
        outcome = agents.perform(job(Action.MAILBOX, path), content)
        assert outcome == Outcome.delivered("delivered to mailbox")
    message = PREFIX + CONTENT.replace(b"From here", b">From here") + b"\n"
    line = rb"From sender@example.com  \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n"
    assert re.fullmatch((line + re.escape(message)) * 2, path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o600
    assert not path.with_name("alice.lock").exists()


def test_null_sender(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """A bounce comes from MAILER-DAEMON."""
    agents.perform(job(Action.MAILBOX, tmp_path / "alice", sender=""), content)
    assert (tmp_path / "alice").read_bytes().startswith(b"From MAILER-DAEMON  ")


def test_maildir(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """A trailing slash means maildir: no `From ` line, no quoting, no empty line."""
    outcome = agents.perform(job(Action.MAILBOX, f"{tmp_path}/Maildir/"), content)
    assert outcome == Outcome.delivered("delivered to maildir")
    (message,) = (tmp_path / "Maildir" / "new").iterdir()
    assert message.read_bytes() == PREFIX + CONTENT


def test_file(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """/file of an alias: an mbox, whoever owns it; /dev/null takes everything."""
    path = tmp_path / "archive"
    assert agents.perform(job(Action.FILE, path), content) == Outcome.delivered(f"delivered to file: {path}")
    assert path.read_bytes().startswith(b"From sender@example.com  ")
    assert agents.perform(job(Action.FILE, "/dev/null"), content).status is Status.DELIVERED


def test_file_that_is_a_program(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """Mail is never appended to an executable file."""
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    outcome = agents.perform(job(Action.FILE, path), content)
    assert outcome == Outcome.failed(f"cannot append message to file {path}: file is executable", "5.7.0")
    assert path.read_text() == "#!/bin/sh\n"


def test_command(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """With `From ` line, without quoting and without an empty line at the end."""
    outcome = agents.perform(job(Action.COMMAND, f"cat > {tmp_path}/got"), content)
    assert outcome == Outcome.delivered(f"delivered to command: cat > {tmp_path}/got")
    line, _, rest = (tmp_path / "got").read_bytes().partition(b"\n")
    assert line.startswith(b"From sender@example.com  ")
    assert rest == PREFIX + CONTENT


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo", "directory", "socket"])
def test_what_is_no_mailbox(tmp_path: Path, content: int, agents: LocalAgents, kind: str) -> None:
    """RELIABILITY B7: what a link points at is never touched, nothing is waited for."""
    path, secret = tmp_path / "alice", tmp_path / "secret"
    secret.write_text("secret")
    make = {
        "link": lambda: path.symlink_to(secret),
        "hard link": lambda: path.hardlink_to(secret),
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "socket": lambda: os.mknod(path, 0o140600),
    }
    make[kind]()
    outcome = agents.perform(job(Action.MAILBOX, path), content)
    assert outcome.text.startswith(f"cannot update mailbox {path} for user alice. destination {path} ")
    expected = (Status.DEFERRED, "4.2.0") if kind == "hard link" else (Status.FAILED, "5.2.0")
    assert (outcome.status, outcome.dsn) == expected
    assert secret.read_text() == "secret"


def test_swapping_mailbox_and_link_gains_nothing(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """RELIABILITY B7: whoever swaps names under a delivery never gets mail written where a link points."""
    path, other, secret = tmp_path / "alice", tmp_path / "other", tmp_path / "secret"
    secret.write_text("secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            other.symlink_to(secret)
            os.rename(other, path)
            other.touch()
            os.rename(other, path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        outcomes = {agents.perform(job(Action.MAILBOX, path), content).status for _ in range(60)}
    finally:
        stop.set()
        thread.join()
    assert secret.read_text() == "secret"
    assert outcomes <= {Status.DELIVERED, Status.DEFERRED, Status.FAILED}


def test_another_users_mailbox(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """strict_mailbox_ownership: deferred, never delivered."""
    path = tmp_path / "alice"
    path.touch()
    other = job(Action.MAILBOX, path)
    values = {name: getattr(other, name) for name in Job.__dataclass_fields__}
    values["owner"] = Owner("alice", os.getuid() + 1, 0, "/")
    outcome = agents.perform(Job(**values), content)
    assert (outcome.status, outcome.dsn) == (Status.DEFERRED, "4.2.0")
    assert outcome.text.endswith(f"destination {path} is not owned by recipient")
    assert path.read_bytes() == b""


def test_locked_mailbox(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """A lock that stays taken defers."""
    path = tmp_path / "alice"
    path.touch()
    path.with_name("alice.lock").write_text(f"{os.getppid()}\n")
    outcome = agents.perform(job(Action.MAILBOX, path), content)
    assert (outcome.status, outcome.dsn) == (Status.DEFERRED, "4.2.0")
    assert "unable to lock" in outcome.text
    assert path.read_bytes() == b""


def test_size_limit(tmp_path: Path, content: int) -> None:
    """RELIABILITY F19: exactly full is allowed, one octet more bounces, or waits where that is chosen."""
    path = tmp_path / "alice"
    agents = LocalAgents("mx", full_is_temporary=False)
    agents.perform(job(Action.MAILBOX, path), content)
    once = path.stat().st_size
    assert agents.perform(job(Action.MAILBOX, path, size_limit=2 * once), content).status is Status.DELIVERED
    outcome = agents.perform(job(Action.MAILBOX, path, size_limit=3 * once - 1), content)
    text = f"cannot update mailbox {path} for user alice. error writing message: File too large"
    assert outcome == Outcome.failed(text, "5.2.2")
    assert path.stat().st_size == 2 * once
    patient = LocalAgents("mx", full_is_temporary=True)
    assert patient.perform(job(Action.MAILBOX, path, size_limit=1), content) == Outcome.deferred(
        text, "4.2.2"
    )


def outcome_in_child(act: object) -> tuple[str, str, str]:
    """The status, code and text of an outcome that a child found."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)

    def run() -> None:
        outcome = act()  # type: ignore[operator]
        os.write(writing, json.dumps([outcome.status.value, outcome.dsn, outcome.text]).encode())

    assert in_child(run) == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        status, dsn, text = json.load(pipe)
    return status, dsn, text


@pytest.mark.parametrize(
    ("number", "status", "dsn", "reason"),
    [
        (errno.ENOSPC, "deferred", "4.3.0", "error writing message: No space left on device"),
        (errno.EDQUOT, "bounced", "5.2.2", "error writing message: Disk quota exceeded"),
        (errno.EFBIG, "bounced", "5.2.2", "error writing message: File too large"),
        (errno.EIO, "deferred", "4.3.0", "error writing message: Input/output error"),
        (errno.EROFS, "deferred", "4.3.0", "Read-only file system"),
        (errno.EMFILE, "deferred", "4.3.0", "Too many open files"),
        (errno.ESTALE, "deferred", "4.2.0", "Stale file handle"),
    ],
)
def test_errors_of_the_disk(
    tmp_path: Path, content: int, agents: LocalAgents, number: int, status: str, dsn: str, reason: str
) -> None:
    """RELIABILITY 2.3, P5: our own trouble is never permanent; the mailbox is as it was."""
    path = tmp_path / "alice"
    agents.perform(job(Action.MAILBOX, path), content)
    before = path.read_bytes()

    def act() -> Outcome:
        real = os.fdatasync

        def fail_once(descriptor: int) -> None:
            os.fdatasync = real
            raise OSError(number, os.strerror(number))

        os.fdatasync = fail_once
        return agents.perform(job(Action.MAILBOX, path), content)

    text = f"cannot update mailbox {path} for user alice. {reason}"
    assert outcome_in_child(act) == (status, dsn, text)
    assert path.read_bytes() == before


def test_no_right_to_the_directory(content: int, agents: LocalAgents) -> None:
    """A mailbox that we may not make is deferred, one that is there is written without a dotlock."""
    with make_closed_spool("alice") as spool:

        def deliver(name: str) -> Outcome:
            become_nobody()
            return agents.perform(job(Action.MAILBOX, spool / name), content)

        assert outcome_in_child(lambda: deliver("alice"))[0] == "sent"
        status, dsn, text = outcome_in_child(lambda: deliver("bob"))
        assert (status, dsn) == ("deferred", "4.3.0")
        assert text.endswith("Permission denied")


@pytest.mark.needs("root")
def test_mailbox_made_by_root(tmp_path: Path) -> None:
    """A role that is root makes the file for the user; what is there is left alone."""
    path = tmp_path / "alice"
    mbox.create_mailbox(str(path), 1234, 8)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 8, 0o600)
    path.write_bytes(b"mail")
    mbox.create_mailbox(str(path), 1, 1)
    assert (path.read_bytes(), path.stat().st_uid) == (b"mail", 1234)


def test_content_that_is_cut_short(tmp_path: Path, agents: LocalAgents) -> None:
    """A queue file that lost its end delivers nothing."""
    path = tmp_path / "queue-file"
    path.write_bytes(BEFORE)
    with path.open("rb") as file:
        outcome = agents.perform(job(Action.MAILBOX, tmp_path / "alice"), file.fileno())
        assert (outcome.status, outcome.dsn) == (Status.DEFERRED, "4.3.0")
        assert "error reading message" in outcome.text
        assert (tmp_path / "alice").read_bytes() == b""
        outcome = agents.perform(job(Action.COMMAND, f"cat > /dev/null; touch {tmp_path}/ran"), file.fileno())
        assert outcome.status is Status.DEFERRED
        assert not (tmp_path / "ran").exists()


def test_fork_that_fails(content: int, agents: LocalAgents) -> None:
    """RELIABILITY F23: no process to be had defers."""

    def act() -> Outcome:
        become_nobody()
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        return agents.perform(job(Action.COMMAND, "cat"), content)

    assert outcome_in_child(act)[:2] == ("deferred", "4.3.0")


def test_the_unexpected_is_deferred_and_reported(content: int) -> None:
    """A bug of ours never bounces mail, and its traceback is not lost."""
    reports: list[str] = []
    agents = LocalAgents("mx", report=reports.append)
    outcome = agents.perform(job(Action.MAILBOX, "/a\0b"), content)
    assert (outcome.status, outcome.dsn) == (Status.DEFERRED, "4.3.0")
    assert "\n" not in outcome.text
    assert "Traceback" in reports[0]


def test_a_missing_home_waits_where_homes_are_required(tmp_path: Path) -> None:
    """require_home_directory: an unmounted home is no reason to deliver elsewhere."""
    owner = Owner("alice", os.getuid(), os.getgid(), str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError):
        LocalAgents("mx", requires_home=True).read_forward(owner, ("/nonexistent/.forward",))
    assert LocalAgents("mx").read_forward(owner, ("/nonexistent/.forward",)) == (None, ())


def test_the_shell_for_commands_may_be_chosen(tmp_path: Path, content: int) -> None:
    """local_command_shell gets even what needs no shell, as one argument."""
    shell = tmp_path / "shell"
    shell.write_text('#!/bin/sh\necho "$1|$2" > "${0}.saw"; cat > /dev/null\n')
    shell.chmod(0o755)
    outcome = LocalAgents("mx", command_shell=(str(shell), "-c")).perform(
        job(Action.COMMAND, "/bin/true now"), content
    )
    assert outcome.status is Status.DELIVERED
    assert (tmp_path / "shell.saw").read_text() == "-c|/bin/true now\n"


@pytest.mark.parametrize(("is_temporary", "dsn"), [(False, "5.2.2"), (True, "4.2.2")])
def test_quota(tmp_path: Path, content: int, is_temporary: bool, dsn: str) -> None:
    """What its owner may not store is refused, for good or for now, and nothing is left of it."""
    agents = LocalAgents("mx.example.org", full_is_temporary=is_temporary, accounts_directory=str(tmp_path))
    target, size = f"{tmp_path}/Maildir/", len(PREFIX) + len(CONTENT)
    fits, full = ({"quota": f"*:bytes={limit}"} for limit in (size, size - 1))
    refused = agents.perform(job(Action.MAILBOX, target, **full), content)  # type: ignore[arg-type]
    assert (refused.dsn, refused.text) == (
        dsn,
        "maildir delivery failed: Quota exceeded (mailbox for user is full)",
    )
    assert not (tmp_path / "Maildir").exists()
    assert agents.perform(job(Action.MAILBOX, target, **fits), content).status is Status.DELIVERED  # type: ignore[arg-type]
    assert agents.perform(job(Action.MAILBOX, target, **fits), content).dsn == dsn  # type: ignore[arg-type]


@pytest.mark.parametrize(("grace", "takes"), [("", 1), ("10%", 1), ("100%", 2), ("1k", 2), ("1G", 2)])
def test_the_last_message_may_lead_over_a_quota(tmp_path: Path, content: int, grace: str, takes: int) -> None:
    """Dovecot's quota_grace: who has room left gets one more message, so far over; then nothing."""
    agents = LocalAgents("mx.example.org", accounts_directory=str(tmp_path), quota_grace=parse_grace(grace))
    limit = 3 * (len(PREFIX) + len(CONTENT)) // 2
    a_job = job(Action.MAILBOX, f"{tmp_path}/Maildir/", quota=f"*:bytes={limit}")
    outcomes = [agents.perform(a_job, content) for _ in range(takes + 2)]
    assert [each.status is Status.DELIVERED for each in outcomes] == [True] * takes + [False] * 2


def test_a_quota_warning(tmp_path: Path, content: int) -> None:
    """The delivery that passes the mark runs the script, none before and none behind it."""
    script, notes = tmp_path / "warn", tmp_path / "notes"
    script.write_text(f'#!/bin/sh\necho "$* $HOME" >> {notes}\n')
    script.chmod(0o755)
    warnings = parse_warnings(f"storage=50% {script} 50 %u")
    agents = LocalAgents("mx.example.org", accounts_directory=str(tmp_path), quota_warnings=warnings)
    size = len(PREFIX) + len(CONTENT)
    for _ in range(3):
        a_job = job(Action.MAILBOX, f"{tmp_path}/Maildir/", quota=f"*:bytes={4 * size}")
        assert agents.perform(a_job, content).status is Status.DELIVERED
    wait_for(lambda: notes.exists() and notes.read_text().endswith("\n"), "the script")
    assert notes.read_text() == f"50 {a_job.owner.name} {a_job.owner.home}\n"


def test_a_maildir_is_made_with_what_is_above_it(tmp_path: Path, content: int, agents: LocalAgents) -> None:
    """virtual(8): `base/domain/user/` need not be there, for nobody else to read."""
    target = tmp_path / "domain.test" / "user"
    assert agents.perform(job(Action.MAILBOX, f"{target}/"), content).status is Status.DELIVERED
    assert len(list((target / "new").iterdir())) == 1
    assert (tmp_path / "domain.test").stat().st_mode & 0o077 == 0
