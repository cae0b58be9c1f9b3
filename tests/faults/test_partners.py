"""Other programs that lock, rename, truncate, move and flag, and disks that go read-only.

RELIABILITY F20, F31 to F34.
"""

from __future__ import annotations

import fcntl
import mailbox
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailserver.delivery.job import Action, Job, Owner
from mailserver.delivery.local import LocalAgents
from mailserver.envelope import Outcome, Status
from mailserver.store.contract import MessageGone, NewMessage, StoreFailure, Uid
from mailserver.store.locking import LockRules
from tests.store.contract_suite import FIRST, SECOND, THIRD, contents
from tests.store.harness import MaildirHarness, MboxHarness

CONTENT = b"Subject: new\n\nbody\n"


def deliver(target: Path | str, rules: LockRules = LockRules(patience=10)) -> Outcome:  # noqa: B008
    """local(8)'s answer to one more message."""
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    descriptor = os.memfd_create("content")
    os.write(descriptor, CONTENT)
    job = Job(
        Action.MAILBOX, Owner("alice", os.getuid(), os.getgid(), "/"), str(target), "a@a.example", "alice",
        b"", 0, len(CONTENT),
    )  # fmt: skip
    outcome = LocalAgents("mx.example.org", rules=rules).perform(job, descriptor)
    os.close(descriptor)
    return outcome


PARTNER = """
import fcntl, os, sys, time
path, order = sys.argv[1:]
file = open(path, "r+b")
def lock_file(): fcntl.lockf(file, fcntl.LOCK_EX)
def lock_dot():
    while True:
        try:
            return os.close(os.open(path + ".lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            time.sleep(0.01)
first, second = (lock_file, lock_dot) if order == "fcntl-first" else (lock_dot, lock_file)
for number in range(20):
    first()
    time.sleep(0.005)
    second()
    file.seek(0, 2)
    file.write(b"From p@p Thu Jan  1 00:00:00 2026\\nSubject: p%d\\n\\nx\\n\\n" % number)
    file.flush()
    os.unlink(path + ".lock")
    fcntl.lockf(file, fcntl.LOCK_UN)
    time.sleep(0.002)
"""


@pytest.mark.parametrize("order", ["fcntl-first", "dotlock-first"])
def test_partners_that_lock_in_either_order(tmp_path: Path, order: str) -> None:
    """F32: no deadlock; everybody's mail is there once."""
    path = tmp_path / "alice"
    assert deliver(path).status is Status.DELIVERED
    partner = subprocess.Popen([sys.executable, "-c", PARTNER, str(path), order])
    ours = 1
    while partner.poll() is None:
        ours += deliver(path).status is Status.DELIVERED
    assert partner.returncode == 0
    subjects = [message["Subject"] for message in mailbox.mbox(path)]
    assert sorted(set(subjects) - {"new"}) == sorted(f"p{number}" for number in range(20))
    assert len(subjects) == 20 + ours


@pytest.mark.parametrize(
    "content", [b"", b"4194304", b"999999\n"], ids=["empty", "beyond any pid", "dead pid"]
)
def test_locks_of_the_dead(tmp_path: Path, content: bytes) -> None:
    """F31: one of a dead process is broken at once; one that tells nothing, by age."""
    path, lock = tmp_path / "alice", tmp_path / "alice.lock"
    lock.write_bytes(content)
    if content.isspace() or not content:
        assert deliver(path, LockRules(patience=0.1)).dsn == "4.2.0"
        os.utime(lock, (1, 1))
        path.touch()
        os.utime(path, (1, 1))
    assert deliver(path, LockRules(patience=5, stale_after=300)).status is Status.DELIVERED


def test_a_lock_of_the_living(tmp_path: Path) -> None:
    """F31, F32: never broken; the delivery waits its time and is deferred."""
    path, lock = tmp_path / "alice", tmp_path / "alice.lock"
    lock.write_bytes(b"%d\n" % os.getppid())
    assert deliver(path, LockRules(patience=0.2)).dsn == "4.2.0"
    assert lock.exists()
    lock.unlink()
    path.touch()
    with open(path, "r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        program = "import sys; sys.path.insert(0, '.'); from tests.faults.test_partners import *\n"
        program += f"print(deliver({str(path)!r}, LockRules(patience=0.2)).dsn)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "4.2.0", done.stderr


@pytest.fixture
def mbox(tmp_path: Path) -> Iterator[MboxHarness]:
    harness = MboxHarness(tmp_path)
    harness.store.open("INBOX").append([NewMessage(each) for each in (FIRST, SECOND, THIRD)])
    yield harness
    harness.registry.shut()


def test_a_mailbox_that_was_renamed_over(mbox: MboxHarness) -> None:
    """F33: a partner writes it anew, elsewhere, and renames; what is left keeps its UIDs."""
    box = mbox.store.open("INBOX")
    other = mbox.inbox_path.with_name("new")
    spool = mailbox.mbox(mbox.inbox_path)
    kept = [spool.get_bytes(key, from_=True) for key in list(spool.keys())[1:]]
    other.write_bytes(b"".join(text + b"\n" for text in kept))
    os.rename(other, mbox.inbox_path)
    box.append([NewMessage(FIRST.replace(b"Subject: ", b"Subject: new "))])
    assert list(box.uids) == [2, 3, 4]
    assert [box.read(Uid(uid))[:20] for uid in (2, 3)] == [SECOND[:20], THIRD[:20]]


def test_a_mailbox_that_was_truncated(mbox: MboxHarness) -> None:
    """F33: emptied while a session has it open; the messages are gone, never another's octets."""
    box = mbox.store.open("INBOX")
    os.truncate(mbox.inbox_path, 0)
    with pytest.raises(MessageGone):
        box.read(Uid(1))
    box.refresh()
    assert list(box.uids) == []
    assert deliver(mbox.inbox_path).status is Status.DELIVERED
    box.refresh()
    assert list(box.uids) == [4]


def test_a_partner_at_the_maildir_during_a_fetch(
    tmp_path: Path, chance: random.Random, thorough: bool, verdict: Callable[[str], None]
) -> None:
    """F34: it moves, flags and deletes; nobody is gone who is there, none reads another's octets."""
    count = 1000 if thorough else 200
    harness = MaildirHarness(tmp_path)
    expected = {
        number: b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number) for number in range(1, count + 1)
    }
    box = harness.store.open("INBOX")
    box.append([NewMessage(text) for text in expected.values()])
    deleted: set[int] = set()
    cur = harness.inbox_path / "cur"

    def partner() -> None:
        for name in chance.sample(sorted(os.listdir(cur)), count // 2):
            number = int((cur / name).read_bytes().split()[1])
            if chance.random() < 0.2:
                deleted.add(number)
                os.unlink(cur / name)
            else:
                os.rename(
                    cur / name, cur / (name.partition(":")[0] + ":2," + chance.choice(("S", "FS", "R")))
                )

    thread = threading.Thread(target=partner)
    thread.start()
    gone: set[int] = set()
    for uid, text in expected.items():
        try:
            assert box.read(Uid(uid)) == text
        except MessageGone:
            gone.add(uid)
            assert uid in deleted
        if uid % 10 == 0:
            box.refresh()
    thread.join()
    box.refresh()
    box.refresh()
    assert set(expected) - set(box.uids) == deleted
    verdict(f"{count} read, {len(deleted)} deleted by the partner, {len(gone)} found gone while reading")
    harness.registry.shut()


@contextmanager
def small_disk(path: Path) -> Iterator[Callable[[str], None]]:
    """A file system of its own; the answer remounts it with options."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(path)], check=True)
    try:
        yield (
            lambda options: (
                subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True) and None
            )
        )
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.needs("root", "mount")
@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_a_disk_that_goes_read_only(tmp_path: Path, kind: str) -> None:
    """F20: mail can be read; changes and deliveries fail for now; afterwards all goes on."""
    with small_disk(tmp_path / "disk") as remount:
        (tmp_path / "disk" / "spool").mkdir()
        harness = MaildirHarness(tmp_path, f"maildir:{tmp_path}/disk/spool/%u")
        target = str(harness.inbox_path) + "/"
        if kind == "mbox":
            harness.registry.shut()
            harness = MaildirHarness(tmp_path, f"mbox:{tmp_path}/disk/mail:INBOX={tmp_path}/disk/spool/m")
            target = str(harness.inbox_path)
        box = harness.store.open("INBOX")
        box.append([NewMessage(FIRST), NewMessage(SECOND)])
        remount("ro")
        assert contents(box) == {1: FIRST, 2: SECOND}
        with pytest.raises(StoreFailure):
            box.append([NewMessage(THIRD)])
        outcome = deliver(target, LockRules(patience=0.2))
        assert outcome.status is Status.DEFERRED and outcome.dsn.startswith("4.")
        remount("rw")
        assert deliver(target).status is Status.DELIVERED
        box.append([NewMessage(THIRD)])
        box.refresh()
        assert len(box.uids) == 4
        harness.registry.shut()
