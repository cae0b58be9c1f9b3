"""What is acknowledged survives, whatever call is the last (F02, F15, F16, F18; P1-P4)."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.envelope import Outcome
from mailserver.queue.incoming import MEMORY_LIMIT
from tests.queue.faults import KILLED, Nth, die, fail_with, hooked, in_child
from tests.queue.world import World, envelope

LARGE = b"Subject: large\n\n" + b"x" * 79 * 1000 + b"\n"


def _accept_and_deliver(world: World, content: bytes) -> Callable[[Callable[[str], None]], None]:
    def work(tell: Callable[[str], None]) -> None:
        message = world.queue.create(envelope("team@example.org", "carol@example.org"))
        for start in range(0, len(content), MEMORY_LIMIT // 2):
            message.write(content[start : start + MEMORY_LIMIT // 2])
            if message.wants_flush:
                message.flush()
        committed = message.commit()
        tell("acknowledged")
        world.runner.accept(committed)
        tell("finished")

    return work


@pytest.mark.parametrize("content", [b"Subject: small\n\nhello\n", LARGE], ids=["small", "large"])
def test_killed_at_any_step_nothing_acknowledged_is_lost(tmp_path: Path, content: bytes) -> None:
    """F02: acknowledged mail is there after a restart, with one extra copy at most; else 0 or 1."""
    number, status = 0, KILLED
    while status == KILLED:
        number += 1
        world = World(tmp_path / str(number), {"team": "alice, bob"})
        status, told = in_child(_accept_and_deliver(world, content), Nth(number, die))
        world.restart()
        assert world.queued() == [], number
        for name in ("alice", "bob", "carol"):
            copies = world.mailbox(name)
            assert len(copies) <= 2, (number, name)
            assert copies or "acknowledged" not in told, (number, name)
            assert all(copy.endswith(content) for copy in copies), (number, name)
    assert status == 0
    assert told == ["acknowledged", "finished"]
    assert number > 15


def test_killed_while_deferring_or_bouncing_nothing_is_lost(tmp_path: Path) -> None:
    """F02: also the ways out that rename, and that make new messages."""
    number, status = 0, KILLED
    while status == KILLED:
        number += 1
        world = World(tmp_path / str(number), {"team": "alice, nosuch, bob"})
        world.forward("alice", "carol")
        world.agents.faults[str(world.base / "mail" / "bob")] = Outcome.deferred("locked", "4.2.0")
        message = world.commit("team@example.org", sender="carol@example.org")
        message.close()

        def work(tell: Callable[[str], None], world: World = world) -> None:
            world.restart()

        status, _ = in_child(work, Nth(number, die))
        world.agents.faults.clear()
        world.restart()
        world.runner.flush()
        assert world.queued() == [], number
        assert len(world.mailbox("bob")) == 1
        copies = world.mailbox("carol")
        bounces = [copy for copy in copies if b"multipart/report" in copy]
        assert 1 <= len(bounces) <= 2, number
        assert 1 <= len(copies) - len(bounces) <= 2, number
    assert status == 0
    assert number > 25


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("content", [b"Subject: small\n\nhello\n", LARGE], ids=["small", "large"])
def test_a_failing_call_is_never_an_acknowledgement(tmp_path: Path, code: int, content: bytes) -> None:
    """F15, F16, F18: OSError to the caller, and no file left; or committed and delivered."""
    for number in range(1, 40):
        world = World(tmp_path / str(number), {"team": "alice, bob"})
        fault = Nth(number, fail_with(code))
        told: list[str] = []
        with hooked(fault, ("open", "pwrite", "fsync", "fchmod")):
            try:
                _accept_and_deliver(world, content)(told.append)
            except OSError as error:
                assert error.errno == code
        if not fault.reached:
            break
        if not told:
            assert world.queued() == [], number
        world.runner.flush()
        world.clock.advance(301)
        assert world.queued() == [], number
        for name in ("alice", "bob", "carol"):
            assert bool(told) <= len(world.mailbox(name)) <= 2, (number, name)
    assert told == ["acknowledged", "finished"]


def test_a_full_disk_while_removing_or_journaling(tmp_path: Path) -> None:
    """F18: the message is tried again later, not in a loop, and leaves in the end."""
    for call in ("unlink", "rename", "fdatasync", "utime"):
        world = World(tmp_path / call, {"team": "alice, bob"})
        world.agents.faults[str(world.base / "mail" / "bob")] = Outcome.deferred("locked", "4.2.0")
        with hooked(lambda name: fail_with(errno.EIO)(), (call,)):
            world.send("team@example.org")
            world.send("carol@example.org")
        world.agents.faults.clear()
        world.clock.pump([301] * 3)
        assert world.queued() == []
        assert len(world.mailbox("bob")) == 1
        assert 1 <= len(world.mailbox("carol")) <= 2


def test_a_file_size_limit_is_a_failure_not_a_half_message(tmp_path: Path) -> None:
    """F17: a limit of the system cuts the write short; the file is removed, the client hears of it."""
    world = World(tmp_path)

    def work(tell: Callable[[str], None]) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        message = world.queue.create(envelope("alice@example.org"))
        message.write(LARGE)
        try:
            message.commit()
        except OSError as error:
            tell(errno.errorcode[error.errno or 0])

    assert in_child(work, lambda name: None) == (0, ["EFBIG"])
    assert world.queued() == []


def test_a_short_write_is_continued(tmp_path: Path) -> None:
    """F17: content is exact though each write takes seven octets."""
    world = World(tmp_path)
    original = os.pwrite
    try:
        os.pwrite = lambda descriptor, data, offset: original(descriptor, bytes(data)[:7], offset)
        world.send("alice@example.org", content=b"x" * 100 + b"\n")
    finally:
        os.pwrite = original
    assert world.mailbox("alice")[0].endswith(b"\n" + b"x" * 100 + b"\n")
