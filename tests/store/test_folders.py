"""Folders on disk: three layouts, crashes half way, other programs' files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store import folders as folders_module
from mailserver.store.contract import StoreFailure
from mailserver.store.folders import MaildirDirectories, MaildirPlusPlus, MboxFolders
from tests.store.contract_suite import FIRST, append, contents
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness


@pytest.fixture
def maildirs(tmp_path: Path) -> MaildirPlusPlus:
    return MaildirPlusPlus(str(tmp_path / "Maildir"))


@pytest.fixture
def mboxes(tmp_path: Path) -> MboxFolders:
    return MboxFolders(str(tmp_path / "mail"), "mBoX-MeSsAgEs")


def test_maildir_plus_plus_as_dovecot_has_it(maildirs: MaildirPlusPlus, tmp_path: Path) -> None:
    """`.Work.2024` with a file maildirfolder; the parent is a level only."""
    maildirs.create("Work/2024")
    folder = tmp_path / "Maildir" / ".Work.2024"
    assert sorted(path.name for path in folder.iterdir()) == ["cur", "maildirfolder", "new", "tmp"]
    assert dict(maildirs.names()) == {"Work": False, "Work/2024": True}


def test_links_are_no_folders(maildirs: MaildirPlusPlus, mboxes: MboxFolders, tmp_path: Path) -> None:
    """Nobody reads another's mail through a symbolic link. RELIABILITY B7."""
    maildirs.create("Real")
    (tmp_path / "Maildir" / ".Link").symlink_to("/etc")
    mboxes.create("Real")
    (tmp_path / "mail" / "Link").symlink_to("/etc/passwd")
    (tmp_path / "mail" / "Directory").symlink_to("/etc")
    assert set(maildirs.names()) == set(mboxes.names()) == {"Real"}
    assert not maildirs.exists("Link") and not mboxes.exists("Link")


def test_mbox_and_its_first_child(mboxes: MboxFolders, tmp_path: Path) -> None:
    """The file becomes a directory that holds it, under Dovecot's name for that."""
    mboxes.create("Work")
    (tmp_path / "mail" / "Work").write_bytes(b"precious")
    mboxes.create("Work/2024")
    assert (tmp_path / "mail" / "Work" / "mBoX-MeSsAgEs").read_bytes() == b"precious"
    assert (tmp_path / "mail" / "Work" / "2024").is_file()
    assert dict(mboxes.names()) == {"Work": True, "Work/2024": True}


def test_an_interrupted_nesting_is_finished(mboxes: MboxFolders, tmp_path: Path) -> None:
    """A crash between the two renames: the next listing shows the mailbox again."""
    mail = tmp_path / "mail"
    mboxes.create("Parent/Other")
    (mail / "Parent" / ".Work.nesting").mkdir()
    (mail / "Parent" / ".Work.nesting" / "mBoX-MeSsAgEs").write_bytes(b"precious")
    (mail / ".Empty.nesting").mkdir()
    assert "Parent/Work" in mboxes.names()
    assert Path(mboxes.path("Parent/Work")).read_bytes() == b"precious"
    assert not (mail / ".Empty.nesting").exists()


def test_lock_and_hidden_files_are_no_mailboxes(mboxes: MboxFolders, tmp_path: Path) -> None:
    """Dotlocks, .imap and .subscriptions lie among the mailboxes."""
    mboxes.create("Work")
    for name in ("Work.lock", ".subscriptions", ".hidden"):
        (tmp_path / "mail" / name).write_bytes(b"")
    (tmp_path / "mail" / ".imap").mkdir()
    assert set(mboxes.names()) == {"Work"}


def test_deleting_an_mbox_with_children(mboxes: MboxFolders) -> None:
    """The messages go, the level stays; the last child takes it along only when it is deleted itself."""
    mboxes.create("Work")
    mboxes.create("Work/2024")
    mboxes.delete("Work")
    assert dict(mboxes.names()) == {"Work": False, "Work/2024": True}
    mboxes.create("Work")
    assert mboxes.names()["Work"]


def test_maildir_directories(tmp_path: Path) -> None:
    """LAYOUT=fs: maildirs within maildirs; deleting the outer one leaves the inner."""
    folders = MaildirDirectories(str(tmp_path))
    folders.create("Work")
    folders.create("Work/2024")
    assert dict(folders.names()) == {"Work": True, "Work/2024": True}
    folders.delete("Work")
    assert dict(folders.names()) == {"Work": False, "Work/2024": True}
    folders.rename("Work", "Job")
    assert dict(folders.names()) == {"Job": False, "Job/2024": True}
    folders.delete("Job/2024")
    folders.delete("Job")
    assert "Job/2024" not in folders.names()


def test_an_interrupted_removal_is_swept_up(
    maildirs: MaildirPlusPlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash within the removal: the folder is gone for every reader; the rest goes with the next one."""
    maildirs.create("One")
    maildirs.create("Two")
    with monkeypatch.context() as patch:
        patch.setattr(folders_module.shutil, "rmtree", lambda path: None)
        maildirs.delete("One")
    assert set(maildirs.names()) == {"Two"}
    assert [name for name in os.listdir(tmp_path / "Maildir") if "removed" in name]
    maildirs.delete("Two")
    assert os.listdir(tmp_path / "Maildir") == []


def test_without_a_root_there_are_no_folders(maildirs: MaildirPlusPlus, mboxes: MboxFolders) -> None:
    """Nothing was ever stored."""
    assert dict(maildirs.names()) == dict(mboxes.names()) == {}
    maildirs.delete("Work")
    mboxes.delete("Work")


@pytest.fixture(params=[MaildirHarness, MboxHarness])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileHarness]:
    harness: FileHarness = request.param(tmp_path)
    yield harness
    harness.registry.shut()


def test_a_failed_rename_is_undone(harness: FileHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space for the new name: the mailbox has its old one, now and after a restart."""
    harness.store.create("Work")
    append(harness.store.open("Work"), FIRST)
    rename = os.rename

    def full(source: str, target: str) -> None:
        if "Work" in str(source):
            raise OSError(28, "No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(StoreFailure):
            harness.store.rename("Work", "Job")
    store = harness.restart()
    assert contents(store.open("Work")) == {1: FIRST}
    assert "Job" not in [folder.name for folder in store.folders()]


def test_a_folder_that_another_program_made(harness: FileHarness) -> None:
    """It is listed and can be opened; one that it removed is gone."""
    store = harness.store
    path = store._folders.path("Made")  # type: ignore[attr-defined]
    store._folders.create("Made")  # type: ignore[attr-defined]
    assert contents(store.open("Made")) == {}
    os.rename(path, path + "-gone") if "home/mail" in path else os.rename(path, path + "X")
    assert "Made" not in [folder.name for folder in store.folders()]
