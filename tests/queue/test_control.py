"""What operators do to messages: postsuper(1)'s acts on queue files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.delivery.transport import NoRelay
from mailserver.envelope import Outcome
from mailserver.queue.control import QueueControl
from mailserver.queue.directory import MESSAGE_STATES, Busy, State
from mailserver.queue.listing import describe, entries, waiting_for
from mailserver.queue.progress import Progress
from tests.queue.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def control(world: World, patience: float = 0.0) -> QueueControl:
    return QueueControl(world.queue, patience, world.clock.seconds, lambda seconds: None)


def deferred(world: World, *recipients: str) -> str:
    """The id of a message that waits: bob's mailbox is full."""
    target = str(world.base / "mail" / "bob")
    world.agents.faults[target] = Outcome.deferred("mailbox full", "4.2.2")
    queue_id = world.send(*(recipients or ("bob@example.org",)))
    assert f"deferred/{queue_id}" in world.queued()
    return queue_id


def test_delete(world: World) -> None:
    """The file is gone; an id that nobody has is not."""
    queue_id = deferred(world)
    assert control(world).delete(queue_id, MESSAGE_STATES)
    assert world.queued() == []
    assert not control(world).delete(queue_id, MESSAGE_STATES)


def test_delete_in_one_queue_only(world: World) -> None:
    """A queue name protects messages in others."""
    queue_id = deferred(world)
    assert not control(world).delete(queue_id, (State.HOLD,))
    assert control(world).delete(queue_id, (State.DEFERRED,))


def test_what_is_being_delivered_can_be_deleted_but_not_held(world: World) -> None:
    """A lock is waited for; then deletion wins, as Postfix's does."""
    message = world.commit("bob@example.org")
    with pytest.raises(Busy):
        control(world, 0.1).hold(message.queue_id, MESSAGE_STATES)
    assert control(world, 0.1).delete(message.queue_id, MESSAGE_STATES)
    assert world.queued() == []
    message.close()


def test_hold_and_release(world: World) -> None:
    """On hold nothing is tried; a released message is due."""
    queue_id = deferred(world)
    assert control(world).hold(queue_id, MESSAGE_STATES)
    assert world.queued() == [f"hold/{queue_id}"]
    world.agents.faults.clear()
    world.clock.advance(400_000)
    world.runner.flush()
    assert world.queued() == [f"hold/{queue_id}"]
    assert not control(world).hold(queue_id, MESSAGE_STATES)
    assert control(world).release(queue_id)
    assert world.queued() == [f"deferred/{queue_id}"]
    world.runner.hurry([queue_id])
    assert world.queued() == [] and len(world.mailbox("bob")) == 1


def test_requeue_is_a_new_message_that_remembers_what_was_delivered(world: World) -> None:
    """alice has her copy; bob's is tried again, and the time until expiry begins anew."""
    world.aliases.values = {"both": "alice, bob"}
    queue_id = deferred(world, "both@example.org")
    assert len(world.mailbox("alice")) == 1
    world.clock.advance(100_000)
    new_id = control(world).requeue(queue_id, MESSAGE_STATES)
    assert new_id not in ("", queue_id) and world.queued() == [f"incoming/{new_id}"]
    listed = world.queue.look(new_id, State.INCOMING)
    assert listed is not None
    assert listed.message.accepted.arrival == world.clock.seconds()
    assert Progress(listed.message.accepted, listed.message.records).attempts == 0
    listed.message.close()
    world.agents.faults.clear()
    world.runner.hurry([new_id])
    assert world.queued() == []
    assert (len(world.mailbox("alice")), len(world.mailbox("bob"))) == (1, 1)
    assert control(world).requeue(queue_id, MESSAGE_STATES) == ""


def test_expire_returns_it_at_the_next_attempt(world: World) -> None:
    """The sender hears the reason of the delay; nothing more is tried."""
    target = str(world.base / "mail" / "bob")
    world.agents.faults[target] = Outcome.deferred("mailbox full", "4.2.2")
    queue_id = world.send("bob@example.org", sender="alice@example.org")
    attempts = len(world.agents.jobs)
    assert control(world).expire(queue_id, MESSAGE_STATES)
    world.runner.hurry([queue_id])
    assert world.queued() == [] and len(world.agents.jobs) == attempts + 1  # the report's delivery
    (report,) = world.mailbox("alice")
    assert b"mailbox full" in report
    assert world.lines("status=force-expired, returned to sender")


def test_expire_on_hold_waits_for_the_release(world: World) -> None:
    """-e leaves it on hold, -f releases it."""
    queue_id = deferred(world)
    control(world).hold(queue_id, MESSAGE_STATES)
    assert control(world).expire(queue_id, MESSAGE_STATES)
    assert world.queued() == [f"hold/{queue_id}"]
    (entry,) = entries(world.queue)
    assert entry["forced_expire"] and entry["queue_name"] == "hold"
    assert control(world).expire(queue_id, MESSAGE_STATES, release=True)
    assert world.queued() == [f"deferred/{queue_id}"]


def test_listing(world: World) -> None:
    """Only what still waits is listed, with the reason."""
    queue_id = deferred(world, "alice@example.org", "bob@example.org")
    (entry,) = entries(world.queue)
    assert entry == {
        "queue_name": "deferred",
        "queue_id": queue_id,
        "arrival_time": int(world.clock.seconds()),
        "message_size": len(b"Subject: hi\n\nhello\n"),
        "forced_expire": False,
        "sender": "s@example.com",
        "recipients": [{"address": "bob@example.org", "delay_reason": "mailbox full"}],
    }


def test_a_message_that_somebody_works_on_is_active(world: World) -> None:
    """The lock says so; the null sender has Postfix's name."""
    message = world.commit("bob@example.org", sender=None)
    (entry,) = entries(world.queue)
    assert (entry["queue_name"], entry["sender"]) == ("active", "MAILER-DAEMON")
    message.close()


def test_damaged_files_are_left_out(world: World) -> None:
    """A listing never fails for one message."""
    message = world.commit("bob@example.org")
    message.close()
    with open(message.path, "r+b") as file:
        file.seek(message.content_offset + message.content_length + 20)  # the envelope
        file.write(b"\0\0\0")
    assert list(entries(world.queue)) == []


def test_messages_for_a_site(world: World) -> None:
    """postqueue -s: those of which a recipient is there."""
    world.services = world.make_services(transport=NoRelay())
    here = deferred(world)
    assert waiting_for(world.queue, lambda domain: domain == "example.org") == [here]
    assert waiting_for(world.queue, lambda domain: domain == "example.net") == []
    assert os.listdir(world.base / "queue" / "deferred") == [here]
    listed = world.queue.look(here, State.DEFERRED)
    assert listed is not None and describe(listed)["queue_id"] == here
