"""The queue on disk: names, states, the scan, damage."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.envelope import Address, Client, Envelope, Recipient
from mailserver.queue.directory import Busy, QueueDirectory, State
from mailserver.queue.identity import QueueIds, is_queue_id
from mailserver.queue.record import (
    Accepted,
    Damaged,
    accepted_record,
    decode_records,
    encode_record,
    read_accepted,
)
from tests.queue.world import World, envelope

TEXT = st.text(max_size=20)
ADDRESSES = st.builds(Address, TEXT, TEXT)
RECIPIENTS = st.builds(Recipient, ADDRESSES, TEXT, st.frozensets(st.sampled_from(["NEVER", "DELAY"])), TEXT)
CLIENTS = st.builds(Client, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, st.integers(-1, 70000))
ENVELOPES = st.builds(
    Envelope,
    st.none() | ADDRESSES,
    st.lists(RECIPIENTS, max_size=3).map(tuple),
    CLIENTS,
    TEXT,
    st.booleans(),
    TEXT,
    TEXT,
)


@given(ENVELOPES, st.floats(0, 1e11))
def test_an_envelope_survives_the_round_trip(value: Envelope, arrival: float) -> None:
    """What was accepted is what is read, line breaks and all (B13)."""
    accepted = Accepted(value, arrival, "bounce")
    records, used = decode_records(encode_record(accepted_record(accepted)))
    assert read_accepted(records[0]) == accepted
    assert used


@given(st.binary(max_size=300))
def test_no_octets_break_the_reader(data: bytes) -> None:
    """Anything but records is damage or a torn end, never another exception."""
    try:
        records, used = decode_records(data)
    except Damaged:
        return
    assert used <= len(data)
    assert not records or used


def test_ids_rise_whatever_the_clock_does() -> None:
    """F54: unique, rising, and disjoint between workers."""
    times = iter([1000.0, 1000.0, 999.0, 10.0, 1000.0, 5000.0] * 2)
    ids = QueueIds(lambda: next(times))
    given_ids = [ids.next() for _ in range(6)]
    assert given_ids == sorted(set(given_ids))
    others = QueueIds(lambda: 1000.0, worker=3)
    assert not set(given_ids) & {others.next() for _ in range(100)}
    assert all(re.fullmatch("[0-9A-F]{11}", queue_id) for queue_id in given_ids)
    long_ids = QueueIds(lambda: 1_795_494_800.5, worker=1, long_ids=True)
    assert re.fullmatch(r"[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,12}z\w+", long_ids.next())
    assert is_queue_id(long_ids.next())


def test_a_committed_message_is_read_as_it_was(tmp_path: Path) -> None:
    """The file holds content, envelope and journal, and mode 0700 says complete."""
    world = World(tmp_path)
    message = world.commit("alice@example.org", content=b"a: b\n\n" + b"x" * 200_000 + b"\n")
    assert os.stat(message.path).st_mode & 0o777 == 0o700
    message.append([["warned"]])
    message.close()
    again = world.queue.open(message.queue_id)
    assert again.read_content() == b"a: b\n\n" + b"x" * 200_000 + b"\n"
    assert again.accepted.envelope == envelope("alice@example.org")
    assert again.records == [["warned"]]
    again.close()


def test_one_worker_at_a_time(tmp_path: Path) -> None:
    """The OFD lock excludes other openings in the same process; readers see who is active."""
    world = World(tmp_path)
    message = world.commit("alice@example.org")
    with pytest.raises(Busy):
        world.queue.open(message.queue_id)
    assert world.queue.is_active(message.queue_id)
    (listed,) = world.queue.listing()
    assert listed.is_active
    assert listed.message.accepted.envelope == envelope("alice@example.org")
    listed.message.close()
    assert world.queue.is_active(message.queue_id)
    message.close()
    assert not world.queue.is_active(message.queue_id)
    with pytest.raises(FileNotFoundError):
        world.queue.open("0123456789A")


def test_a_message_being_received_is_left_alone(tmp_path: Path) -> None:
    """The scan skips locked files and removes the left-overs of dead processes."""
    world = World(tmp_path)
    alive = world.queue.create(envelope("alice@example.org"))
    alive.write(b"x" * 70_000)
    alive.flush()
    (tmp_path / "queue" / "incoming" / "0FFFFFFFFFF").write_bytes(b"")
    assert world.queue.scan().incoming == []
    assert world.queued() == [f"incoming/{alive.queue_id}"]
    alive.commit().close()
    assert world.queue.scan().incoming == [alive.queue_id]


def test_moves_keep_the_message_and_never_overwrite(tmp_path: Path) -> None:
    """A state has no two messages of one id: the second one moved there gets a new id."""
    world = World(tmp_path)
    message = world.commit("alice@example.org")
    old = message.queue_id
    shutil.copy(message.path, tmp_path / "queue" / "deferred" / old)
    world.queue.move(message, State.DEFERRED)
    assert message.queue_id != old
    assert sorted(os.listdir(tmp_path / "queue" / "deferred")) == sorted([old, message.queue_id])
    message.close()
    world.queue.open(message.queue_id).close()


def test_equal_ids_in_two_states_become_two(tmp_path: Path) -> None:
    """A clock that went back may give an id again: both messages are delivered."""
    world = World(tmp_path)
    message = world.commit("alice@example.org")
    shutil.copy(message.path, tmp_path / "queue" / "deferred" / message.queue_id)
    message.close()
    world.restart()
    world.runner.flush()
    assert len(world.mailbox("alice")) == 2


def test_a_restored_queue_is_delivered(tmp_path: Path) -> None:
    """F58: new inodes, lost modes, other times."""
    world = World(tmp_path)
    for name in ("alice", "bob"):
        world.commit(f"{name}@example.org").close()
    shutil.copytree(tmp_path / "queue", tmp_path / "copy")
    shutil.rmtree(tmp_path / "queue")
    (tmp_path / "copy").rename(tmp_path / "queue")
    os.chmod(next((tmp_path / "queue" / "incoming").iterdir()), 0o600)
    world.restart()
    assert len(world.mailbox("alice")) == len(world.mailbox("bob")) == 1
    assert world.queued() == []


def _damages(data: bytes) -> dict[str, bytes]:
    flips = {
        f"flip {position}": data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]
        for position in range(0, len(data), max(1, len(data) // 64))
    }
    cuts = {f"cut {percent}%": data[: len(data) * percent // 100] for percent in range(0, 100, 5)}
    return flips | cuts


def test_damaged_files_are_set_aside_and_the_rest_delivered(tmp_path: Path) -> None:
    """F26: never delivered damaged, one warning each, start succeeds."""
    world = World(tmp_path)
    message = world.commit("alice@example.org")
    data = Path(message.path).read_bytes()
    message.remove()
    damages = _damages(data)
    for number, damaged in enumerate(damages.values()):
        path = tmp_path / "queue" / "incoming" / f"{number:011X}"
        path.write_bytes(damaged)
        path.chmod(0o700)
    world.commit("bob@example.org").close()
    world.restart()
    world.clock.pump([0] * 5)
    assert world.mailbox("alice") == []
    assert len(world.mailbox("bob")) == 1
    assert len(os.listdir(tmp_path / "queue" / "corrupt")) == len(damages)
    assert [name for name in world.queued() if not name.startswith("corrupt/")] == []
    assert len(world.lines("is damaged")) == len(damages)


def test_a_listing_reads_envelopes_alone(tmp_path: Path) -> None:
    """Header line and records, not the content, whose damage shows when the message is opened."""
    world = World(tmp_path)
    message = world.commit("alice@example.org")
    data = Path(message.path).read_bytes()
    offset, length = message.content_offset, message.content_length
    message.close()
    Path(message.path).write_bytes(data[:offset] + b"\0" * length + data[offset + length :])
    (listed,) = world.queue.listing()
    assert listed.message.accepted.envelope == envelope("alice@example.org")
    assert listed.message.content_length == length
    listed.message.close()
    with pytest.raises(Damaged):
        world.queue.open(message.queue_id)
    assert list(world.queue.listing()) == []


def test_a_torn_last_record_does_not_count(tmp_path: Path) -> None:
    """A crash while the journal grows costs that record only."""
    world = World(tmp_path)
    message = world.commit("alice@example.org")
    message.append([["warned"], ["reported", [0]]])
    message.close()
    data = Path(message.path).read_bytes()
    Path(message.path).write_bytes(data[:-4])
    again = world.queue.open(message.queue_id)
    assert again.records == [["warned"]]
    again.append([["reported", [1]]])
    again.close()
    assert world.queue.open(message.queue_id).records == [["warned"], ["reported", [1]]]


def test_what_is_no_queue_file_is_ignored_with_one_warning(tmp_path: Path) -> None:
    """F26: symlinks, directories, FIFOs, junk in any number."""
    world = World(tmp_path)
    incoming = tmp_path / "queue" / "incoming"
    (incoming / "0AAAAAAAAAA").symlink_to("/etc/passwd")
    (incoming / "0AAAAAAAAAB").mkdir()
    os.mkfifo(incoming / "0AAAAAAAAAC")
    for number in range(500):
        (incoming / f"junk{number}").touch()
    world.commit("alice@example.org").close()
    world.restart()
    assert len(world.mailbox("alice")) == 1
    (line,) = world.lines("ignored 503 entries")
    assert line.count("junk") <= 3


def test_room_is_kept_for_the_largest_message(tmp_path: Path) -> None:
    """F13: 1.5 x message_size_limit and queue_minfree."""
    free = os.statvfs(tmp_path)
    available = free.f_bavail * free.f_frsize
    roomy = QueueDirectory(str(tmp_path), message_size_limit=1000)
    assert roomy.has_room()
    assert not roomy.has_room(available * 2)
    assert not QueueDirectory(str(tmp_path), message_size_limit=available).has_room()
    assert not QueueDirectory(str(tmp_path), minimum_free=available * 2).has_room()


def test_files_of_delivered_messages_are_used_again(tmp_path: Path) -> None:
    """No octet of the old message is in the new one; a dead process's spares are removed."""
    world = World(tmp_path)
    world.send("alice@example.org", content=b"Subject: first\n\n" + b"secret" * 100 + b"\n")
    (spare,) = (tmp_path / "queue" / "spare").iterdir()
    inode = spare.stat().st_ino
    message = world.commit("bob@example.org")
    assert os.stat(message.path).st_ino == inode
    assert b"secret" not in Path(message.path).read_bytes()
    message.close()
    assert world.queue.open(message.queue_id).accepted.envelope == envelope("bob@example.org")
    (tmp_path / "queue" / "spare" / "0123456789A").write_bytes(b"left over")
    kept = world.commit("bob@example.org")
    world.queue.remove(kept)
    world.queue.scan()
    assert len(list((tmp_path / "queue" / "spare").iterdir())) == 1
    world.queue.close()
    assert list((tmp_path / "queue" / "spare").iterdir()) == []
