"""The index over a format: two processes, crashes between the two stores, failing disks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store import mailbox_memory
from mailserver.store import state as state_module
from mailserver.store.contract import (
    FLAGGED,
    SEEN,
    MailboxReplaced,
    OverQuota,
    StoreFailure,
    StoreMode,
    Uid,
)
from mailserver.store.maildir import MaildirFormat
from mailserver.store.maildir_names import letters_of
from tests.store.contract_suite import FIRST, SECOND, THIRD, append, contents, flags
from tests.store.harness import MaildirHarness


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[MaildirHarness]:
    harness = MaildirHarness(tmp_path)
    yield harness
    harness.registry.shut()


def test_recent_is_never_stored(harness: MaildirHarness) -> None:
    """\\Recent is no flag that a client can set. RFC 3501 §2.3.2."""
    box = harness.store.open("INBOX")
    append(box, FIRST, with_flags=flags(b"\\Recent", SEEN))
    box.change_flags([Uid(1)], flags(b"\\RECENT", FLAGGED), StoreMode.ADD)
    assert box.messages[Uid(1)].flags == flags(SEEN, FLAGGED)
    assert list(box.keywords) == []


def test_another_process_numbers_our_message(
    harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that another process sees before we have numbered it has one UID, and our flags."""
    ours = harness.store.open("INBOX")
    theirs = harness.crash().open("INBOX")
    publish = MaildirFormat.append

    def append_slowly(form: MaildirFormat, messages: object) -> object:
        found = publish(form, messages)  # type: ignore[arg-type]
        theirs.refresh()
        return found

    monkeypatch.setattr(MaildirFormat, "append", append_slowly)
    assert append(ours, FIRST, SECOND, with_flags=flags(SEEN, b"Work")) == [1, 2]
    theirs.refresh()
    assert list(ours.uids) == list(theirs.uids) == [1, 2]
    for box in (ours, theirs):
        assert {message.flags for message in box.messages.values()} == {flags(SEEN, b"Work")}


def test_two_processes_agree(harness: MaildirHarness) -> None:
    """What one process commits, the other takes in: UIDs, flags, keywords, expunges, modseqs."""
    ours = harness.store.open("INBOX")
    theirs = harness.crash().open("INBOX")
    append(ours, FIRST, SECOND, with_flags=flags(b"Work"))
    assert theirs.refresh() is True
    assert contents(theirs) == {1: FIRST, 2: SECOND}
    theirs.change_flags([Uid(1)], flags(SEEN, b"Play"), StoreMode.ADD)
    append(theirs, THIRD)
    theirs.remove([Uid(2)])
    before = ours.highest_modseq
    ours.refresh()
    assert contents(ours) == {1: FIRST, 3: THIRD}
    assert ours.messages == theirs.messages
    assert (ours.uidnext, ours.highest_modseq) == (theirs.uidnext, theirs.highest_modseq)
    assert list(ours.keywords) == list(theirs.keywords) == [b"Work", b"Play"]
    changes = ours.changes_since(before)
    assert (list(changes.changed), list(changes.expunged)) == ([1, 3], [2])


def test_two_processes_number_one_delivery_once(harness: MaildirHarness) -> None:
    """Both find the file; one gives the UID."""
    ours = harness.store.open("INBOX")
    theirs = harness.crash().open("INBOX")
    harness.deliver(FIRST)
    assert ours.refresh() and theirs.refresh()
    assert ours.messages == theirs.messages
    assert list(ours.uids) == [1]


def test_another_process_deletes_the_mailbox(harness: MaildirHarness) -> None:
    """Sessions here end."""
    harness.store.create("Work")
    ours = harness.store.open("Work")
    harness.crash().delete("Work")
    with pytest.raises(MailboxReplaced):
        ours.refresh()
    with pytest.raises(MailboxReplaced):
        append(ours, FIRST)


def test_a_write_takes_in_the_others_first(harness: MaildirHarness) -> None:
    """UIDs stay unique though this process did not refresh."""
    ours = harness.store.open("INBOX")
    theirs = harness.crash().open("INBOX")
    append(ours, FIRST)
    assert list(append(theirs, SECOND)) == [2]
    assert contents(theirs) == {1: FIRST, 2: SECOND}


def test_flags_are_durable_before_the_file_shows_them(
    harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename fails, or never happens: STORE holds, and the name follows later."""
    box = harness.store.open("INBOX")
    append(box, FIRST)

    def fails(form: MaildirFormat, wanted: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MaildirFormat, "write_flags", fails)
        box.change_flags([Uid(1)], flags(SEEN), StoreMode.ADD)
    assert box.messages[Uid(1)].flags == flags(SEEN)
    again = harness.crash().open("INBOX")
    assert again.messages[Uid(1)].flags == flags(SEEN)
    harness.store.close(again)
    assert letters_of(harness.files()[0].name) == "S"


def test_a_failed_commit_shows_nothing(harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """state.db cannot be written: no UID is visible; the message is numbered when it can."""
    box = harness.store.open("INBOX")
    heard: list[bool] = []
    box.subscribe(lambda: heard.append(True))

    def fails(*args: object) -> None:
        raise StoreFailure("disk full")

    harness.deliver(FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(state_module.State, "add_messages", fails)
        with pytest.raises(StoreFailure):
            box.refresh()
        with pytest.raises(StoreFailure):
            append(box, SECOND)
    assert (list(box.uids), box.uidnext, heard) == ([], 1, [])
    box.refresh()
    assert sorted(contents(box).values()) == sorted([FIRST, SECOND])


def test_a_removal_that_fails_half_way(harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone is expunged at the next refresh, the rest stays."""
    box = harness.store.open("INBOX")
    append(box, FIRST, SECOND)
    unlink, left = os.unlink, [1]

    def fails(path: str) -> None:
        if not left:
            raise OSError(5, "Input/output error")
        left.pop()
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fails)
        with pytest.raises(StoreFailure):
            box.remove([Uid(1), Uid(2)])
    box.refresh()
    assert contents(box) == {2: SECOND}


def test_quota_of_the_file_system(harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """EDQUOT is the account's limit, not a fault. RFC 5530 §3."""
    box = harness.store.open("INBOX")

    def full(descriptor: int) -> None:
        raise OSError(122, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OverQuota):
            append(box, FIRST)


def test_old_changes_are_answered_from_the_state(
    harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the memory of changes, and beyond that of expunges. RFC 7162 §3.2.5.2."""
    monkeypatch.setattr(mailbox_memory, "_REMEMBERED_CHANGES", 2)
    monkeypatch.setattr(state_module, "EXPUNGES_KEPT", 2)
    box = harness.crash().open("INBOX")
    append(box, *[FIRST] * 12)
    start = box.highest_modseq
    box.change_flags([Uid(12)], flags(SEEN), StoreMode.ADD)
    for uid in range(1, 5):
        box.remove([Uid(uid)])
    changes = box.changes_since(start)
    assert (list(changes.changed), list(changes.expunged)) == ([12], [1, 2, 3, 4])
    for uid in range(5, 9):
        box.remove([Uid(uid)])
    changes = box.changes_since(start)
    assert not changes.complete
    assert (list(changes.changed), list(changes.expunged)) == ([12], list(range(1, 9)))


def test_rows_that_contradict_each_other(harness: MaildirHarness) -> None:
    """A UID at or above UIDNEXT, or one key twice: a higher UIDVALIDITY, and no operator. RELIABILITY P8."""
    box = harness.store.open("INBOX")
    append(box, FIRST, SECOND)
    state = harness.store._state
    with state.transaction():
        state._db.execute("UPDATE mailbox SET uidnext=2 WHERE name='INBOX'")
    again = harness.crash().open("INBOX")
    assert again.uidvalidity > box.uidvalidity
    assert sorted(contents(again).values()) == sorted([FIRST, SECOND])


def test_reading_while_another_thread_waits(harness: MaildirHarness) -> None:
    """`changes_since`, subscribing and the attributes never wait for the mailbox's lock."""
    box = harness.store.open("INBOX")
    append(box, FIRST)
    done = threading.Event()

    def look() -> None:
        box.subscribe(lambda: None)
        assert list(box.changes_since(box.highest_modseq).changed) == []
        assert list(box.changes_since(type(box.highest_modseq)(1)).changed) == [1]
        done.set()

    with box.lock:  # type: ignore[attr-defined]
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        assert done.wait(20)
    thread.join()


def test_idle_mailboxes_and_stores(tmp_path: Path) -> None:
    """A store is kept warm for a while, then closed; the next login opens it anew."""
    now = [0.0]
    harness = MaildirHarness(tmp_path)
    harness.registry._clock = lambda: now[0]
    first = harness.store
    harness.registry.close(first)
    now[0] = 30
    harness.registry.sweep()
    assert harness._open() is first
    harness.registry.close(first)
    now[0] = 100
    harness.registry.sweep()
    again = harness._open()
    assert again is not first
    assert again.open("INBOX").uidnext == 1
    harness.registry.sweep()
    assert harness._open() is again
    harness.registry.shut()


def test_lingering_mailboxes_are_bounded(harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least used go first; open ones never."""
    monkeypatch.setattr("mailserver.store.open_mailboxes.LINGERING_MAILBOXES", 2)
    held = harness.store.open("Drafts")
    for name in ("Sent", "Trash", "Junk", "Archive", "INBOX"):
        harness.store.close(harness.store.open(name))
    assert list(harness.store._open.boxes) == ["Drafts", "Archive", "INBOX"]
    assert harness.store.open("Drafts") is held


def test_what_is_missing_is_known_to_be_gone(
    harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an expunge is made known, whoever finds a message missing finds it expunged. RFC 7162 §3.2.5."""
    box = harness.store.open("INBOX")
    append(box, FIRST, SECOND, THIRD)
    start, seen = box.highest_modseq, list[tuple[set[Uid], set[Uid]]]()

    def look(identity: object, uids: object) -> None:
        seen.append((set(box.uids), set(box.changes_since(start).expunged)))

    monkeypatch.setattr(box._cache, "forget", look)  # type: ignore[attr-defined]
    box.remove([Uid(2)])
    assert seen == [({1, 3}, {2})]
    assert list(box.changes_since(start).expunged) == [2]
    assert not box.changes_since(box.highest_modseq).expunged


@pytest.mark.parametrize("remembered", [3, 100])
def test_what_changes_while_changes_are_read(
    harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    """No change is missed because another thread makes one meanwhile, even if no more are remembered."""
    monkeypatch.setattr(mailbox_memory, "_REMEMBERED_CHANGES", remembered)
    box = harness.crash().open("INBOX")
    append(box, FIRST, SECOND, THIRD, FIRST)
    start = box.highest_modseq
    for uid in (1, 2, 3):
        box.change_flags([Uid(uid)], flags(SEEN), StoreMode.ADD)

    class Interrupted(list[Uid]):
        def __iter__(self) -> Iterator[Uid]:
            box.change_flags([Uid(4)], flags(SEEN), StoreMode.ADD)
            return super().__iter__()

    log = box._log  # type: ignore[attr-defined]
    modseq, changed, gone = log[-1]
    log[-1] = modseq, Interrupted(changed), gone
    changes = box.changes_since(start)
    assert {1, 2, 3} <= set(changes.changed) and changes.complete
