"""Expunged mail of a maildir can be brought back for a while, and nobody sees it meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store.contract import DELETED, NewMessage, Quota, StoreMode, Uid
from mailserver.store.graveyard import Graveyard
from mailserver.store.layout import layout_for
from mailserver.store.registry import FileStoreRegistry
from tests.store.harness import MaildirHarness

DAY = 86_400


class GraceHarness(MaildirHarness):
    """With seven days of grace."""

    def _make_registry(self) -> FileStoreRegistry:
        return FileStoreRegistry(
            lambda account: layout_for(account, self.location),
            str(self.state_directory),
            "host.example",
            self.watcher,
            self.log,
            expunge_grace=7 * DAY,
        )


@pytest.fixture(params=["maildir:~/Maildir", "maildir:~/Maildir:LAYOUT=fs"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GraceHarness]:
    harness = GraceHarness(tmp_path, request.param)
    harness.account.extra["userdb_quota_rule"] = "*:messages=100"  # type: ignore[index]
    harness.restart()
    yield harness
    harness.registry.shut()


def test_expunged_mail_is_kept_out_of_sight(harness: GraceHarness) -> None:
    """IMAP does not list it, quota does not count it, and its content is whole."""
    store = harness.store
    inbox = store.open("INBOX")
    folders = [folder.name for folder in store.folders()]
    inbox.append([NewMessage(b"Subject: %d\r\n\r\nx\r\n" % number) for number in range(3)])
    inbox.change_flags([Uid(1), Uid(3)], frozenset({DELETED}), StoreMode.ADD)
    inbox.expunge()
    assert [folder.name for folder in store.folders()] == folders
    assert store.quota() == Quota(17, 1, 0, 100)
    buried = store.buried()
    assert sorted((each.folder, Path(each.path).read_bytes()) for each in buried) == [
        ("INBOX", b"Subject: 0\n\nx\n"),
        ("INBOX", b"Subject: 2\n\nx\n"),
    ]
    harness.restart()
    assert list(harness.store.open("INBOX").uids) == [2]


def test_a_moved_message_is_not_kept_twice(harness: GraceHarness) -> None:
    """It is where it was moved to."""
    inbox, trash = harness.store.open("INBOX"), harness.store.open("Trash")
    inbox.append([NewMessage(b"Subject: s\r\n\r\nx\r\n")])
    inbox.move([Uid(1)], trash)
    assert harness.store.buried() == []


def test_mail_of_a_deleted_folder_is_kept(harness: GraceHarness) -> None:
    """DELETE is the mistake that hurts most."""
    harness.store.create("Work/2024")
    work = harness.store.open("Work/2024")
    work.append([NewMessage(b"Subject: s\r\n\r\nx\r\n")])
    harness.store.delete("Work/2024")
    assert [each.folder for each in harness.store.buried()] == ["Work/2024"]


def test_it_is_cleaned_by_age(harness: GraceHarness) -> None:
    """When the store is closed, what is older than the grace is gone for good."""
    inbox = harness.store.open("INBOX")
    inbox.append([NewMessage(b"Subject: %d\r\n\r\nx\r\n" % number) for number in range(2)])
    inbox.remove([Uid(1), Uid(2)])
    first, second = harness.store.buried()
    aged = first.path.replace(str(first.expunged_at), str(first.expunged_at - 8 * DAY))
    os.rename(first.path, aged)
    harness.restart()
    assert [each.path for each in harness.store.buried()] == [second.path]


def test_where_it_cannot_be_kept_it_is_removed(
    harness: GraceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not hinder an expunge."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Graveyard, "_make", full)
    inbox = harness.store.open("INBOX")
    inbox.append([NewMessage(b"Subject: s\r\n\r\nx\r\n")])
    inbox.remove([Uid(1)])
    assert harness.files() == [] and harness.store.buried() == []


def test_a_message_that_another_program_removed_is_no_error(harness: GraceHarness) -> None:
    """It is gone, and nothing was buried."""
    inbox = harness.store.open("INBOX")
    inbox.append([NewMessage(b"Subject: %d\r\n\r\nx\r\n" % number) for number in range(2)])
    harness.vanish(Uid(1))
    inbox.remove([Uid(1), Uid(2)])
    assert len(harness.store.buried()) == 1
    shutil.rmtree(Path(harness.store.buried()[0].path).parent.parent)
    assert harness.store.buried() == []
