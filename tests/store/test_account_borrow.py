"""Mailboxes borrowed for one piece of work: APPEND, COPY, STATUS of others than the selected one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.store.contract import FLAGGED, NewMessage, StoreMode
from mailserver.store.mailbox import IndexedMailbox
from tests.store.contract_suite import FIRST, flags
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness


class Watched:
    """A watcher that knows what is watched."""

    def __init__(self) -> None:
        self.mailboxes: set[str] = set()

    def watch(self, mailbox: IndexedMailbox) -> None:
        self.mailboxes.add(mailbox.name)

    def unwatch(self, mailbox: IndexedMailbox) -> None:
        self.mailboxes.discard(mailbox.name)


@pytest.mark.parametrize("kind", [MaildirHarness, MboxHarness])
def test_borrowing_watches_nothing_and_loses_nothing(kind: type[FileHarness], tmp_path: Path) -> None:
    """What was appended and flagged is there after the store was shut, as if it had been opened."""
    watcher = Watched()
    harness = kind(tmp_path, watcher=watcher)
    with harness.store.borrow("Sent") as mailbox:
        (uid,) = mailbox.append([NewMessage(FIRST)])
        mailbox.change_flags([uid], flags(FLAGGED), StoreMode.ADD)
        assert not watcher.mailboxes
    harness.registry.shut()
    again = kind(tmp_path)
    with again.store.borrow("Sent") as mailbox:
        assert [message.flags for message in mailbox.messages.values()] == [flags(FLAGGED)]
        assert mailbox.uids == [uid]
    again.registry.shut()


@pytest.mark.parametrize("kind", [MaildirHarness, MboxHarness])
def test_a_session_that_leaves_during_a_loan(kind: type[FileHarness], tmp_path: Path) -> None:
    """The mailbox is watched while the session has it, and no longer when both are gone."""
    watcher = Watched()
    harness = kind(tmp_path, watcher=watcher)
    opened = harness.store.open("Sent")
    with harness.store.borrow("Sent") as borrowed:
        assert borrowed is opened
        harness.store.close(opened)
    assert not watcher.mailboxes
    harness.registry.shut()
