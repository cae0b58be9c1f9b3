"""A process that is stopped while it holds a mailbox's locks, and goes on. RELIABILITY F12.

The child stops itself by SIGSTOP at a chosen point within a change, as a debugger or a laptop would
stop it. Meanwhile others come. With FAULTS=all it stands still for two minutes.
"""

from __future__ import annotations

import mailbox
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailserver.envelope import Status
from mailserver.store import locking
from mailserver.store.contract import DELETED, MailboxBusy, NewMessage, StoreMode, Uid
from mailserver.store.locking import LockRules
from mailserver.store.mbox_append import deposit
from tests.faults.test_partners import deliver
from tests.store.harness import MboxHarness

DONE, BUSY = 0, 7
THIRD = b"Subject: third\r\n\r\nbody\r\n"
PARTNERS = b"From p@p Thu Jan  1 00:00:00 2026\nSubject: partner\n\nhis\n\n"
LARGE = b"Subject: large\n\n" + b"x" * 63 + b"\n"


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stop_at(name: str) -> None:
    """The process stops once before it calls that function of `os`."""
    real = getattr(os, name)

    def stopping(*arguments: object) -> object:
        setattr(os, name, real)
        stop()
        return real(*arguments)

    setattr(os, name, stopping)


def deposit_large(harness: MboxHarness) -> None:
    """A delivery of many blocks, half of them written."""

    def pieces() -> Iterator[bytes]:
        for number in range(20_000):
            if number == 10_000:
                stop()
            yield LARGE

    deposit(str(harness.inbox_path), "a@a.example", pieces())


def append(harness: MboxHarness) -> None:
    """IMAP APPEND, before it writes."""
    box = harness.store.open("INBOX")
    stop_at("lseek")
    box.append([NewMessage(THIRD)])


def expunge(harness: MboxHarness) -> None:
    """A rewrite, before the new file is whole and takes the old one's name."""
    box = harness.store.open("INBOX")
    box.change_flags([Uid(1)], frozenset({DELETED}), StoreMode.ADD)
    stop_at("fsync")
    box.expunge()


# What is done, and the subjects in the mailbox afterwards.
ACTS: dict[str, tuple[Callable[[MboxHarness], None], list[str]]] = {
    "delivery": (deposit_large, ["first", "second", "large"]),
    "append": (append, ["first", "second", "third"]),
    "expunge": (expunge, ["second"]),
}


def in_a_child(directory: Path, name: str) -> int:
    """The id of a process that is at it: it ends with DONE, BUSY, or 1 where something else went wrong."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        ACTS[name][0](MboxHarness(directory))
        code = DONE
    except MailboxBusy:
        code = BUSY
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    harness = MboxHarness(tmp_path)
    texts = [b"Subject: %b\r\n\r\nbody\r\n" % word for word in (b"first", b"second")]
    harness.store.open("INBOX").append([NewMessage(text) for text in texts])
    harness.registry.shut()
    return harness.inbox_path


@contextmanager
def stopped(directory: Path, name: str, seconds: float) -> Iterator[Callable[[], int]]:
    """Within, a process stands still in the midst of the act; the answer lets it go on, and tells its end."""
    child = in_a_child(directory, name)
    ended = False

    def go_on() -> int:
        nonlocal ended
        os.kill(child, signal.SIGCONT)
        _, status = os.waitpid(child, 0)
        ended = True
        return os.waitstatus_to_exitcode(status)

    try:
        _, status = os.waitpid(child, os.WUNTRACED)
        ended = not os.WIFSTOPPED(status)
        assert not ended, "it ended before it was stopped"
        time.sleep(seconds)
        yield go_on
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def subjects(path: Path) -> list[str]:
    box = mailbox.mbox(path, create=False)
    return [message["Subject"] for message in box]


@pytest.fixture
def seconds(thorough: bool, monkeypatch: pytest.MonkeyPatch) -> float:
    """How long it stands still: longer than a lock is left without a look at it."""
    if thorough:
        return 120.0
    monkeypatch.setattr(locking, "_TOUCH_EVERY", 0.5)
    return 1.0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ACTS)
def test_stopped_and_gone_on(tmp_path: Path, inbox: Path, name: str, seconds: float) -> None:
    """F12: others wait and do not steal the lock of a living process, however long it says nothing."""
    with stopped(tmp_path, name, seconds) as go_on:
        assert deliver(inbox, LockRules(patience=0.2)).dsn == "4.2.0"
        assert go_on() == DONE
    assert subjects(inbox) == ACTS[name][1]
    assert deliver(inbox).status is Status.DELIVERED
    assert subjects(inbox) == [*ACTS[name][1], "new"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stays", [False, True], ids=["let go", "still locked"])
@pytest.mark.parametrize("name", ACTS)
def test_the_lock_was_broken(tmp_path: Path, inbox: Path, name: str, stays: bool, seconds: float) -> None:
    """F12: a partner that knows dotlocks only broke ours by age and appended: nothing of his is harmed."""
    lock, before = inbox.with_name(inbox.name + ".lock"), inbox.read_bytes()
    with stopped(tmp_path, name, seconds) as go_on:
        lock.unlink()
        lock.write_text("partner")
        with inbox.open("ab") as file:
            file.write(PARTNERS)
        if not stays:
            lock.unlink()
        assert go_on() == BUSY
    assert lock.exists() == stays
    lock.unlink(missing_ok=True)
    content = inbox.read_bytes().replace(b"X-Status: D ", b"X-Status:   ")  # expunge's own, from before
    assert content.endswith(PARTNERS)
    assert content.startswith(before)
    if name != "delivery" or not stays:  # else the beginning of ours may not be touched
        assert content == before + PARTNERS
    assert deliver(inbox).status is Status.DELIVERED
    assert subjects(inbox)[-1] == "new"


def test_the_lock_was_broken_and_nobody_wrote(tmp_path: Path, inbox: Path, seconds: float) -> None:
    """F12: the delivery is undone to the octet, under the lock taken anew, and comes again later."""
    before = inbox.read_bytes()
    with stopped(tmp_path, "delivery", min(seconds, 31.0)) as go_on:
        inbox.with_name(inbox.name + ".lock").unlink()
        assert go_on() == BUSY
    assert inbox.read_bytes() == before
    assert not inbox.with_name(inbox.name + ".lock").exists()
