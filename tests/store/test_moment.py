"""An account as it was at one moment, whatever happens while it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.store.contract import SEEN, NewMessage, StoreMode, Uid
from mailserver.store.moment import Moment
from mailserver.store.registry import FileStoreRegistry
from tests.store.contract_suite import FIRST, SECOND, THIRD
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness


def seen(moment: Moment) -> dict[str, dict[int, bytes | None]]:
    """The mailboxes that hold any, by UID."""
    return {
        box.name: {message.uid: content for message, content in moment.contents(box)}
        for box in moment.mailboxes
        if box.messages
    }


@pytest.fixture(params=[MaildirHarness, MboxHarness])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> FileHarness:
    harness: FileHarness = request.param(tmp_path)
    harness.registry.shut()
    harness._make_registry = lambda: FileStoreRegistry(  # type: ignore[method-assign]
        lambda account: harness.layout, str(harness.state_directory), "host.example", expunge_grace=600
    )
    harness.restart()
    harness.store.open("INBOX").append([NewMessage(each) for each in (FIRST, SECOND, THIRD)])
    request.addfinalizer(lambda: harness.registry.shut())
    return harness


def test_what_happens_afterwards_is_not_seen(harness: FileHarness) -> None:
    """New mail, flags; a message that is moved is in its old mailbox only, and its mailbox may be deleted."""
    inbox, work = harness.store.open("INBOX"), "Work"
    harness.store.create(work)
    moment = Moment(harness.store)
    inbox.append([NewMessage(FIRST.replace(b"Subject: ", b"Subject: new "))])
    inbox.change_flags([Uid(1)], frozenset({SEEN}), StoreMode.ADD)
    inbox.move([Uid(2)], harness.store.open(work))
    assert seen(moment) == {"INBOX": {1: FIRST, 2: SECOND, 3: THIRD}}
    (box,) = [each for each in moment.mailboxes if each.name == "INBOX"]
    assert box.messages[0].flags == frozenset()
    assert seen(Moment(harness.store))["Work"] == {1: SECOND}


def test_what_is_expunged_meanwhile(harness: FileHarness) -> None:
    """It is read where it is buried; an mbox has no such place."""
    moment = Moment(harness.store)
    harness.store.open("INBOX").remove([Uid(1), Uid(3)])
    is_kept = isinstance(harness, MaildirHarness)
    assert seen(moment) == {
        "INBOX": {1: FIRST if is_kept else None, 2: SECOND, 3: THIRD if is_kept else None}
    }


def test_what_others_delivered_before_is_seen(harness: FileHarness) -> None:
    """It has its UID by then."""
    harness.deliver(FIRST.replace(b"Subject: ", b"Subject: other "))  # type: ignore[attr-defined]
    assert list(seen(Moment(harness.store))["INBOX"]) == [1, 2, 3, 4]
