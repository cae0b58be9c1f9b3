"""What is answered without blocking, or from what state.db remembers, is what a fresh look would say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store.contract import DELETED, FLAGGED, SEEN, MailboxStatus, NewMessage, StoreMode
from tests.store.contract_suite import FIRST, SECOND, flags
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness, let_time_pass


@pytest.fixture(params=[MaildirHarness, MboxHarness])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileHarness]:
    made = request.param(tmp_path)
    made.deliver(FIRST)
    made.deliver(SECOND)
    yield made
    made.registry.shut()


def _looked_at(harness: FileHarness) -> MailboxStatus:
    """The figures counted anew, in a mailbox that was just opened."""
    box = harness.store.open("INBOX")
    messages = box.messages.values()
    figures = MailboxStatus(
        len(messages),
        sum(uid >= box.peek_recent() for uid in box.uids),
        box.uidnext,
        box.uidvalidity,
        sum(SEEN not in message.flags for message in messages),
        box.highest_modseq,
        sum(DELETED in message.flags for message in messages),
        sum(box.sizes(box.uids).values()),
        box.mailbox_id,
    )
    harness.store.close(box)
    return figures


def test_figures_at_once_are_those_of_now_or_none(harness: FileHarness) -> None:
    """None while the mailbox is not in memory, and after another program touched it."""
    store = harness.store
    assert store.status_at_once("INBOX") is None
    let_time_pass(harness)
    store.status("INBOX", with_size=True)
    assert store.status_at_once("INBOX", with_size=True) == _looked_at(harness)
    harness.deliver(b"Subject: third\r\n\r\n3\r\n")
    assert store.status_at_once("INBOX") is None
    assert store.status("INBOX").messages == 3
    assert store.status_at_once("none") is None


def test_figures_keep_count_of_every_change(harness: FileHarness) -> None:
    """Appended, flagged, expunged: what is counted along is what counting anew gives."""
    store = harness.store
    box = store.open("INBOX")
    store.status("INBOX")
    box.append([NewMessage(FIRST, flags(SEEN)), NewMessage(SECOND, flags(DELETED))])
    assert store.status("INBOX", with_size=True) == _looked_at(harness)
    box.change_flags(box.uids[:3], flags(SEEN, FLAGGED), StoreMode.ADD)
    box.change_flags(box.uids[2:], flags(SEEN), StoreMode.REMOVE)
    assert store.status("INBOX", with_size=True) == _looked_at(harness)
    box.expunge()
    harness.vanish(box.uids[1])
    assert store.status("INBOX", with_size=True) == _looked_at(harness)


def test_an_untouched_mailbox_is_not_loaded_for_its_figures(harness: FileHarness) -> None:
    """After a restart state.db answers, and the mailbox stays out of memory; RECENT is counted too."""
    box = harness.store.open("INBOX")
    box.change_flags(box.uids[:1], flags(SEEN, DELETED), StoreMode.ADD)
    box.sizes(box.uids)
    let_time_pass(harness)
    box.refresh()
    harness.store.close(box)
    let_time_pass(harness)
    harness.restart()
    assert harness.store.open("INBOX").uidnext == 3
    harness.restart()
    figures = harness.store.status("INBOX", with_size=True)
    assert not harness.store._open.boxes
    assert figures == _looked_at(harness)
    assert figures.recent == 2


def test_a_touched_mailbox_is_looked_at(harness: FileHarness) -> None:
    """What came, or lost its index, while it was out of memory is counted."""
    test_an_untouched_mailbox_is_not_loaded_for_its_figures(harness)
    harness.restart()
    harness.deliver(b"Subject: third\r\n\r\n3\r\n")
    assert harness.store.status("INBOX").messages == 3
    assert harness.store.status("INBOX", with_size=True) == _looked_at(harness)


def test_a_mailbox_is_opened_and_closed_at_once(harness: FileHarness) -> None:
    """Where it is in memory and current; its last user leaves at once where nothing was put off."""
    store = harness.store
    assert store.open_at_once("INBOX") is None
    store.close(store.open("INBOX"))
    let_time_pass(harness)
    store.close(store.open("INBOX"))
    box = store.open_at_once("INBOX")
    assert box is not None and box.is_current()
    assert store.close_at_once(box)
    box = store.open_at_once("INBOX")
    assert box is not None
    box.change_flags(box.uids, flags(SEEN), StoreMode.ADD)
    assert not store.close_at_once(box)
    store.close(box)
    harness.deliver(FIRST)
    assert store.open_at_once("INBOX") is None


def test_nothing_is_answered_at_once_while_a_thread_is_at_work(harness: FileHarness) -> None:
    """The reactor waits for no lock: not the mailbox's, not the account's, not that of state.db."""
    store = harness.store
    let_time_pass(harness)
    store.status("INBOX")
    box = store._open.boxes["INBOX"]
    answers: list[object] = []

    def ask() -> None:
        answers.append(store.status_at_once("INBOX"))
        answers.append(store.open_at_once("INBOX"))

    for lock in (box.lock, store._lock, store._state.lock):
        with lock:
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join(30)
            assert not thread.is_alive()
    assert answers == [None] * 6
