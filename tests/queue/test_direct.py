"""Delivery before the reply: what goes past the queue, what does not, and that nobody can tell."""

from __future__ import annotations

import errno
import mailbox
import os
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailserver.accounts.account import Account
from mailserver.delivery.local import LocalAgents
from mailserver.delivery.lookups import LiveLookups, LocalRules
from mailserver.queue.copies import Copies
from mailserver.queue.direct import Delivered, DirectDelivery
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.file import QueueFile
from mailserver.queue.incoming import MEMORY_LIMIT, IncomingMessage
from mailserver.queue.runner import Runner
from mailserver.store.locking import LockRules
from mailserver.store.side_by_side import SideBySide
from tests.queue.faults import KILLED, Nth, die, fail_with, hooked, in_child
from tests.queue.test_batches import HeldThreads
from tests.queue.world import NOBODY, DictTable, World, envelope

CONTENT = b"Subject: hi\n\nFrom here\nhello\n"
LARGE = CONTENT + b"x\n" * MEMORY_LIMIT


class DirectWorld(World):
    """A host whose mailboxes are real ones, maildirs or mbox files."""

    def __init__(self, base: Path, mail_format: str, aliases: dict[str, str] | None = None) -> None:
        super().__init__(base, aliases)
        self.slash = "/" if mail_format == "maildir" else ""
        self.local = LocalAgents("mx.example.org", rules=LockRules(patience=0.1), helpers=SideBySide(2))
        self.rules = LocalRules(default_privs=NOBODY, mail_spool_directory=f"{base}/mail{self.slash}")
        self.restart()

    def restart(self, **changes: object) -> None:
        """See `World.restart`."""
        lookups = LiveLookups(self.routing, self.rules, self.local)
        super().restart(**{"agents": self.local, "lookups": lookups} | changes)
        self.direct = DirectDelivery(self.services, self.local, self.clock)

    def hold(self) -> HeldThreads:
        """Direct deliveries wait in these threads from now on."""
        threads = HeldThreads()
        services = replace(self.services, threads=threads)
        self.direct = DirectDelivery(services, self.local, self.clock)
        return threads

    def incoming(self, *recipients: str, content: bytes = CONTENT, **facts: object) -> IncomingMessage:
        """A message that was received."""
        message = self.queue.create(envelope(*(recipients or ("alice@example.org",)), **facts))
        message.write(content)
        return message

    def incoming_large(self, *recipients: str, content: bytes = LARGE) -> IncomingMessage:
        """A message of which a part is in a queue file, and the rest in memory."""
        message = self.incoming(*recipients, content=content[:-5])
        message.flush()
        message.write(content[-5:])
        return message

    def take(self, message: IncomingMessage) -> QueueFile | Delivered:
        """What became of the message; it is logged, or with the runner."""
        taken = now(self.direct.take(message))
        if isinstance(taken, Delivered):
            self.log.write_all(taken.lines)
            taken.tell()
        return taken

    def messages(self, name: str = "alice") -> list[bytes]:
        """What a reader finds in the mailbox, oldest first."""
        path = self.base / "mail" / name
        if self.slash:
            new = path / "new"
            return [each.read_bytes() for each in sorted(new.iterdir(), key=made)] if new.exists() else []
        if not path.exists():
            return []
        box = mailbox.mbox(path, create=False)
        return [box.get_bytes(key) for key in box.keys()]  # noqa: SIM118


def made(path: Path) -> tuple[int, int]:
    """When the message was written, from its name: seconds and microseconds."""
    found = re.match(r"(\d+)\..*M(\d+)", path.name)
    assert found
    return int(found[1]), int(found[2])


def now(work: Coroutine[Deferred[Any], Any, QueueFile | Delivered]) -> QueueFile | Delivered:
    """The result of work that has ended."""
    results: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(results.append)
    assert results, "still waiting"
    if not isinstance(results[0], (QueueFile, Delivered)):
        results[0].raiseException()
    return results[0]


@pytest.fixture(params=["maildir", "mbox"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> DirectWorld:
    return DirectWorld(tmp_path, request.param, {"one": "alice", "two": "alice, bob", "out": "x@example.com"})


@pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("recipient", ["alice@example.org", "Alice+ext@example.org", "one@example.org"])
def test_nobody_can_tell(tmp_path: Path, world: DirectWorld, recipient: str, content: bytes) -> None:
    """Mailbox, log and notices are those of the way through the queue, but for the queue id."""
    other = DirectWorld(tmp_path / "other", "maildir" if world.slash else "mbox", {"one": "alice"})
    incoming = world.incoming if content is CONTENT else world.incoming_large
    taken = world.take(incoming(recipient, content=content))
    assert isinstance(taken, Delivered)
    queue_id = other.send(recipient, content=content)
    assert world.messages() == other.messages() and len(world.messages()) == 1
    assert [(who, text.replace(taken.queue_id, queue_id)) for who, text in world.log.lines] == other.log.lines
    assert len(world.log.lines) == 3
    assert [os.path.basename(path.rstrip("/")) for path in world.nudged] == ["alice"]
    assert world.queued() == [] and os.listdir(tmp_path / "queue" / "spare") == []


def _with_quota(world: DirectWorld) -> IncomingMessage:
    own = world.accounts.all["alice"]
    world.accounts.all["alice"] = Account(
        own.name, own.uid, own.gid, own.home, extra={"userdb_quota_rule": "*:bytes=10"}
    )
    return world.incoming()


def _locked(world: DirectWorld) -> IncomingMessage:
    path = world.base / "mail" / "alice"
    if world.slash:
        world.services.account_slots.try_take("alice")
        world.services.account_slots.try_take("alice")
    else:
        path.touch(mode=0o600)
        path.with_name("alice.lock").write_text("1\n")
    return world.incoming()


def _held(world: DirectWorld) -> IncomingMessage:
    message = world.incoming()
    message.is_held = True
    return message


def _forwarded(text: str) -> Callable[[DirectWorld], IncomingMessage]:
    def make(world: DirectWorld) -> IncomingMessage:
        world.forward("alice", text)
        path = world.base / "home" / "alice" / ".forward"
        path.chmod(0o644)
        return world.incoming()

    return make


def _unreadable(world: DirectWorld) -> IncomingMessage:
    world.accounts.unreadable.add("alice")
    return world.incoming()


def _copied(world: DirectWorld) -> IncomingMessage:
    copies = Copies(routing=world.routing, always_bcc="bob@example.org")
    world.queue = QueueDirectory(
        str(world.base / "queue"), clock=world.clock.seconds, complete=copies.added_to
    )
    return world.incoming()


OBSTACLES: dict[str, Callable[[DirectWorld], IncomingMessage]] = {
    "two recipients": lambda world: world.incoming("alice@example.org", "bob@example.org"),
    "an alias for two": lambda world: world.incoming("two@example.org"),
    "an alias for elsewhere": lambda world: world.incoming("out@example.org"),
    "elsewhere": lambda world: world.incoming("x@example.com"),
    "nobody": lambda world: world.incoming("nosuch@example.org"),
    "a report of success": lambda world: world.incoming(notify=frozenset({"SUCCESS"})),
    "a content filter": lambda world: world.incoming(content_filter="smtp:[127.0.0.1]:10025"),
    "on hold": _held,
    "a .forward": _forwarded("bob\n"),
    "a command": _forwarded("|true\n"),
    "a .forward with a warning": _forwarded("/no/such/file, \\alice\n"),
    "no account data": _unreadable,
    "a loop": lambda world: world.incoming(content=b"Delivered-To: alice@example.org\n" + CONTENT),
    "a full mailbox": _with_quota,
    "a lock, or too many deliveries": _locked,
    "always_bcc": _copied,
}


@pytest.mark.parametrize("more", [b"", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_whatever_stands_in_the_way_is_left_to_the_queue(
    world: DirectWorld, obstacle: str, more: bytes
) -> None:
    """The message is in the queue as it came, nothing of it in the mailbox, and the log silent so far."""
    message = OBSTACLES[obstacle](world)
    if more:
        message.write(more)
        message.flush()
    taken = world.take(message)
    assert isinstance(taken, QueueFile)
    assert world.messages() == [] and world.log.lines == []
    assert taken.read_content().startswith((CONTENT, b"Delivered-To:"))
    assert taken.read_content().endswith(CONTENT + more)
    assert len(taken.accepted.envelope.recipients) == 1 + (obstacle in ("two recipients", "always_bcc"))


def test_copies_are_added_once(world: DirectWorld) -> None:
    """always_bcc for whom the mail is anyway changes nothing, and the mail still goes past the queue."""
    copies = Copies(routing=world.routing, always_bcc="alice@example.org")
    world.queue = QueueDirectory(
        str(world.base / "queue"), clock=world.clock.seconds, complete=copies.added_to
    )
    assert isinstance(world.take(world.incoming()), Delivered)
    assert len(world.messages()) == 1


def test_copies_that_cannot_be_known(world: DirectWorld) -> None:
    """P1, P5: where a table of copies cannot be read the message is refused for now, and nothing is left."""
    copies = Copies(routing=world.routing, recipient_bcc_maps=(DictTable(None),))
    world.queue = QueueDirectory(
        str(world.base / "queue"), clock=world.clock.seconds, complete=copies.added_to
    )
    with pytest.raises(OSError):
        world.take(world.incoming())
    assert world.messages() == [] and world.queued() == []


@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize("mail_format", ["maildir", "mbox"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_leaves_it_to_the_queue(
    tmp_path: Path, mail_format: str, code: int, is_large: bool
) -> None:
    """F15: whatever call fails, nothing is left in the mailbox, and the message is in the queue."""
    for number in range(1, 30):
        world = DirectWorld(tmp_path / str(number), mail_format)
        assert isinstance(world.take(world.incoming()), Delivered)
        fault = Nth(number, fail_with(code))
        message = world.incoming_large() if is_large else world.incoming()
        with hooked(fault, ("open", "pread", "write", "fsync", "fdatasync", "rename")):
            taken = world.take(message)
        if not fault.reached:
            break
        assert isinstance(taken, QueueFile), number
        assert len(world.messages()) == 1, number
        world.runner.accept(taken)
        assert world.queued() == [] and len(world.messages()) == 2, number
    assert isinstance(taken, Delivered) and number > 3


def test_a_queue_that_is_full_takes_no_large_message(world: DirectWorld) -> None:
    """P5: what does not fit into the file where content is gathered is refused for now, and gone."""
    message = world.incoming_large()
    with hooked(Nth(1, fail_with(errno.ENOSPC)), ("pwrite",)), pytest.raises(OSError):
        world.take(message)
    assert world.messages() == [] and os.listdir(world.base / "queue" / "incoming") == []


def test_large_messages_wait_for_nobody(world: DirectWorld) -> None:
    """Each is a batch of its own: its sender does not wait for the disk to take others'."""
    threads = world.hold()
    taken: list[Any] = []
    for _ in range(2):
        Deferred.fromCoroutine(world.direct.take(world.incoming_large())).addBoth(taken.append)
    assert len(threads.calls) == 2
    while threads.calls:
        threads.finish()
    assert all(isinstance(each, Delivered) for each in taken) and world.messages()[0].endswith(LARGE[13:])
    assert os.listdir(world.base / "queue" / "incoming") == []


def test_a_disk_that_fails_for_one_of_several(tmp_path: Path) -> None:
    """F15: of a batch that is synced side by side nothing is left, whichever fails; all are queued."""
    for number in range(1, 40):
        world = DirectWorld(tmp_path / str(number), "maildir")
        threads = world.hold()
        taken: list[Any] = []
        for _ in range(6):
            Deferred.fromCoroutine(world.direct.take(world.incoming())).addBoth(taken.append)
        threads.finish()
        fault = Nth(number, fail_with(errno.EIO))
        with hooked(fault, ("open", "fsync", "rename")):
            threads.finish()
        while threads.calls:
            threads.finish()
        new = world.base / "mail" / "alice"
        assert os.listdir(new / "tmp") == [] and len(taken) == 6
        if not fault.reached:
            break
        assert sum(isinstance(each, QueueFile) for each in taken) == 5
        assert len(world.messages()) == 1, number
    assert all(isinstance(each, Delivered) for each in taken) and number > 15


def test_messages_for_one_mailbox_go_together_and_in_order(tmp_path: Path, world: DirectWorld) -> None:
    """What comes while one is written is written in one batch: one sync of the directory, or of the mbox."""
    threads = world.hold()
    taken: list[Any] = []
    for number in range(6):
        message = world.incoming(content=b"Subject: %d\n\nbody\n" % number)
        Deferred.fromCoroutine(world.direct.take(message)).addBoth(taken.append)
    threads.finish()
    syncs: list[str] = []
    with hooked(syncs.append, ("fsync", "fdatasync")):
        threads.finish()
    assert len(taken) == 6 and all(isinstance(each, Delivered) for each in taken)
    assert len(syncs) == (6 if world.slash else 1)
    subjects = [each.partition(b"Subject: ")[2][:1] for each in world.messages()]
    assert b"".join(subjects) == b"012345"
    assert world.services.account_slots.try_take("alice")
    world.services.account_slots.release("alice")


def test_a_quota_counts_each_message(world: DirectWorld) -> None:
    """Of three in a batch for whom two have room, the third is left to the queue."""
    own = world.accounts.all["alice"]
    rule = {"userdb_quota_rule": "*:messages=3" if world.slash else "*:bytes=500"}
    world.accounts.all["alice"] = Account(own.name, own.uid, own.gid, own.home, extra=rule)
    threads = world.hold()
    taken: list[Any] = []
    for _ in range(5):
        Deferred.fromCoroutine(world.direct.take(world.incoming())).addBoth(taken.append)
    while threads.calls:
        threads.finish()
    assert [isinstance(each, Delivered) for each in taken] == [True, True, True, False, False]


def test_who_waits_for_too_long_goes_to_the_queue(world: DirectWorld) -> None:
    """P9: a mailbox that hangs delays the reply of those behind it for a moment only."""
    threads = world.hold()
    taken: list[Any] = []
    for _ in range(3):
        Deferred.fromCoroutine(world.direct.take(world.incoming())).addBoth(taken.append)
    world.clock.advance(2.1)
    hanging = threads.calls.pop(0)
    for _ in range(2):
        threads.finish()
    assert len(taken) == 2 and all(isinstance(each, QueueFile) for each in taken)
    threads.calls.append(hanging)
    threads.finish()
    assert isinstance(taken[2], Delivered)


@pytest.mark.parametrize(("count", "is_large"), [(1, False), (4, False), (1, True)])
@pytest.mark.parametrize("mail_format", ["maildir", "mbox"])
def test_killed_at_any_step(tmp_path: Path, mail_format: str, count: int, is_large: bool) -> None:
    """F02: what was acknowledged is there once; what was not, once or not at all, and never by half.

    The first of several goes alone, the others as one batch.
    """
    number, status = 0, KILLED
    while status == KILLED:
        number += 1
        world = DirectWorld(tmp_path / str(number), mail_format)
        world.take(world.incoming(content=b"Subject: before\n\n"))

        def work(tell: Callable[[str], None], world: DirectWorld = world) -> None:
            threads = world.hold()
            for _ in range(count):
                message = world.incoming_large() if is_large else world.incoming()
                taken = Deferred.fromCoroutine(world.direct.take(message))
                taken.addCallback(lambda _: tell("acknowledged"))
            while threads.calls:
                threads.finish()

        status, told = in_child(work, Nth(number, die))
        world.restart()
        assert world.queued() == [], number
        assert isinstance(world.take(world.incoming(content=b"Subject: after\n\n")), Delivered), number
        first, *found, last = world.messages()
        assert b"Subject: before" in first and b"Subject: after" in last, number
        assert len(told) <= len(found) <= count, number
        assert all(each.endswith((LARGE if is_large else CONTENT)[13:]) for each in found), number
    assert status == 0 and len(told) == count
    assert number > 5


def test_a_runner_beside_it(world: DirectWorld) -> None:
    """What the queue has for the same mailbox, and what goes past it, are both there once."""
    assert isinstance(world.runner, Runner)
    world.send("alice@example.org", "bob@example.org")
    assert isinstance(world.take(world.incoming()), Delivered)
    assert [len(world.messages(name)) for name in ("alice", "bob")] == [2, 1]
