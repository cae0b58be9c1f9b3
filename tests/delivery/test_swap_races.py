"""A mailbox's name that somebody swaps while we deliver: RELIABILITY B7, §8.2.

The attacker owns the directory and turns the name into a symbolic link, a hard link, a FIFO, a directory,
nothing, and the mailbox again, as fast as it goes. Three seconds of it here, sixty with FAULTS=all.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.delivery.job import Action, Job, Owner
from mailserver.delivery.local import LocalAgents
from mailserver.envelope import Status
from mailserver.store.locking import LockRules

SECONDS = 60.0 if os.environ.get("FAULTS") == "all" else 1.5  # of each of the two
CONTENT = b"Subject: hi\n\nbody\n"


def swapping(path: Path, secret: Path, stop: threading.Event) -> None:
    """The name is everything in turn, each put there by one rename where that can be."""
    own, other = path.with_name("own"), path.with_name("other")
    own.touch(0o600)

    def link_to_secret() -> None:
        other.symlink_to(secret)

    def hard_link() -> None:
        other.hardlink_to(secret)

    def fifo() -> None:
        os.mkfifo(other)

    def mailbox() -> None:
        other.touch(0o600)

    kinds: tuple[Callable[[], None], ...] = (link_to_secret, mailbox, hard_link, mailbox, fifo, mailbox)
    while not stop.is_set():
        for make in kinds:
            with contextlib.suppress(FileNotFoundError):
                other.unlink()
            make()
            with contextlib.suppress(OSError):
                os.rename(other, path)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with contextlib.suppress(OSError):  # a delivery made the mailbox meanwhile
            path.mkdir()
            path.rmdir()


@pytest.mark.parametrize("action", [Action.MAILBOX, Action.FILE])
def test_what_is_swapped_in_is_never_touched(tmp_path: Path, action: Action) -> None:
    """The secret keeps its octets, its mode and its time; nothing hangs, and each delivery has an outcome."""
    spool = tmp_path / "spool"
    spool.mkdir()
    queue_file, path, secret = tmp_path / "queue-file", spool / "alice", tmp_path / "secret"
    queue_file.write_bytes(CONTENT)
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    before = secret.stat()
    owner = Owner("alice", os.getuid(), os.getgid(), "/", "/bin/sh")
    job = Job(action, owner, str(path), "s@example.com", "alice", b"X: y\n", 0, len(CONTENT))
    agents = LocalAgents("mx.example.org", rules=LockRules(patience=0.02))
    stop = threading.Event()
    attacker = threading.Thread(target=swapping, args=(path, secret, stop))
    attacker.start()
    descriptor = os.open(queue_file, os.O_RDONLY)
    count, outcomes = 0, set[Status]()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or count < 20:
            outcomes.add(agents.perform(job, descriptor).status)
            count += 1
            assert secret.read_bytes() == b"secret"
        assert attacker.is_alive()
    finally:
        stop.set()
        attacker.join()
        os.close(descriptor)
    after = secret.stat()
    assert (after.st_mode, after.st_size, after.st_mtime_ns, after.st_uid) == (
        before.st_mode,
        before.st_size,
        before.st_mtime_ns,
        before.st_uid,
    )
    assert outcomes
