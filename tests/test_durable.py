"""Files that are on stable storage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.durable import replace_file, sync_directory


def test_replacing_keeps_mode_and_inode_changes(tmp_path: Path) -> None:
    """The file is replaced in one step, with its mode, and nothing is left beside it."""
    path = tmp_path / "main.cf"
    path.write_text("a = 1\n")
    path.chmod(0o640)
    before = path.stat()
    replace_file(str(path), "a = 2\n")
    assert path.read_text() == "a = 2\n"
    assert path.stat().st_mode == before.st_mode
    assert path.stat().st_ino != before.st_ino
    assert [entry.name for entry in tmp_path.iterdir()] == ["main.cf"]


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk loses nothing."""
    path = tmp_path / "main.cf"
    path.write_text("a = 1\n")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(str(path), "a = 2\n")
    assert path.read_text() == "a = 1\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["main.cf"]


def test_an_unsynced_directory_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may take a name for durable that is not; "" is the current directory."""
    with pytest.raises(FileNotFoundError):
        sync_directory(str(tmp_path / "absent"))
    monkeypatch.chdir(tmp_path)
    synced: list[os.stat_result] = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor)))
    sync_directory("")
    assert [os.path.samestat(each, tmp_path.stat()) for each in synced] == [True]
