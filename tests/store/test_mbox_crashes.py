"""Nothing is lost by a kill at any system call, a full disk, or many writers. RELIABILITY P1-P4, F03, F30."""

from __future__ import annotations

import errno
import fcntl
import mailbox as stdlib_mailbox
import os
import resource
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mailserver.store.contract import SEEN, MessageGone, NewMessage
from mailserver.store.locking import LockRules
from mailserver.store.mbox import MboxFormat, deposit
from tests.store.faults import (
    CALLS,
    KILLED,
    become_nobody,
    every_kill,
    failing_at,
    in_child,
    make_closed_spool,
    make_open_directory,
)

QUICK = LockRules(patience=5)


def message(number: int, size: int = 40) -> bytes:
    return b"Subject: n%d\n\n" % number + b"line of text\n" * (size // 13) + b"end\n"


def subjects(path: Path) -> list[str]:
    """The subjects as Python's own mbox reader finds them; every message has its last line."""
    box = stdlib_mailbox.mbox(path, create=False)
    try:
        found = [(str(item["Subject"]), item.get_payload()) for item in box]
    finally:
        box.close()
    assert all(payload.endswith("end\n") for _, payload in found)
    return [subject for subject, _ in found]


def put(path: Path, number: int, size: int = 40) -> None:
    deposit(str(path), "a@b", [message(number, size)], rules=QUICK)


def opened(path: Path, journals: Path) -> MboxFormat:
    box = MboxFormat(str(path), str(journals), rules=QUICK)
    box.load((), "")
    return box


def keys_by_subject(box: MboxFormat) -> dict[str, str]:
    delta = box.poll()
    assert delta is not None
    return {subject_of(box.read(found.key)): found.key for found in delta.added}


def subject_of(content: bytes) -> str:
    return content.partition(b"Subject: ")[2].partition(b"\r")[0].decode()


def test_deposit_killed_anywhere(tmp_path: Path) -> None:
    """P4: the message is there whole or not at all, at once, and the next delivery needs no wait."""
    path = tmp_path / "alice"

    def prepare() -> None:
        path.unlink(missing_ok=True)
        put(path, 1)

    for status in every_kill(prepare, lambda: put(path, 2, 1000)):
        assert path.read_bytes().startswith(b"From a@b") and message(1) in path.read_bytes()
        opened(path, tmp_path).poll()
        names = subjects(path)
        assert names in (["n1"], ["n1", "n2"])
        put(path, 3)
        assert subjects(path) == [*names, "n3"]
        assert set(os.listdir(tmp_path)) == {"alice"}
        assert status == KILLED or len(names) == 2


def test_first_deposit_killed_anywhere(tmp_path: Path) -> None:
    """Where the mailbox did not exist before."""
    path = tmp_path / "alice"
    for status in every_kill(lambda: path.unlink(missing_ok=True), lambda: put(path, 2)):
        put(path, 3)
        assert subjects(path) in (["n3"], ["n2", "n3"])
        assert status == KILLED or len(subjects(path)) == 2


@pytest.mark.parametrize("breaks_lock", [True, False])
def test_strangers_mail_after_a_kill_is_kept(tmp_path: Path, breaks_lock: bool) -> None:
    """Another program that appends before any of us comes loses nothing, whether it heeds dotlocks or not."""
    path = tmp_path / "alice"
    lock = tmp_path / "alice.lock"

    def prepare() -> None:
        path.unlink(missing_ok=True)
        put(path, 1)

    for _ in every_kill(prepare, lambda: put(path, 2, 1000)):
        if breaks_lock:
            lock.unlink(missing_ok=True)
        with path.open("ab") as file:
            file.write(b"\n\nFrom a@b  Tue Nov 24 02:22:04 2026\n" + message(7) + b"\n")
        put(path, 3)
        names = [item["Subject"] for item in stdlib_mailbox.mbox(path)]
        assert names in (["n1", "n7", "n3"], ["n1", "n2", "n7", "n3"], ["n1", None, "n7", "n3"])
        lock.unlink(missing_ok=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_deposit_with_a_disk_that_fails(tmp_path: Path, number: int) -> None:
    """RELIABILITY F14, F15: it raises, and the mailbox is as it was to the octet."""
    path = tmp_path / "alice"
    put(path, 1)
    before = path.read_bytes()
    failed = 0
    for call in range(1, 100):
        status = failing_at(call, number, lambda: put(path, 2, 1000))
        failed += status != 0
        if path.read_bytes() != before:
            assert subjects(path) == ["n1", "n2"]
            break
        assert status == 1
    assert failed >= 3


def test_short_write_at_a_file_size_limit(tmp_path: Path) -> None:
    """RLIMIT_FSIZE cuts a write short and then fails: the length is restored."""
    path = tmp_path / "alice"
    put(path, 1)
    before = path.read_bytes()

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(OSError) as caught:
            put(path, 2, 300_000)
        assert caught.value.errno == errno.EFBIG
        assert path.read_bytes() == before
        put(path, 3)

    assert in_child(limited) == 0
    assert subjects(path) == ["n1", "n3"]


@pytest.mark.needs("root", "mount")
def test_full_file_system(tmp_path: Path) -> None:
    """RELIABILITY F14: 140 KB into a file system of 64 KB; then small mail still fits."""
    small = tmp_path / "small"
    small.mkdir()
    assert os.system(f"mount -t tmpfs -o size=64k none {small}") == 0
    try:
        path = small / "alice"
        put(path, 1)
        before = path.read_bytes()
        with pytest.raises(OSError) as caught:
            put(path, 2, 140_000)
        assert caught.value.errno == errno.ENOSPC
        assert path.read_bytes() == before
        put(path, 3)
        assert subjects(path) == ["n1", "n3"]
    finally:
        os.system(f"umount {small}")


def test_append_killed_anywhere(tmp_path: Path) -> None:
    """IMAP APPEND of two messages: those before are untouched, later ones stand by themselves."""
    path, journals = tmp_path / "alice", tmp_path / "state"
    journals.mkdir()

    def prepare() -> None:
        path.unlink(missing_ok=True)
        put(path, 1)

    def act() -> None:
        opened(path, journals).append(
            [NewMessage(message(n, 500).replace(b"\n", b"\r\n"), frozenset({SEEN})) for n in (2, 3)]
        )

    for status in every_kill(prepare, act):
        text = path.read_bytes()
        put(path, 4)
        assert path.read_bytes().startswith(text)
        names = list(keys_by_subject(opened(path, journals)))
        assert (names[0], names[-1]) == ("n1", "n4")
        if status == 0:
            assert names == ["n1", "n2", "n3", "n4"]


@pytest.fixture
def journals() -> Iterator[Path]:
    with make_open_directory() as directory:
        yield directory


def remove_two_and_four(path: Path, journals: Path) -> None:
    box = opened(path, journals)
    keys = keys_by_subject(box)
    box.write_flags({keys["n3"]: frozenset({SEEN})})
    box.remove([keys["n2"], keys["n4"]])


def test_rewrite_killed_anywhere(tmp_path: Path, journals: Path) -> None:
    """RELIABILITY F05: the mailbox is the old one or the new one, whole, at any moment."""
    path = tmp_path / "alice"

    def prepare() -> None:
        path.unlink(missing_ok=True)
        for number in range(1, 6):
            put(path, number, 300)

    for status in every_kill(prepare, lambda: remove_two_and_four(path, journals)):
        names = subjects(path)
        assert names in (["n1", "n2", "n3", "n4", "n5"], ["n1", "n3", "n5"])
        put(path, 6)
        assert subjects(path) == [*names, "n6"]
        remove_two_and_four_if_there(path, journals)
        assert subjects(path) == ["n1", "n3", "n5", "n6"]
        assert set(os.listdir(tmp_path)) <= {"alice", ".alice.rewrite"}
        if status == 0:
            assert names == ["n1", "n3", "n5"]


def remove_two_and_four_if_there(path: Path, journals: Path) -> None:
    box = opened(path, journals)
    keys = keys_by_subject(box)
    box.remove([keys[name] for name in ("n2", "n4") if name in keys])


@pytest.fixture
def spool() -> Iterator[Path]:
    with make_closed_spool("alice") as directory:
        yield directory


def fill(path: Path, numbers: range) -> None:
    """The mailbox has those messages, appended as a program with a dotlock of its own would."""
    with path.open("ab") as file:
        for number in numbers:
            file.write(b"From a@b  Tue Nov 24 02:22:04 2026\n" + message(number, 300) + b"\n")


@pytest.mark.parametrize("appended", [0, 1, 9])
def test_rewrite_in_place_killed_anywhere(spool: Path, journals: Path, appended: int) -> None:
    """In a closed directory: after recovery the mailbox is the old one or the new one.

    What others appended between the kill and the recovery is there, once.
    """
    path = spool / "alice"

    def prepare() -> None:
        path.write_bytes(b"")
        fill(path, range(1, 6))
        for left in journals.iterdir():
            left.unlink()

    def act() -> None:
        become_nobody()
        remove_two_and_four(path, journals)

    def recover() -> None:
        become_nobody()
        opened(path, journals).poll()

    killed_within = 0
    for status in every_kill(prepare, act):
        killed_within += any(not left.name.endswith(".draft") for left in journals.iterdir())
        late = [f"n{number}" for number in range(10, 10 + appended)]
        fill(path, range(10, 10 + appended))
        assert in_child(recover) == 0
        names = subjects(path)
        assert names in (["n1", "n2", "n3", "n4", "n5", *late], ["n1", "n3", "n5", *late])
        assert not [left for left in journals.iterdir() if not left.name.endswith(".draft")]
        if status == 0:
            assert names == ["n1", "n3", "n5", *late]
            assert b"Subject: n3\nStatus: RO" in path.read_bytes()
    assert killed_within >= 4


def test_recovery_killed_anywhere(spool: Path, journals: Path) -> None:
    """Kill the rewrite, append, kill the recovery, append, recover: all there once."""
    path = spool / "alice"

    def act() -> None:
        become_nobody()
        remove_two_and_four(path, journals)

    def recover() -> None:
        become_nobody()
        opened(path, journals).poll()

    def start() -> None:
        path.write_bytes(b"")
        fill(path, range(1, 6))

    states = []
    for status in every_kill(start, act):
        journal = [left for left in journals.iterdir() if not left.name.endswith(".draft")]
        if status == KILLED and journal:
            states.append((path.read_bytes(), journal[0].name, journal[0].read_bytes()))
        for left in journals.iterdir():
            left.unlink()
    assert len(states) >= 4
    for content, name, journal_text in (states[0], states[len(states) // 2], states[-1]):
        inode = path.stat().st_ino

        def prepare(content: bytes = content, name: str = name, text: bytes = journal_text) -> None:
            for left in journals.iterdir():
                left.unlink()
            path.write_bytes(content)
            (journals / name).write_bytes(text)
            (journals / name).chmod(0o666)
            fill(path, range(10, 12))

        for _ in every_kill(prepare, recover):
            fill(path, range(20, 21))
            assert in_child(recover) == 0
            assert subjects(path) == ["n1", "n3", "n5", "n10", "n11", "n20"]
        assert path.stat().st_ino == inode


def test_flags_wait_where_the_file_cannot_grow(spool: Path, journals: Path) -> None:
    """In place a mailbox only shrinks: settling changes nothing, and loses nothing."""
    path = spool / "alice"
    fill(path, range(1, 3))
    before = path.read_bytes()

    def act() -> None:
        become_nobody()
        box = opened(path, journals)
        keys = keys_by_subject(box)
        box.write_flags({keys["n1"]: frozenset({SEEN})})
        box.settle()
        assert box.read(keys["n1"]).startswith(b"Subject: n1\r\n")

    assert in_child(act) == 0
    assert path.read_bytes() == before
    assert not list(journals.iterdir())


def test_many_writers(tmp_path: Path, journals: Path) -> None:
    """RELIABILITY F30 in miniature: what was put and not removed is there, once.

    Three deliver, one appends, two remove, a stranger appends under dotlock and POSIX lock.
    """
    path, done = tmp_path / "alice", tmp_path / "done"
    put(path, 0)

    def deliver(first: int) -> None:
        for number in range(first, first + 15):
            put(path, number, 200 + number)

    def append() -> None:
        box = opened(path, journals)
        for number in range(400, 415):
            box.append([NewMessage(message(number).replace(b"\n", b"\r\n"))])

    def remove(digit: str) -> None:
        box = opened(path, journals)

        def is_mine(key: int) -> bool:
            try:
                return subject_of(box.read(key)).endswith(digit)
            except MessageGone:  # the other one's
                return False

        is_last = False
        while not is_last:
            is_last = done.exists()
            delta = box.poll()
            news = list(delta.added) if delta else []
            while news:
                delta = box.remove([found.key for found in news if is_mine(found.key)])
                news = list(delta.added) if delta else []

    def stranger() -> None:
        lock = f"{path}.lock"
        for number in range(500, 515):
            while True:
                try:
                    os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
                    break
                except FileExistsError:
                    os.sched_yield()
            with path.open("ab") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
                file.write(b"From a@b  Tue Nov 24 02:22:04 2026\n" + message(number) + b"\n")
            os.unlink(lock)

    writers = [
        start(partial(deliver, 100)),
        start(partial(deliver, 200)),
        start(partial(deliver, 300)),
        start(append),
        start(stranger),
    ]
    removers = [start(partial(remove, "3")), start(partial(remove, "7"))]
    assert [os.waitpid(pid, 0)[1] for pid in writers] == [0] * len(writers)
    done.touch()
    assert [os.waitpid(pid, 0)[1] for pid in removers] == [0, 0]
    everything = [f"n{base + number}" for base in (100, 200, 300, 400, 500) for number in range(15)]
    expected = [name for name in everything if not name.endswith(("3", "7"))]
    assert sorted(subjects(path)) == sorted(["n0", *expected])


def start(act: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        os._exit(in_child(act))
    return pid


def test_the_faults_are_the_calls_that_are_made() -> None:
    """The harness counts calls that exist."""
    assert all(hasattr(os, name) for name in CALLS)
