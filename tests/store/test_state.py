"""state.db: durable, never believed when damaged, never blamed for a full disk. RELIABILITY §2.7, F27."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mailserver.store import state as state_module
from mailserver.store import state_database
from mailserver.store.contract import FLAGGED, Mailbox, Modseq, StoreFailure, Uid
from mailserver.store.state import State, decode_flags, encode_flags
from tests.store.contract_suite import FIRST, SECOND, append, contents, flags
from tests.store.harness import MaildirHarness

NOW = 1_700_000_000


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(str(tmp_path), clock=lambda: NOW)
    yield state
    state.close()


def test_durability_is_switched_on(state: State) -> None:
    """WAL and synchronous=FULL: a commit survives a power cut."""
    assert state._read("PRAGMA journal_mode") == [("wal",)]
    assert state._read("PRAGMA synchronous") == [(2,)]


def test_a_new_data_base_is_whole_at_once(tmp_path: Path) -> None:
    """Many that open it for the first time at once see one data base, and nothing else is left beside it."""
    start = threading.Barrier(8)

    def first_contact() -> State:
        start.wait()
        return State(str(tmp_path))

    with ThreadPoolExecutor(8) as pool:
        states = [each.result() for each in [pool.submit(first_contact) for _ in range(8)]]
    with states[0].transaction():
        given = states[0].next_uidvalidity()
    for state in states:
        with state.transaction():
            assert state.next_uidvalidity(1) == 1 and state.may_adopt("INBOX", given)
        state.close()
    assert {name for name in os.listdir(tmp_path) if not name.startswith("uidvalidity")} == {"state.db"}
    assert oct((tmp_path / "state.db").stat().st_mode) == "0o100600"


def test_an_empty_file_becomes_a_data_base(tmp_path: Path) -> None:
    """An earlier release that was killed at its first contact left one."""
    (tmp_path / "state.db").touch(0o600)
    state = State(str(tmp_path))
    with state.transaction():
        assert state.may_adopt("INBOX", 7)
    assert not state.damage()
    state.close()


def test_a_failed_transaction_does_nothing(state: State) -> None:
    """All of it or none."""
    with pytest.raises(ZeroDivisionError), state.transaction():
        state.set_subscribed("Work", True)
        raise ZeroDivisionError
    assert state.subscriptions() == []


def test_uidvalidity_never_falls(tmp_path: Path) -> None:
    """A clock in the past, a second in the same second: always above all that were given."""
    clock = [NOW]
    state = State(str(tmp_path), clock=lambda: clock[0])
    given = []
    for now in (NOW, NOW, NOW - 86400, 0, NOW + 10):
        clock[0] = now
        with state.transaction():
            given.append(state.next_uidvalidity())
    assert given == [NOW, NOW + 1, NOW + 2, NOW + 3, NOW + 10]
    state.close()


def test_uidvalidity_outlives_the_data_base(tmp_path: Path) -> None:
    """state.db is lost, and the clock stands in the past: still a higher one, and nothing is adopted."""
    first = State(str(tmp_path), clock=lambda: NOW)
    with first.transaction():
        given = first.next_uidvalidity()
        assert first.may_adopt("INBOX", 7)
    first.close()
    (tmp_path / "state.db").unlink()
    second = State(str(tmp_path), clock=lambda: 5)
    with second.transaction():
        assert second.next_uidvalidity() > given
        assert not second.may_adopt("INBOX", given)
    second.close()


def test_a_retired_uidvalidity_is_not_adopted(state: State) -> None:
    """A mailbox was deleted: what is found under its name may be adopted with a higher one only."""
    with state.transaction():
        state.create_mailbox("Work", 100, 1)
        state.delete_mailbox("Work")
        assert not state.may_adopt("Work", 100)
        assert state.may_adopt("Work", 101)
        assert not state.may_adopt("Work", 2**32)


def test_expunges_are_bounded(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old expunges are dropped, and it is remembered up to which modseq. RFC 7162 §3.2.5.2."""
    monkeypatch.setattr(state_module, "EXPUNGES_KEPT", 10)
    with state.transaction():
        row = state.create_mailbox("Work", 100, 1)
        for modseq in range(2, 40):
            state.expunge(row.id, modseq, [Uid(modseq)])
    kept = state.expunged(row.id, 0)
    now = state.mailbox("Work")
    assert now is not None and now.forgotten == kept[0] - 1
    assert 10 <= len(kept) <= 20 and kept[-1] == 39


@pytest.mark.parametrize("count", [3, 60])
def test_flags_of_many_are_changed_alone(tmp_path: Path, count: int) -> None:
    """Of a range where others have the same old flags, only those named change; else the whole range."""
    state = State(str(tmp_path))
    seen, flagged = flags(b"\\Seen"), flags(b"\\Flagged")
    with state.transaction():
        row = state.create_mailbox("INBOX", 100, 1)
        rows = [(Uid(uid), f"k{uid}", "", b"", Modseq(2), 77, 5) for uid in range(1, 2 * count + 1)]
        state.add_messages(row.id, rows)
        state.set_flags(row.id, 3, {(flags(), seen): [Uid(uid) for uid in range(1, 2 * count + 1, 2)]})
        found = {uid: (decode_flags(text), modseq) for uid, _, _, text, modseq, *_ in state.messages(row.id)}
        assert found == {uid: ((seen, 3) if uid % 2 else (flags(), 2)) for uid in found}
        odd, even = [u for u in found if u % 2], [u for u in found if not u % 2]
        state.set_flags(row.id, 4, {(seen, seen | flagged): odd, (flags(), flagged): even})
        found = {uid: (decode_flags(text), modseq) for uid, _, _, text, modseq, *_ in state.messages(row.id)}
        assert found == {uid: (seen | flagged if uid % 2 else flagged, 4) for uid in found}
    state.close()


def test_flags_as_octets() -> None:
    """One spelling, back and forth."""
    assert decode_flags(encode_flags(flags(b"\\Seen", b"Work"))) == flags(b"\\Seen", b"Work")
    assert encode_flags(flags()) == b""


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A newer release's state is not touched; the old release says so."""
    State(str(tmp_path)).close()
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute(f"PRAGMA user_version={state_database.SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreFailure, match="newer"):
        State(str(tmp_path))


def test_the_first_schema_is_raised(tmp_path: Path) -> None:
    """An older release's state keeps all it had; its messages were saved at their internal date."""
    state = State(str(tmp_path), clock=lambda: NOW)
    with state.transaction():
        row = state.create_mailbox("INBOX", 100, 3)
        state.add_messages(row.id, [(Uid(uid), f"k{uid}", "", b"", Modseq(2), 77, 5) for uid in (1, 2)])
    state.close()
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute("ALTER TABLE message DROP COLUMN saved")
    db.execute("PRAGMA user_version=1")
    db.close()
    raised = State(str(tmp_path), clock=lambda: NOW)
    with raised.transaction():
        raised.add_messages(row.id, [(Uid(3), "k3", "", b"", Modseq(3), 77, 5)])
    assert [uid for uid, *_ in raised.messages(row.id)] == [1, 2, 3]
    assert raised.save_dates(row.id, 1, 3) == {1: 77, 2: 77, 3: NOW}
    raised.close()
    again = State(str(tmp_path), clock=lambda: NOW)  # it is raised once
    assert again.mailbox("INBOX") == row
    again.close()


# Damage. The account has two messages; afterwards they are there, under the same UIDs with the
# same UIDVALIDITY, or under a higher UIDVALIDITY.


def damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    acts: dict[str, Callable[[], object]] = {
        "empty": lambda: path.write_bytes(b""),
        "missing": path.unlink,
        "junk": lambda: path.write_bytes(b"junk" * 5000),
        "directory": lambda: (path.unlink(), path.mkdir()),
        "link": lambda: (path.unlink(), path.symlink_to("/etc/passwd")),
        "fifo": lambda: (path.unlink(), os.mkfifo(path)),
        "foreign": lambda: (path.unlink(), make_foreign(path)),
    }
    if kind in acts:
        acts[kind]()
    elif kind.startswith("cut"):
        path.write_bytes(data[: len(data) * int(kind[3:]) // 100])
    else:
        chance = random.Random(kind)
        broken = bytearray(data)
        for _ in range(64):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)


def make_foreign(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE something (else_ INTEGER)")
    db.close()


KINDS = ["empty", "missing", "junk", "directory", "link", "fifo", "foreign"]
KINDS += [f"cut{percent}" for percent in range(5, 100, 15)] + [f"flip{seed}" for seed in range(8)]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_never_moves_a_uid(tmp_path: Path, kind: str) -> None:
    """Whatever happens to state.db, the same (UIDVALIDITY, UID) is the same message. RELIABILITY F27."""
    harness = MaildirHarness(tmp_path)
    box = harness.store.open("INBOX")
    append(box, FIRST, SECOND, with_flags=flags(FLAGGED))
    before = contents(box)
    harness.registry.shut()
    damage(harness.state_path / "state.db", kind)
    again = open_inbox(harness)
    after = contents(again)
    assert sorted(after.values()) == sorted([FIRST, SECOND])
    if again.uidvalidity == box.uidvalidity:
        assert all(before[uid] == content for uid, content in after.items() if uid in before)
    else:
        assert again.uidvalidity > box.uidvalidity
    harness.registry.shut()
    assert contents(open_inbox(harness)) == after
    harness.registry.shut()


def open_inbox(harness: MaildirHarness) -> Mailbox:
    for _ in range(3):  # damage that shows itself late costs a session, not the next one
        try:
            return harness.crash().open("INBOX")
        except StoreFailure:
            continue
    return harness.crash().open("INBOX")


def test_damaged_state_is_kept_for_a_human(tmp_path: Path) -> None:
    """It is moved aside and logged."""
    harness = MaildirHarness(tmp_path)
    harness.registry.shut()
    (harness.state_path / "state.db").write_bytes(b"junk" * 5000)
    harness.crash()
    (aside,) = harness.state_path.glob("state.db.damaged-*")
    assert aside.read_bytes() == b"junk" * 5000
    assert any("moved to" in text for _, text in harness.log.lines)
    harness.registry.shut()


def test_a_local_fault_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptors left: a temporary failure, and state.db stays where it is. RELIABILITY P5."""
    State(str(tmp_path)).close()

    def refuse(*args: object, **options: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(StoreFailure):
            State(str(tmp_path))
    assert (tmp_path / "state.db").is_file()
    State(str(tmp_path)).close()


SILENT = (
    "UPDATE message SET uid=7 WHERE uid=1",
    "UPDATE message SET uid=9 WHERE uid=2",
    "UPDATE mailbox SET uidnext=uidnext+64 WHERE name='INBOX'",
    "UPDATE mailbox SET uidnext=2 WHERE name='INBOX'",
    "UPDATE mailbox SET uidvalidity=uidvalidity-1 WHERE name='INBOX'",
    "UPDATE mailbox SET uidvalidity=uidvalidity+1 WHERE name='INBOX'",
    "UPDATE mailbox SET modseq=1 WHERE name='INBOX'",
    "UPDATE seal SET checksum=checksum+1",
    "DELETE FROM message WHERE uid=2",
)


@pytest.mark.parametrize("change", SILENT)
def test_silent_damage_raises_uidvalidity(tmp_path: Path, change: str) -> None:
    """F27: figures that changed by themselves, which SQLite takes for written ones, are not believed."""
    harness = MaildirHarness(tmp_path)
    box = harness.store.open("INBOX")
    append(box, FIRST, SECOND, b"Subject: third\r\n\r\nThird\r\n")
    before = contents(box)
    harness.registry.shut()
    with sqlite3.connect(harness.state_path / "state.db") as db:
        db.execute(change)
    db.close()
    again = open_inbox(harness)
    assert again.uidvalidity > box.uidvalidity
    assert sorted(contents(again).values()) == sorted(before.values())
    assert "contradicts itself" in str(harness.log.lines)
    harness.registry.shut()


def test_state_of_a_release_without_seals(tmp_path: Path) -> None:
    """RELIABILITY F59: it is believed, and sealed from the next change on."""
    harness = MaildirHarness(tmp_path)
    box = harness.store.open("INBOX")
    append(box, FIRST)
    harness.registry.shut()
    with sqlite3.connect(harness.state_path / "state.db") as db:
        db.execute("DROP TABLE seal")
    db.close()
    again = open_inbox(harness)
    assert again.uidvalidity == box.uidvalidity
    append(again, SECOND)
    harness.registry.shut()
    with sqlite3.connect(harness.state_path / "state.db") as db:
        assert db.execute("SELECT count(*) FROM seal").fetchone() == (1,)
    db.close()
