"""A SQLite data base of things that can be computed again: it may vanish at any time, and never fails.

WAL with synchronous=OFF: a crash may cost the content. Damage, or any other error of SQLite's,
deletes the file and starts an empty one; where even that fails, nothing is remembered. A data base
that another process holds locked for long is left alone: the one answer or note is lost.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from mailserver.store.shared_files import share_file

T = TypeVar("T")
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_ERRORS: Final = (sqlite3.Error, UnicodeError)  # the latter from names that are damaged
_PATIENCE: Final = 2.0  # seconds for another process's lock


class DroppableDatabase:
    """See the module. `schema` makes what is not there; another `version` starts empty. Thread-safe.

    It is opened, and made, when it is first used.
    """

    def __init__(
        self, path: str, schema: Sequence[str], version: int, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self._path = path
        self._schema = schema
        self._version = version
        self._warn = warn
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._is_unopened = True

    def _opened(self) -> sqlite3.Connection | None:
        if self._is_unopened:
            self._is_unopened = False
            try:
                self._db = self._open()
            except (*_ERRORS, OSError) as error:
                self._drop(error)
        return self._db

    def _open(self) -> sqlite3.Connection:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                share_file(descriptor, os.path.dirname(self._path))
        finally:
            os.close(descriptor)
        db = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA synchronous=OFF")
            db.execute("PRAGMA journal_mode=WAL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, self._version):
                raise sqlite3.DatabaseError(f"of version {version}")
            for statement in self._schema:
                db.execute(statement)
            if version != self._version:
                db.execute(f"PRAGMA user_version={self._version}")
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
        except (*_ERRORS, OSError) as again:
            self._warn(f"{self._path}: {again}; nothing is remembered")

    def run(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `work` makes of the data base, `otherwise` where it cannot be asked."""
        with self._lock:
            db = self._opened()
            if db is None:
                return otherwise
            try:
                return work(db)
            except _ERRORS as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BUSY:
                    self._drop(error)
                return otherwise

    def write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """`work` is done in one transaction, or not at all."""

        def transaction(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            try:
                work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

        self.run(transaction, None)

    def check(self) -> Sequence[str]:
        """What is wrong with it; it is an empty one now."""

        def verify(db: sqlite3.Connection) -> None:
            try:
                rows = [str(row[0]) for row in db.execute("PRAGMA integrity_check").fetchall()]
                if rows != ["ok"]:
                    raise sqlite3.DatabaseError(rows[0])
            except _ERRORS as error:
                problems.append(str(error))
                raise

        problems: list[str] = []
        self.run(verify, None)
        return problems

    def close(self) -> None:
        """It is closed; nothing is remembered any more."""
        with self._lock:
            self._is_unopened = False
            if self._db is not None:
                self._db.close()
                self._db = None
