"""cache.db: facts about messages that can be computed again. Droppable at any time.

    fact  (mailbox, kind, uid) -> uidvalidity, value

`mailbox` is the MAILBOXID, so that a restored or damaged state.db, which gives new ones,
finds nothing here. WAL with synchronous=OFF: a crash may cost the cache. Any SQLite error
deletes the file and starts an empty one; where even that fails, nothing is remembered.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mailserver.store.contract import Uid

_VERSION: Final = 1
_RANGE: Final = 50  # so many UIDs and more are read as one range
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS fact (mailbox TEXT NOT NULL, kind TEXT NOT NULL, uid INTEGER NOT NULL,"
    " uidvalidity INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (mailbox, kind, uid)) WITHOUT ROWID"
)


class Cache:
    """The cache of one account. Never raises; safe from any thread."""

    def __init__(self, directory: str, warn: Callable[[str], None] = lambda text: None) -> None:
        self._path = os.path.join(directory, "cache.db")
        self._warn = warn
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        with self._lock:
            try:
                self._db = self._open()
            except (sqlite3.Error, OSError) as error:
                self._drop(error)

    def _open(self) -> sqlite3.Connection:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        db = sqlite3.connect(self._path, timeout=2, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=OFF")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                db.execute("DROP TABLE fact")
            db.execute(_SCHEMA)
            if version != _VERSION:
                db.execute(f"PRAGMA user_version={_VERSION}")
        except BaseException:
            db.close()
            raise
        return db

    def _drop(self, error: Exception) -> None:
        self._warn(f"{self._path}: {error}; starting an empty one")
        if self._db is not None:
            self._db.close()
            self._db = None
        try:
            for suffix in ("", "-wal", "-shm"):
                if os.path.lexists(self._path + suffix):
                    os.unlink(self._path + suffix)
            self._db = self._open()
        except (sqlite3.Error, OSError) as again:
            self._warn(f"{self._path}: {again}; nothing is cached")

    def get(self, mailbox: str, uidvalidity: int, kind: str, uids: Sequence[Uid]) -> dict[Uid, bytes]:
        """The facts that are remembered, of those UIDs (ascending) and perhaps of some between them."""
        with self._lock:
            if self._db is None or not uids:
                return {}
            try:
                return dict(self._db.execute(*_query(mailbox, uidvalidity, kind, uids)).fetchall())
            except sqlite3.Error as error:
                self._drop(error)
                return {}

    def put(self, mailbox: str, uidvalidity: int, kind: str, facts: Mapping[Uid, bytes]) -> None:
        """The facts are remembered, probably."""
        rows = [(mailbox, kind, uid, uidvalidity, value) for uid, value in facts.items()]
        self._write("INSERT OR REPLACE INTO fact VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self, mailbox: str, uids: Sequence[Uid]) -> None:
        """Nothing is remembered of those messages."""
        with self._lock:
            if self._db is None:
                return
            try:
                kinds = self._kinds(mailbox)
            except sqlite3.Error as error:
                self._drop(error)
                return
        rows = [(mailbox, kind, uid) for kind in kinds for uid in uids]
        self._write("DELETE FROM fact WHERE mailbox=? AND kind=? AND uid=?", rows)

    def _kinds(self, mailbox: str) -> list[str]:
        """The kinds of facts of the mailbox, each found by one step into the index."""
        assert self._db is not None
        query = "SELECT kind FROM fact WHERE mailbox=? AND kind>? ORDER BY kind LIMIT 1"
        kinds: list[str] = []
        while found := self._db.execute(query, (mailbox, kinds[-1] if kinds else "")).fetchone():
            kinds.append(found[0])
        return kinds

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock:
            if self._db is None or not rows:
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._drop(error)

    def check(self) -> Sequence[str]:
        """What SQLite found wrong with the data base, which is an empty one now."""
        with self._lock:
            if self._db is None:
                return []
            try:
                rows = [str(row[0]) for row in self._db.execute("PRAGMA integrity_check").fetchall()]
                if rows != ["ok"]:
                    raise sqlite3.DatabaseError(rows[0])
            except sqlite3.Error as error:
                self._drop(error)
                return [str(error)]
        return []

    def close(self) -> None:
        """The data base is closed; nothing is remembered any more."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None


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
