"""Locks that exclude every mail program, starve nobody, and outlive no process. RELIABILITY 2.4."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.store import locking, turns
from mailserver.store.contract import MailboxBusy
from mailserver.store.locking import LockRules
from tests.store.faults import become_nobody, failing_at, in_child, make_closed_spool, writable

QUICK = LockRules(patience=0.15)


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    path = tmp_path / "alice"
    path.write_bytes(b"")
    return path


@pytest.fixture
def closed_spool() -> Iterator[Path]:
    with make_closed_spool("alice") as directory:
        yield directory


def opener(path: Path, flags: int = os.O_RDWR) -> Callable[[], int]:
    return lambda: os.open(path, flags)


def lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def age(*paths: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in paths:
        os.utime(path, (then, then))


def dead_pid() -> int:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def can_lock(path: Path, rules: LockRules = QUICK) -> bool:
    try:
        with locking.exclusive(str(path), opener(path), rules):
            return True
    except MailboxBusy:
        return False


def test_dotlock_names_process_and_host(mailbox: Path) -> None:
    """The lock is there while held, names its holder, and is gone afterwards."""
    with locking.exclusive(str(mailbox), opener(mailbox)):
        assert lock_of(mailbox).read_text() == f"{os.getpid()}:{socket.gethostname()}\n"
        assert lock_of(mailbox).stat().st_nlink == 1
    assert os.listdir(mailbox.parent) == ["alice"]


def test_liblockfile_respects_it(mailbox: Path) -> None:
    """dotlockfile, which mail(1) is built on, reads our pid and waits; it gets the lock when we are done."""
    command = ["dotlockfile", "-p", "-r", "0", str(lock_of(mailbox))]
    with locking.exclusive(str(mailbox), opener(mailbox)):
        assert subprocess.run(command).returncode == 4
    assert subprocess.run(command).returncode == 0


def test_fcntl_lock_of_whole_file(mailbox: Path) -> None:
    """Another process's POSIX lock, even far behind the end, as procmail takes it, conflicts."""

    def try_posix() -> None:
        descriptor = os.open(mailbox, os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 10_000)

    with locking.exclusive(str(mailbox), opener(mailbox)):
        assert in_child(try_posix) == 1
    assert in_child(try_posix) == 0


def test_second_open_of_the_same_process_is_refused(mailbox: Path) -> None:
    """POSIX locks would grant it, and closing it would drop the first one."""
    with locking.exclusive(str(mailbox), opener(mailbox)):
        other = os.open(mailbox, os.O_RDWR)
        assert not locking.lock_descriptor(other, exclusive=True)
        os.close(other)
        third = os.open(mailbox, os.O_RDWR)
        assert not locking.lock_descriptor(third, exclusive=False)
        os.close(third)


def test_waits_for_fcntl_holder(mailbox: Path) -> None:
    """A partner that holds fcntl and waits for the dotlock gets it between our tries: no deadlock."""
    script = (
        "import fcntl, os, sys, time\n"
        "mailbox, lock = sys.argv[1:]\n"
        "f = open(mailbox, 'r+'); fcntl.lockf(f, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.readline()\n"
        "while True:\n"
        "    try: os.close(os.open(lock, os.O_CREAT | os.O_EXCL)); break\n"
        "    except FileExistsError: time.sleep(0.001)\n"
        "f.write('theirs'); f.flush(); os.unlink(lock)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(mailbox), str(lock_of(mailbox))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as partner:
        assert partner.stdin and partner.stdout
        assert partner.stdout.readline() == b"held\n"
        assert not can_lock(mailbox)
        partner.stdin.write(b"\n")
        partner.stdin.flush()
        with locking.exclusive(str(mailbox), opener(mailbox)) as held:
            assert os.pread(held.descriptor, 10, 0) == b"theirs"


def test_lock_of_a_dead_process_is_broken_at_once(mailbox: Path) -> None:
    """RELIABILITY F31: after SIGKILL nobody waits for minutes, whether host is named or not."""
    for text in (f"{dead_pid()}:{socket.gethostname()}\n", f"{dead_pid()}\n", f"{os.getpid()}\n"):
        lock_of(mailbox).write_text(text)
        assert can_lock(mailbox)
        assert not lock_of(mailbox).exists()


def test_lock_of_a_live_process_is_never_broken(mailbox: Path) -> None:
    """However old it and the mailbox are."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        lock_of(mailbox).write_text(f"{sleeper.pid}\n")
        age(mailbox, seconds=3600)
        assert not can_lock(mailbox)
        assert lock_of(mailbox).exists()
        age(lock_of(mailbox), seconds=3600)
        assert can_lock(mailbox), "the process is younger than the lock: its number was given again"
        sleeper.kill()


@pytest.mark.parametrize("text", ["", "4711:elsewhere.example.org\n", "garbage\n"])
def test_lock_of_nobody_here_is_broken_by_age(mailbox: Path, text: str) -> None:
    """Postfix's is empty, another host's pid means nothing here: both must be unchanged for 300 s."""
    lock = lock_of(mailbox)
    lock.write_text(text)
    age(lock, seconds=299)
    age(mailbox, seconds=400)
    assert not can_lock(mailbox)
    age(lock, seconds=400)
    age(mailbox, seconds=10)
    assert not can_lock(mailbox), "the mailbox is being written"
    age(mailbox, seconds=400)
    assert can_lock(mailbox)
    assert not lock.exists()


def test_kill_while_held_blocks_nobody(mailbox: Path) -> None:
    """The next one has the lock without waiting for an age."""

    def die_holding() -> None:
        with locking.exclusive(str(mailbox), opener(mailbox)):
            os._exit(9)

    assert in_child(die_holding) == 9
    assert lock_of(mailbox).exists()
    assert can_lock(mailbox)


def test_note_of_a_killed_writer(mailbox: Path) -> None:
    """Who breaks its lock learns how long the mailbox was; for another file the note means nothing."""

    def die_appending() -> None:
        with locking.exclusive(str(mailbox), opener(mailbox)) as held:
            held.note_append()
            os.write(held.descriptor, b"half")
            os._exit(9)

    for replaced in (False, True):
        mailbox.write_bytes(b"")
        assert in_child(die_appending) == 9
        if replaced:
            mailbox.with_name("fresh").write_bytes(b"new")
            mailbox.with_name("fresh").rename(mailbox)
        with locking.exclusive(str(mailbox), opener(mailbox), QUICK) as held:
            assert held.unfinished == (None if replaced else 0)
    with locking.exclusive(str(mailbox), opener(mailbox)) as held:
        assert held.unfinished is None


def test_the_last_of_many_notes_counts(mailbox: Path) -> None:
    """Of several messages under one lock, only the one that was being written is undone."""

    def die_appending_many() -> None:
        with locking.exclusive(str(mailbox), opener(mailbox)) as held:
            for _ in range(100):
                held.note_append()
                os.write(held.descriptor, b"0123456789")
            os._exit(9)

    mailbox.write_bytes(b"")
    assert in_child(die_appending_many) == 9
    with locking.exclusive(str(mailbox), opener(mailbox), QUICK) as held:
        assert held.unfinished == 990


def test_half_written_note_is_no_riddle(mailbox: Path) -> None:
    """A kill within the note leaves a lock that is still known to be of a dead process."""
    lock_of(mailbox).write_text(f"{dead_pid()}:{socket.gethostname()}\n12 34")
    assert can_lock(mailbox)


def test_lock_from_before_the_boot_is_broken(mailbox: Path) -> None:
    """RELIABILITY F06: a power cut may leave a lock without its text, or with a number that was given again.

    A lock of another host is not touched: its boot was another.
    """
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for text in ("", f"{os.getppid()}:{socket.gethostname()}\n"):
        lock_of(mailbox).write_text(text)
        assert not can_lock(mailbox)
        os.utime(lock_of(mailbox), (booted - 10, booted - 10))
        assert can_lock(mailbox)
    lock_of(mailbox).write_text("1:elsewhere.example\n")
    os.utime(lock_of(mailbox), (booted - 10, booted - 10))
    assert not can_lock(mailbox)


def test_replaced_file_is_opened_anew(mailbox: Path) -> None:
    """A mailbox renamed over between open and lock is noticed: the lock is on the one that bears the name."""
    opened = []

    def open_then_replace() -> int:
        descriptor = os.open(mailbox, os.O_RDWR)
        if not opened:
            fresh = mailbox.with_name("fresh")
            fresh.write_bytes(b"new")
            fresh.rename(mailbox)
        opened.append(descriptor)
        return descriptor

    with locking.exclusive(str(mailbox), open_then_replace) as held:
        assert os.pread(held.descriptor, 10, 0) == b"new"
    assert len(opened) == 2


def test_broken_lock_is_noticed(mailbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELIABILITY F12: who was stopped too long does not go on writing, nor removes the other's lock."""
    monkeypatch.setattr(locking, "_TOUCH_EVERY", -1.0)
    with locking.exclusive(str(mailbox), opener(mailbox)) as held:
        held.refresh()
        lock_of(mailbox).unlink()
        lock_of(mailbox).write_text("somebody else's")
        with pytest.raises(MailboxBusy):
            held.refresh()
    assert lock_of(mailbox).read_text() == "somebody else's"


def test_refresh_keeps_the_lock_young(mailbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs judge by age: the lock is touched while it is held."""
    monkeypatch.setattr(locking, "_TOUCH_EVERY", -1.0)
    with locking.exclusive(str(mailbox), opener(mailbox)) as held:
        age(lock_of(mailbox), seconds=3600)
        held.refresh()
        assert time.time() - lock_of(mailbox).stat().st_mtime < 60


def test_directory_without_rights_leaves_fcntl(closed_spool: Path) -> None:
    """In a spool of mode 0755 there is no dotlock; fcntl still excludes, and others' dotlocks count."""
    mailbox = closed_spool / "alice"

    def lock() -> None:
        become_nobody()
        with locking.exclusive(str(mailbox), opener(mailbox)):
            assert os.listdir(closed_spool) == ["alice"]
            other = os.open(mailbox, os.O_RDWR)
            assert not locking.lock_descriptor(other, exclusive=True)

    def find_it_locked() -> None:
        become_nobody()
        assert not can_lock(mailbox)

    assert in_child(lock) == 0
    with writable(closed_spool):
        lock_of(mailbox).write_text(f"{os.getppid()}\n")
    assert in_child(find_it_locked) == 0


def test_reader_heeds_a_dotlock(mailbox: Path) -> None:
    """Some programs append under a dotlock alone: what they write is not read half."""
    lock_of(mailbox).write_text("")
    with pytest.raises(MailboxBusy), locking.shared(str(mailbox), opener(mailbox, os.O_RDONLY), QUICK):
        pass
    lock_of(mailbox).unlink()
    with locking.shared(str(mailbox), opener(mailbox, os.O_RDONLY), QUICK) as descriptor:
        other = os.open(mailbox, os.O_RDWR)
        assert not locking.lock_descriptor(other, exclusive=True)
        os.close(other)
        assert os.fstat(descriptor).st_size == 0
        assert not lock_of(mailbox).exists()


def test_impatient_programs_get_the_lock(mailbox: Path) -> None:
    """RELIABILITY P7: while our threads hardly let go of it, who looks once a second has it within 5 looks.

    mutt asks whether to break the lock after five; procmail's and liblockfile's tools look as often.
    """
    stop = threading.Event()

    def hog() -> None:
        while not stop.is_set():
            with locking.exclusive(str(mailbox), opener(mailbox), LockRules(patience=60)):
                time.sleep(0.05)

    threads = [threading.Thread(target=hog) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(turns.PERIOD)  # they have been seen to hog it
        lock = str(lock_of(mailbox))
        for words in (
            ["mutt_dotlock", "-r", "5", str(mailbox)],
            ["lockfile", "-1", "-r", "5", lock],
            ["dotlockfile", "-l", "-r", "0", lock],
        ):
            for _ in range(6):  # dotlockfile's own pauses get longer, so it looks at our rate
                if subprocess.run(words, timeout=60).returncode == 0:
                    break
                time.sleep(1)
            else:
                pytest.fail(f"{words[0]} never got it")
            os.unlink(lock)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_processes_do_not_starve_each_other(mailbox: Path) -> None:
    """Four processes that take the lock again and again all get it often, and lose no increment."""
    mailbox.write_bytes(struct.pack("q", 0))

    def count() -> None:
        for _ in range(25):
            with locking.exclusive(str(mailbox), opener(mailbox)) as held:
                (value,) = struct.unpack("q", os.pread(held.descriptor, 8, 0))
                os.pwrite(held.descriptor, struct.pack("q", value + 1), 0)

    children = []
    for _ in range(4):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                count()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert struct.unpack("q", mailbox.read_bytes()) == (100,)


def test_file_systems_without_unnamed_files(mailbox: Path) -> None:
    """Where O_TMPFILE is not supported (NFS) the lock is linked from a named file, which does not stay."""

    def lock() -> None:
        with locking.exclusive(str(mailbox), opener(mailbox)):
            assert sorted(os.listdir(mailbox.parent)) == ["alice", "alice.lock"]
            assert lock_of(mailbox).read_text().startswith(f"{os.getpid()}:")
        assert os.listdir(mailbox.parent) == ["alice"]

    assert failing_at(2, errno.EOPNOTSUPP, lock) == 0
