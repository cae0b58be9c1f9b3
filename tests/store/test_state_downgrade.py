"""The way back to the first schema, and forth again. RELIABILITY F59."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mailserver.store.contract import Modseq, StoreFailure, Uid
from mailserver.store.state import State
from mailserver.store.state_database import SCHEMA_VERSION
from mailserver.store.state_downgrade import downgrade

# What the first release did with a message: by position, so that a column more was an error.
FIRST_INSERT = "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
FIRST_COLUMNS = ["mailbox", "uid", "key", "place", "flags", "modseq", "date", "size"]


def filled(directory: Path) -> int:
    """INBOX with the UIDs 1 and 2; its row."""
    with closing(State(str(directory))) as state, state.transaction():
        row = state.create_mailbox("INBOX", 100, 3)
        state.add_messages(row.id, [(Uid(uid), f"k{uid}", "", b"", Modseq(2), 77, 5) for uid in (1, 2)])
    return row.id


def test_an_older_release_goes_on_and_hands_back(tmp_path: Path) -> None:
    """F59: UIDs stay, what the older one adds is there afterwards, and is not taken for damage."""
    row = filled(tmp_path)
    assert downgrade(str(tmp_path))
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
        assert [column[1] for column in old.execute("PRAGMA table_info(message)")] == FIRST_COLUMNS
        old.execute(FIRST_INSERT, (row, 3, "k3", "", b"", 3, 77, 5))
        old.execute("UPDATE mailbox SET uidnext=4, modseq=3")
    warnings: list[str] = []
    with closing(State(str(tmp_path), warnings.append)) as again:
        mailbox = again.mailbox("INBOX")
        assert mailbox is not None and (mailbox.uidvalidity, mailbox.uidnext) == (100, 4)
        assert [uid for uid, *_ in again.messages(row)] == [1, 2, 3]
    assert warnings == []


def test_it_can_be_repeated_and_needs_no_state(tmp_path: Path) -> None:
    """A second time changes nothing; an account that never logged in has nothing to lower."""
    assert not downgrade(str(tmp_path))
    filled(tmp_path)
    assert downgrade(str(tmp_path)) and downgrade(str(tmp_path))


def test_what_a_newer_release_wrote_is_left_alone(tmp_path: Path) -> None:
    """It is refused, here as when it is opened, and no octet of it changes."""
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as db:
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        before = list(db.iterdump())
        with pytest.raises(StoreFailure, match="does not know"):
            downgrade(str(tmp_path))
        with pytest.raises(StoreFailure, match="newer release"):
            State(str(tmp_path))
        assert list(db.iterdump()) == before
