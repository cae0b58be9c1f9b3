"""SCRAM verifiers and app passwords, in a data base that only whoever checks passwords may read.

SQLite, `state_directory/auth/logins.db`, mode 0600 in a directory of mode 0700. A verifier belongs to a
stored password and counts for that one only. Losing the file loses the app passwords and no account:
verifiers come again at the next login with a password. A directory of somebody else's is not used:
who can write there could log in as anybody.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from mailserver.accounts.account import TemporaryAccountFailure

_PATIENCE: Final = 10.0  # seconds for another process's transaction
_SECRET_OCTETS: Final = 32
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS verifier (
    name TEXT PRIMARY KEY, password BLOB NOT NULL, verifier TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), secret BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS app_password (
    name TEXT NOT NULL, device TEXT NOT NULL, uid INTEGER NOT NULL, digest BLOB NOT NULL,
    protocols TEXT NOT NULL, verifier TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL,
    used INTEGER NOT NULL, address TEXT NOT NULL, PRIMARY KEY (name, device)) WITHOUT ROWID;
"""


class LoginDatabase:
    """The data base at `path`, opened and made when it is first needed. Safe in threads; *blocking*.

    `owner` is the uid and gid that a new one gets, where root makes it for somebody else. Every method
    raises TemporaryAccountFailure where the file cannot be used.
    """

    def __init__(self, path: str, owner: tuple[int, int] | None = None) -> None:
        self._path = path
        self._owner = owner
        self._guard = threading.Lock()
        self._secret = b""
        self._connection: sqlite3.Connection | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a data base yet; looking for something need not make one."""
        return self._connection is not None or os.path.exists(self._path)

    def secret(self) -> bytes:
        """This server's own secret: always the same octets, random ones."""
        if not self._secret:
            with self.transaction() as connection:
                draft = secrets.token_bytes(_SECRET_OCTETS)
                connection.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", (draft,))
                self._secret = bytes(connection.execute("SELECT secret FROM secret").fetchone()[0])
        return self._secret

    def verifier(self, name: str, password: bytes) -> str | None:
        """The verifier of the account, made when its stored password had this digest."""
        with self.transaction() as connection:
            query = "SELECT verifier FROM verifier WHERE name = ? AND password = ?"
            row = connection.execute(query, (name, password)).fetchone()
        return None if row is None else str(row[0])

    def keep_verifier(self, name: str, password: bytes, verifier: str) -> None:
        """The account's verifier is this one, durably; an older one is gone."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO verifier VALUES (?, ?, ?)", (name, password, verifier))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection; what is done with it is kept as a whole, durably, or where it raises not at all."""
        with self._guard:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                with self._connection:
                    yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise TemporaryAccountFailure(f"{self._path}: {error}") from error

    def prepare(self) -> None:
        """The directory is there, its owner's alone. Raises OSError."""
        directory = os.path.dirname(self._path)
        parent = os.path.dirname(directory)
        _make_owned(parent, self._owner, lambda: os.makedirs(parent, 0o755))
        _make_owned(directory, self._owner, lambda: os.mkdir(directory, 0o700))
        self._check_owner(directory)

    def _connect(self) -> sqlite3.Connection:
        self.prepare()
        _make_owned(self._path, self._owner, self._make_empty)
        connection = sqlite3.connect(self._path, timeout=_PATIENCE, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_owner(self, directory: str) -> None:
        expected = os.geteuid() if self._owner is None else self._owner[0]
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != expected or found.st_mode & 0o077:
            raise OSError(f"{directory} must be a directory of uid {expected}, mode 0700: chown -R, chmod it")

    def _make_empty(self) -> None:
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def close(self) -> None:
        """The file is closed; the next use opens it again."""
        with self._guard:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _make_owned(path: str, owner: tuple[int, int] | None, make: Callable[[], Any]) -> None:
    with contextlib.suppress(FileExistsError):
        make()
        if owner is not None:
            os.chown(path, *owner, follow_symlinks=False)
