"""The file state.db: its tables and transactions, and what becomes of a damaged one. See `state`.

One SQLite database per account, in the account's state directory: UIDVALIDITY, UIDs, flags,
modseqs, keywords, expunges, subscriptions. WAL with synchronous=FULL: a commit is durable.
Every transaction is `BEGIN IMMEDIATE` under the in-process lock: one that reads first and
then writes would meet `database is locked` by the thousand.

    account       one row: uidvalidity (highest ever given), prepared (first login done)
    mailbox       one row per mailbox: uidvalidity, uidnext, modseq, recent mark, format's token
    message       (mailbox, uid) -> key, place, flags, modseq, internal date, size, saved
    keyword       keywords of a mailbox in the order of first use
    expunged      (mailbox, modseq, uid), the last EXPUNGES_KEPT or so; `forgotten` of the
                  mailbox is the modseq up to which they were dropped
    subscription  subscribed names
    special       special use of a name (RFC 6154)
    retired       highest UIDVALIDITY of a name that was deleted: what lies there may not be
                  adopted with a lower one
    renaming      a rename that is under way; finished at the next open after a crash
    foreign       what another server's own UIDs looked like when we last knew them all
    figures       of a mailbox at a modseq: messages, unseen, deleted, octets (see `store.status`)
    summary       more of the same, and a checksum over both (see `store.sleep`)
    seal          of a mailbox: a checksum of its figures and its UIDs, by which silent damage is found
    annotation    (mailbox, entry) -> value (RFC 5464); mailbox 0 is the account itself
    reader, own_seen
                  what single users have seen of mailboxes that they share (see `state_readers`)
    url_key       what proves the URLs that the account authorised (see `state_url_keys`)

The highest UIDVALIDITY ever given also stands in the file `uidvalidity` beside it. Where
state.db is lost or damaged, it is moved aside as `state.db.damaged-N`, and the new one gives
higher UIDVALIDITYs and adopts nothing: clients download again, but never see a moved UID.
A local fault (no descriptors, no space, I/O error) is never taken for damage.

Version 1 had no `message.saved`. It is raised to 2 by one transaction at the next open, which adds the
column and touches no row; NULL there means a message older than that. An older release refuses 2.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Final

from mailserver.store.contract import StoreFailure
from mailserver.store.shared_files import group_bits, share_file

SCHEMA_VERSION: Final = 2
_LARGEST_UIDVALIDITY: Final = 2**32 - 1
_LARGEST_ADOPTED: Final = 2**32 - 2**20  # so that there are higher ones left
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_ERRORS: Final = (sqlite3.Error, UnicodeError)
_DAMAGED_TEXTS: Final = ("no such ", "malformed ", "table ", "Could not decode")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS account (
    uidvalidity INTEGER NOT NULL, prepared INTEGER NOT NULL, adopts INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS mailbox (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, mailbox_id TEXT NOT NULL,
    uidvalidity INTEGER NOT NULL, uidnext INTEGER NOT NULL, modseq INTEGER NOT NULL,
    recent INTEGER NOT NULL DEFAULT 1, forgotten INTEGER NOT NULL DEFAULT 0, token TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS message (
    mailbox INTEGER NOT NULL, uid INTEGER NOT NULL, key TEXT NOT NULL, place TEXT NOT NULL,
    flags BLOB NOT NULL, modseq INTEGER NOT NULL, date INTEGER NOT NULL, size INTEGER,
    saved INTEGER, PRIMARY KEY (mailbox, uid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keyword (
    mailbox INTEGER NOT NULL, position INTEGER NOT NULL, name BLOB NOT NULL,
    PRIMARY KEY (mailbox, position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS expunged (
    mailbox INTEGER NOT NULL, modseq INTEGER NOT NULL, uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subscription (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS special (name TEXT PRIMARY KEY, special_use BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retired (name TEXT PRIMARY KEY, uidvalidity INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS renaming (old TEXT PRIMARY KEY, new TEXT NOT NULL) WITHOUT ROWID;
"""

# Younger than the schema; a release without it does not mind.
_FOREIGN: Final = "CREATE TABLE IF NOT EXISTS foreign_mark (mailbox INTEGER PRIMARY KEY, mark TEXT NOT NULL)"
_FIGURES: Final = (
    "CREATE TABLE IF NOT EXISTS figures (mailbox INTEGER PRIMARY KEY, modseq INTEGER NOT NULL,"
    " messages INTEGER NOT NULL, unseen INTEGER NOT NULL, deleted INTEGER NOT NULL, size INTEGER)"
)
_SUMMARY: Final = (
    "CREATE TABLE IF NOT EXISTS summary (mailbox INTEGER PRIMARY KEY, uid_sum INTEGER NOT NULL,"
    " first_unseen INTEGER NOT NULL, checksum INTEGER NOT NULL)"
)
_SEAL: Final = "CREATE TABLE IF NOT EXISTS seal (mailbox INTEGER PRIMARY KEY, checksum INTEGER NOT NULL)"
_ANNOTATION: Final = (
    "CREATE TABLE IF NOT EXISTS annotation (mailbox INTEGER NOT NULL, entry TEXT NOT NULL,"
    " value BLOB NOT NULL, PRIMARY KEY (mailbox, entry)) WITHOUT ROWID"
)
_READER: Final = (
    "CREATE TABLE IF NOT EXISTS reader (id INTEGER PRIMARY KEY, mailbox_id TEXT NOT NULL,"
    " name TEXT NOT NULL, UNIQUE (mailbox_id, name))"
)
_OWN_SEEN: Final = (
    "CREATE TABLE IF NOT EXISTS own_seen (reader INTEGER NOT NULL, uid INTEGER NOT NULL,"
    " seen INTEGER NOT NULL, modseq INTEGER NOT NULL, PRIMARY KEY (reader, uid)) WITHOUT ROWID"
)
_URL_KEY: Final = (
    "CREATE TABLE IF NOT EXISTS url_key (name TEXT PRIMARY KEY, uidvalidity INTEGER NOT NULL,"
    " key BLOB NOT NULL) WITHOUT ROWID"
)


_YOUNGER: Final = (_FOREIGN, _FIGURES, _SUMMARY, _SEAL, _ANNOTATION, _READER, _OWN_SEEN, _URL_KEY)
_FORMAT_VERSIONS: Final = slice(18, 20)  # of a file's header; https://sqlite.org/fileformat2.html §1.3
_IN_WAL_MODE: Final = b"\2\2"


class _Damaged(Exception):
    """The data base can be opened, but is none of ours any more."""


class StateDatabase:
    """The open state.db of one account, as a data base. Methods block."""

    def __init__(
        self,
        directory: str,
        warn: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = os.path.join(directory, "state.db")
        self._mark_path = os.path.join(directory, "uidvalidity")
        self._warn = warn
        self._clock = clock
        self.is_damaged = False  # once it is, it stays so: nothing can be written
        self.lock = threading.RLock()
        try:
            self._db = self._open()
        except _Damaged as damage:
            self._move_aside(str(damage))
            self._db = self._open()

    # Opening.

    def _open(self) -> sqlite3.Connection:
        self._inspect()
        self._create_file()
        try:
            db = sqlite3.connect(self._path, timeout=20, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StoreFailure("The state of the account cannot be opened") from error
        try:
            self._prepare(db)
        except _ERRORS as error:
            db.close()
            if _is_damage(error) or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
                raise _Damaged(str(error)) from error
            self._warn(f"{self._path}: {error}")
            raise StoreFailure("The state of the account cannot be read") from error
        except BaseException:
            db.close()
            raise
        return db

    def _create_file(self) -> None:
        """A data base without rows is there where there was none, all of it at once and durable.

        SQLite would take a dozen commits. Its other files get this one's mode.
        """
        if os.path.lexists(self._path):
            return
        temporary = f"{self._path}.{secrets.token_hex(4)}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o600)
            try:
                share_file(descriptor, os.path.dirname(self._path))
                with open(descriptor, "wb", closefd=False) as file:  # a full disk raises, os.write may not
                    file.write(_empty_data_base())
                os.fsync(descriptor)
                with contextlib.suppress(FileExistsError):  # another process was faster
                    os.link(temporary, self._path)
            finally:
                os.close(descriptor)
                os.unlink(temporary)
        except OSError as error:
            raise StoreFailure("The state of the account cannot be opened") from error

    def _inspect(self) -> None:
        """Raises _Damaged where the file is cut short, unreadable, or no file of ours."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            is_closed = isinstance(error, PermissionError) and not group_bits(os.path.dirname(self._path))
            if os.path.islink(self._path) or is_closed:
                raise _Damaged(str(error)) from error
            raise StoreFailure("The state of the account cannot be opened") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _Damaged("not a regular file")
            header = os.pread(descriptor, 100, 0)
        except OSError as error:
            raise StoreFailure("The state of the account cannot be read") from error
        finally:
            os.close(descriptor)
        if header and header[_FORMAT_VERSIONS] not in (b"\1\1", _IN_WAL_MODE):
            raise _Damaged("of another file format")
        page_size = int.from_bytes(header[16:18], "big") or 1
        pages = int.from_bytes(header[28:32], "big")
        if status.st_size < pages * (65536 if page_size == 1 else page_size):
            raise _Damaged("cut short")

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA cell_size_check=ON")
        if not group_bits(os.path.dirname(self._path)):
            os.chmod(self._path, 0o600)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreFailure("The state of the account was written by a newer release")
        if version == 0:
            self._create(db)
        elif version < SCHEMA_VERSION:
            self._upgrade(db)
        for statement in _YOUNGER:
            db.execute(statement)
        (rows,) = db.execute("SELECT count(*) FROM account").fetchone()
        if rows != 1:
            raise _Damaged("no account row")

    def _create(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:  # still, under the lock
                mark = self._read_mark()
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
                db.execute("INSERT INTO account VALUES (?, 0, ?)", (mark, mark == 0))
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _upgrade(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version < SCHEMA_VERSION:  # still, under the lock
                db.execute("ALTER TABLE message ADD COLUMN saved INTEGER")
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _move_aside(self, reason: str) -> None:
        aside = f"{self._path}.damaged-{int(self._clock())}-{secrets.token_hex(2)}"
        self._warn(f"{self._path}: {reason}; moved to {aside}, mailboxes get a higher UIDVALIDITY")
        try:
            if not os.path.exists(self._mark_path):  # even so nothing may be adopted
                self._write_mark(int(self._clock()))
            os.rename(self._path, aside)
            for suffix in ("-wal", "-shm"):
                if os.path.lexists(self._path + suffix):
                    os.rename(self._path + suffix, aside + suffix)
        except OSError as error:
            raise StoreFailure("The damaged state of the account cannot be moved aside") from error

    def close(self) -> None:
        """The data base is closed; its WAL is folded in."""
        with self.lock:
            self._db.close()

    # Transactions.

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is durable afterwards, or not done at all."""
        with self.lock, self._faults():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except _ERRORS as error:
            self._warn(f"{self._path}: {error}")
            if _is_damage(error):
                self.is_damaged = True
                self._db.close()
                self._move_aside(str(error))
            raise StoreFailure("The state of the account cannot be read or written") from error

    def _read(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with self.lock, self._faults():
            return self._db.execute(query, parameters).fetchall()

    def damage(self) -> Sequence[str]:
        """What SQLite finds wrong with the data base; nothing where it is sound."""
        rows = [str(row[0]) for row in self._read("PRAGMA integrity_check")]
        return [] if rows == ["ok"] else rows

    def snapshot(self) -> bytes:
        """The data base as it is at this moment, as a file's content."""
        with self.lock, self._faults():
            copy = sqlite3.connect(":memory:")
            try:
                self._db.backup(copy)
                return copy.serialize()
            finally:
                copy.close()

    def version(self) -> int:
        """A number that changes when another process committed something."""
        with self.lock, self._faults():
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            return int(version)

    def version_at_once(self) -> int | None:
        """As `version`, without waiting: None while another thread is at work here."""
        if not self.lock.acquire(blocking=False):
            return None
        try:
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])
        except _ERRORS:
            return None  # `version` will tell what it is
        finally:
            self.lock.release()

    # UIDVALIDITY.

    def _read_mark(self) -> int:
        try:
            with open(self._mark_path, encoding="ascii") as file:
                return min(int(file.read(20)), _LARGEST_UIDVALIDITY - 1)
        except FileNotFoundError:
            return 0
        except (ValueError, UnicodeError):
            return int(self._clock())

    def _write_mark(self, uidvalidity: int) -> None:
        temporary = f"{self._mark_path}.{os.getpid()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            share_file(descriptor, os.path.dirname(temporary))
            os.write(descriptor, b"%d\n" % uidvalidity)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, self._mark_path)

    def next_uidvalidity(self, at_least: int = 0) -> int:
        """A UIDVALIDITY above all given before, or `at_least` where that is adopted. In a transaction."""
        ((mark,),) = self._db.execute("SELECT uidvalidity FROM account").fetchall()
        mark = max(mark, self._read_mark())
        given = at_least or max(int(self._clock()), mark + 1)
        if given > mark:
            self._db.execute("UPDATE account SET uidvalidity=?", (given,))
            try:
                self._write_mark(given)
            except OSError as error:
                raise StoreFailure("The highest UIDVALIDITY cannot be written") from error
        return given

    def may_adopt(self, name: str, uidvalidity: int) -> bool:
        """Whether UIDs of that UIDVALIDITY, left by another server, may be taken over. In a transaction."""
        if not 0 < uidvalidity <= _LARGEST_ADOPTED:
            return False
        ((adopts,),) = self._db.execute("SELECT adopts FROM account").fetchall()
        retired = self._db.execute("SELECT uidvalidity FROM retired WHERE name=?", (name,)).fetchone()
        return bool(adopts) and (retired is None or retired[0] < uidvalidity)


@cache
def _empty_data_base() -> bytes:
    """A file's content: all tables, in WAL mode, of version 0: the account row comes when it is opened."""
    memory = sqlite3.connect(":memory:")
    try:
        for statement in (*_SCHEMA.split(";\n"), *_YOUNGER):
            memory.execute(statement)
        content = bytearray(memory.serialize())
    finally:
        memory.close()
    content[_FORMAT_VERSIONS] = _IN_WAL_MODE
    return bytes(content)


def _is_damage(error: Exception) -> bool:
    """Also a schema that is not ours any more, and text that is none."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code == sqlite3.SQLITE_ERROR:
        return isinstance(error, UnicodeError) or str(error).startswith(_DAMAGED_TEXTS)
    return code & 0xFF in _DAMAGE
