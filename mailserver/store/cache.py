"""cache.db: facts about messages that can be computed again. Droppable at any time (`store.droppable`).

    fact  (mailbox, kind, uid) -> uidvalidity, value with its CRC-32

`mailbox` is the MAILBOXID, so that a restored or damaged state.db, which gives new ones,
finds nothing here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from zlib import crc32

from mailserver.store.contract import Uid
from mailserver.store.droppable import DroppableDatabase

_VERSION: Final = 2
_INTACT: Final = 0x2144DF1C  # what crc32 makes of anything followed by its own CRC-32
_RANGE: Final = 50  # so many UIDs and more are read as one range
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS fact (mailbox TEXT NOT NULL, kind TEXT NOT NULL, uid INTEGER NOT NULL,"
    " uidvalidity INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (mailbox, kind, uid)) WITHOUT ROWID"
)


class Cache:
    """The cache of one account. Never raises; safe from any thread."""

    def __init__(self, directory: str, warn: Callable[[str], None] = lambda text: None) -> None:
        self._database = DroppableDatabase(os.path.join(directory, "cache.db"), [_SCHEMA], _VERSION, warn)

    def get(self, mailbox: str, uidvalidity: int, kind: str, uids: Sequence[Uid]) -> dict[Uid, bytes]:
        """The facts that are remembered, of those UIDs (ascending) and perhaps of some between them."""
        if not uids:
            return {}
        query = _query(mailbox, uidvalidity, kind, uids)
        rows: list[tuple[Uid, bytes]] = []
        rows = self._database.run(lambda db: db.execute(*query).fetchall(), rows)
        return {uid: value[:-4] for uid, value in rows if crc32(value) == _INTACT}

    def put(self, mailbox: str, uidvalidity: int, kind: str, facts: Mapping[Uid, bytes]) -> None:
        """The facts are remembered, probably."""
        rows = [
            (mailbox, kind, uid, uidvalidity, value + crc32(value).to_bytes(4, "little"))
            for uid, value in facts.items()
        ]
        if rows:
            insert = "INSERT OR REPLACE INTO fact VALUES (?, ?, ?, ?, ?)"
            self._database.write(lambda db: db.executemany(insert, rows))

    def forget(self, mailbox: str, uids: Sequence[Uid]) -> None:
        """Nothing is remembered of those messages."""
        nothing: list[str] = []
        kinds = self._database.run(lambda db: _kinds(db, mailbox), nothing)
        rows = [(mailbox, kind, uid) for kind in kinds for uid in uids]
        if rows:
            delete = "DELETE FROM fact WHERE mailbox=? AND kind=? AND uid=?"
            self._database.write(lambda db: db.executemany(delete, rows))

    def check(self) -> Sequence[str]:
        """What was wrong with the data base, which is an empty one now."""
        return self._database.check()

    def close(self) -> None:
        """The data base is closed; nothing is remembered any more."""
        self._database.close()


def _kinds(db: sqlite3.Connection, mailbox: str) -> list[str]:
    """The kinds of facts of the mailbox, each found by one step into the index."""
    query = "SELECT kind FROM fact WHERE mailbox=? AND kind>? ORDER BY kind LIMIT 1"
    kinds: list[str] = []
    while found := db.execute(query, (mailbox, kinds[-1] if kinds else "")).fetchone():
        kinds.append(found[0])
    return kinds


def _query(mailbox: str, uidvalidity: int, kind: str, uids: Sequence[Uid]) -> tuple[str, tuple[object, ...]]:
    if len(uids) < _RANGE:
        marks = ",".join("?" * len(uids))
        where, values = f"uid IN ({marks})", tuple(uids)
    else:
        where, values = "uid BETWEEN ? AND ?", (uids[0], uids[-1])
    return (
        f"SELECT uid, value FROM fact WHERE mailbox=? AND kind=? AND uidvalidity=? AND {where}",
        (mailbox, kind, uidvalidity, *values),
    )
