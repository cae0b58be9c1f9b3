"""state.db: what must survive about an account's mailboxes and is not in the mail itself.

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
    seal          of a mailbox: a checksum of its figures and its UIDs, by which silent damage is found
    annotation    (mailbox, entry) -> value (RFC 5464); mailbox 0 is the account itself

The highest UIDVALIDITY ever given also stands in the file `uidvalidity` beside it. Where
state.db is lost or damaged, it is moved aside as `state.db.damaged-N`, and the new one gives
higher UIDVALIDITYs and adopts nothing: clients download again, but never see a moved UID.
A local fault (no descriptors, no space, I/O error) is never taken for damage.

Version 1 had no `message.saved`. It is raised to 2 by one transaction at the next open, which adds the
column and touches no row; NULL there means a message older than that. An older release refuses 2.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mailserver.store.contract import Flags, Modseq, StoreFailure, Uid
from mailserver.store.shared_files import group_bits, share_file

SCHEMA_VERSION: Final = 2
EXPUNGES_KEPT: Final = 10_000  # at least, per mailbox
_FEW: Final = 20  # messages that are cheaper one by one
_LARGEST_UIDVALIDITY: Final = 2**32 - 1
_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_ERRORS: Final = (sqlite3.Error, UnicodeError)
_DAMAGED_TEXTS: Final = ("no such ", "malformed ", "table ", "Could not decode")

_SCHEMA: Final = """
CREATE TABLE account (uidvalidity INTEGER NOT NULL, prepared INTEGER NOT NULL, adopts INTEGER NOT NULL);
CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, mailbox_id TEXT NOT NULL,
    uidvalidity INTEGER NOT NULL, uidnext INTEGER NOT NULL, modseq INTEGER NOT NULL,
    recent INTEGER NOT NULL DEFAULT 1, forgotten INTEGER NOT NULL DEFAULT 0, token TEXT NOT NULL DEFAULT '');
CREATE TABLE message (
    mailbox INTEGER NOT NULL, uid INTEGER NOT NULL, key TEXT NOT NULL, place TEXT NOT NULL,
    flags BLOB NOT NULL, modseq INTEGER NOT NULL, date INTEGER NOT NULL, size INTEGER,
    saved INTEGER, PRIMARY KEY (mailbox, uid)) WITHOUT ROWID;
CREATE TABLE keyword (
    mailbox INTEGER NOT NULL, position INTEGER NOT NULL, name BLOB NOT NULL,
    PRIMARY KEY (mailbox, position)) WITHOUT ROWID;
CREATE TABLE expunged (
    mailbox INTEGER NOT NULL, modseq INTEGER NOT NULL, uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)) WITHOUT ROWID;
CREATE TABLE subscription (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE special (name TEXT PRIMARY KEY, special_use BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE retired (name TEXT PRIMARY KEY, uidvalidity INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE renaming (old TEXT PRIMARY KEY, new TEXT NOT NULL) WITHOUT ROWID;
"""

# Younger than the schema; a release without it does not mind.
_FOREIGN: Final = "CREATE TABLE IF NOT EXISTS foreign_mark (mailbox INTEGER PRIMARY KEY, mark TEXT NOT NULL)"
_FIGURES: Final = (
    "CREATE TABLE IF NOT EXISTS figures (mailbox INTEGER PRIMARY KEY, modseq INTEGER NOT NULL,"
    " messages INTEGER NOT NULL, unseen INTEGER NOT NULL, deleted INTEGER NOT NULL, size INTEGER)"
)
_SEAL: Final = "CREATE TABLE IF NOT EXISTS seal (mailbox INTEGER PRIMARY KEY, checksum INTEGER NOT NULL)"
_ANNOTATION: Final = (
    "CREATE TABLE IF NOT EXISTS annotation (mailbox INTEGER NOT NULL, entry TEXT NOT NULL,"
    " value BLOB NOT NULL, PRIMARY KEY (mailbox, entry)) WITHOUT ROWID"
)


@dataclass(frozen=True, slots=True)
class MailboxRow:
    """A row of the table `mailbox`. `forgotten` is the modseq up to which expunges were dropped."""

    id: int
    name: str
    mailbox_id: str
    uidvalidity: int
    uidnext: Uid
    modseq: Modseq
    recent: Uid
    forgotten: Modseq
    token: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted in a mailbox at a modseq; `size` None where it is not known of a message."""

    modseq: Modseq
    messages: int
    unseen: int
    deleted: int
    size: int | None


# uid, key, place, flags as encode_flags gives them, modseq, internal date, size; a plain tuple, since
# they come by the ten thousand.
FlagChange = tuple[Flags, Flags]  # from, to
MessageTuple = tuple[Uid, str, str, bytes, Modseq, int, int | None]


@lru_cache(maxsize=4096)
def encode_flags(flags: Flags) -> bytes:
    """The flags as one octet string."""
    return b" ".join(sorted(flags))


@lru_cache(maxsize=4096)
def decode_flags(text: bytes) -> Flags:
    """The inverse of `encode_flags`."""
    return frozenset(text.split())


def _storable(text: str) -> str | bytes:
    """File names that are not UTF-8 travel as octets: SQLite refuses surrogates."""
    return text if text.isascii() else os.fsencode(text)


def _restored(value: str | bytes) -> str:
    return value if isinstance(value, str) else os.fsdecode(value)


class _Damaged(Exception):
    """The data base can be opened, but is none of ours any more."""


class State:
    """The open state.db of one account. Methods block; those that write need `transaction`."""

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
        """An empty data base is there where there was none: SQLite's other files get its mode."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
        except FileExistsError:
            return
        except OSError as error:
            raise StoreFailure("The state of the account cannot be opened") from error
        try:
            share_file(descriptor, os.path.dirname(self._path))
        finally:
            os.close(descriptor)

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
        if header and header[18:20] not in (b"\1\1", b"\2\2"):
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
        db.execute(_FOREIGN)
        db.execute(_FIGURES)
        db.execute(_SEAL)
        db.execute(_ANNOTATION)
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
            return self.version()
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
        if not 0 < uidvalidity <= _LARGEST_UIDVALIDITY:
            return False
        ((adopts,),) = self._db.execute("SELECT adopts FROM account").fetchall()
        retired = self._db.execute("SELECT uidvalidity FROM retired WHERE name=?", (name,)).fetchone()
        return bool(adopts) and (retired is None or retired[0] < uidvalidity)

    # Mailboxes.

    _COLUMNS: Final = "id, name, mailbox_id, uidvalidity, uidnext, modseq, recent, forgotten, token"

    def mailbox(self, name: str) -> MailboxRow | None:
        """The row of that name."""
        rows = self._read(f"SELECT {self._COLUMNS} FROM mailbox WHERE name=?", (name,))
        return MailboxRow(*rows[0]) if rows else None  # type: ignore[arg-type]

    def mailbox_by_id(self, identity: int) -> MailboxRow | None:
        """The row of that id."""
        rows = self._read(f"SELECT {self._COLUMNS} FROM mailbox WHERE id=?", (identity,))
        return MailboxRow(*rows[0]) if rows else None  # type: ignore[arg-type]

    def create_mailbox(self, name: str, uidvalidity: int, uidnext: int) -> MailboxRow:
        """The row is there, with a new MAILBOXID. In a transaction."""
        identity = "F" + secrets.token_hex(10)
        self._db.execute(
            "INSERT INTO mailbox (name, mailbox_id, uidvalidity, uidnext, modseq) VALUES (?, ?, ?, ?, 1)",
            (name, identity, uidvalidity, uidnext),
        )
        row = self.mailbox(name)
        assert row is not None
        return row

    def update_mailbox(self, identity: int, uidnext: int, modseq: int, token: str | None = None) -> None:
        """The figures are written; the token too, unless None. In a transaction."""
        if token is None:
            self._db.execute("UPDATE mailbox SET uidnext=?, modseq=? WHERE id=?", (uidnext, modseq, identity))
        else:
            self._db.execute(
                "UPDATE mailbox SET uidnext=?, modseq=?, token=? WHERE id=?",
                (uidnext, modseq, token, identity),
            )

    def set_uidvalidity(self, identity: int, uidvalidity: int) -> None:
        """The mailbox has that UIDVALIDITY. In a transaction."""
        self._db.execute("UPDATE mailbox SET uidvalidity=? WHERE id=?", (uidvalidity, identity))

    def set_recent(self, identity: int, recent: int) -> None:
        """Messages below `recent` are no longer \\Recent to anybody. In a transaction."""
        self._db.execute("UPDATE mailbox SET recent=? WHERE id=?", (recent, identity))

    def delete_mailbox(self, name: str) -> None:
        """All that is known of the mailbox is dropped, but for its UIDVALIDITY. In a transaction."""
        row = self.mailbox(name)
        self._db.execute("DELETE FROM special WHERE name=?", (name,))
        if row is None:
            return
        for table in ("message", "keyword", "expunged"):
            self._db.execute(f"DELETE FROM {table} WHERE mailbox=?", (row.id,))
        self._db.execute("DELETE FROM foreign_mark WHERE mailbox=?", (row.id,))
        self._db.execute("DELETE FROM figures WHERE mailbox=?", (row.id,))
        self._db.execute("DELETE FROM seal WHERE mailbox=?", (row.id,))
        self._db.execute("DELETE FROM annotation WHERE mailbox=?", (row.id,))
        self._db.execute("DELETE FROM mailbox WHERE id=?", (row.id,))
        self._db.execute(
            "INSERT INTO retired VALUES (?, ?) ON CONFLICT (name)"
            " DO UPDATE SET uidvalidity=max(uidvalidity, excluded.uidvalidity)",
            (name, row.uidvalidity),
        )

    def figures(self, name: str) -> Figures | None:
        """The figures of the mailbox of that name that were last kept."""
        rows = self._read(
            "SELECT figures.modseq, messages, unseen, deleted, size FROM figures"
            " JOIN mailbox ON mailbox.id=figures.mailbox WHERE name=?",
            (name,),
        )
        return Figures(*rows[0]) if rows else None  # type: ignore[arg-type]

    def set_figures(self, identity: int, figures: Figures) -> None:
        """The figures are kept. In a transaction."""
        values = (figures.modseq, figures.messages, figures.unseen, figures.deleted, figures.size)
        self._db.execute("INSERT OR REPLACE INTO figures VALUES (?, ?, ?, ?, ?, ?)", (identity, *values))

    def count_from(self, identity: int, uid: int) -> int:
        """How many messages of the mailbox have that UID or a higher one."""
        ((count,),) = self._read("SELECT count(*) FROM message WHERE mailbox=? AND uid>=?", (identity, uid))
        return int(count)  # type: ignore[call-overload,no-any-return]

    def retire(self, name: str) -> None:
        """The name gets a UIDVALIDITY above all that were ever given, and adopts none. In a transaction."""
        self._db.execute("INSERT OR REPLACE INTO retired SELECT ?, uidvalidity FROM account", (name,))

    def seal(self, identity: int) -> int | None:
        """The seal that was last set; None where none was."""
        rows = self._read("SELECT checksum FROM seal WHERE mailbox=?", (identity,))
        return rows[0][0] if rows else None  # type: ignore[return-value]

    def set_seal(self, identity: int, checksum: int) -> None:
        """The seal is kept. In a transaction."""
        self._db.execute("INSERT OR REPLACE INTO seal VALUES (?, ?)", (identity, checksum))

    def foreign_mark(self, identity: int) -> str:
        """The mark of what another server left that was last set; "" where none was. Id 0: subscriptions."""
        rows = self._read("SELECT mark FROM foreign_mark WHERE mailbox=?", (identity,))
        return str(rows[0][0]) if rows else ""

    def set_foreign_mark(self, identity: int, mark: str) -> None:
        """The mark is kept. In a transaction."""
        self._db.execute("INSERT OR REPLACE INTO foreign_mark VALUES (?, ?)", (identity, mark))

    def annotations(self, identity: int) -> dict[str, bytes]:
        """Annotations by entry, of a mailbox, or with 0 of the account."""
        rows = self._read("SELECT entry, value FROM annotation WHERE mailbox=?", (identity,))
        return {str(entry): bytes(value) for entry, value in rows}  # type: ignore[call-overload]

    def annotate(self, identity: int, values: Mapping[str, bytes | None]) -> None:
        """The entries have these values; None removes one. In a transaction."""
        for entry, value in values.items():
            if value is None:
                self._db.execute("DELETE FROM annotation WHERE mailbox=? AND entry=?", (identity, entry))
            else:
                self._db.execute(
                    "INSERT OR REPLACE INTO annotation VALUES (?, ?, ?)", (identity, entry, value)
                )

    # Renaming.

    def begin_rename(self, old: str, new: str) -> None:
        """The intent to rename is durable. In a transaction."""
        self._db.execute("INSERT OR REPLACE INTO renaming VALUES (?, ?)", (old, new))

    def renames(self) -> Sequence[tuple[str, str]]:
        """Renames that were begun and not finished."""
        return [(str(old), str(new)) for old, new in self._read("SELECT old, new FROM renaming")]

    def cancel_rename(self, old: str) -> None:
        """The intent is forgotten. In a transaction."""
        self._db.execute("DELETE FROM renaming WHERE old=?", (old,))

    def finish_rename(self, old: str, new: str) -> None:
        """`old` and its children have their new names; nothing of `new` is left over. In a transaction."""
        names = [str(row[0]) for row in self._db.execute("SELECT name FROM mailbox").fetchall()]
        for name in names:
            if name == old or name.startswith(old + "/"):
                renamed = new + name[len(old) :]
                self.delete_mailbox(renamed)
                self._db.execute("UPDATE mailbox SET name=? WHERE name=?", (renamed, name))
        specials = self._db.execute("SELECT name FROM special").fetchall()
        for (name,) in specials:
            if name == old or name.startswith(old + "/"):
                self._db.execute(
                    "UPDATE OR REPLACE special SET name=? WHERE name=?", (new + name[len(old) :], name)
                )
        self._db.execute("DELETE FROM renaming WHERE old=?", (old,))

    # Messages.

    def messages(self, identity: int, above: int = 0) -> Sequence[MessageTuple]:
        """The mailbox's messages with a modseq above `above`, ascending by UID."""
        rows: list[MessageTuple] = self._read(  # type: ignore[assignment]
            "SELECT uid, key, place, flags, modseq, date, size FROM message"
            " WHERE mailbox=? AND modseq>? ORDER BY uid",
            (identity, above),
        )
        if {type(row[1]) for row in rows} | {type(row[2]) for row in rows} <= {str}:
            return rows
        return [(row[0], _restored(row[1]), _restored(row[2]), *row[3:]) for row in rows]

    def add_messages(self, identity: int, rows: Iterable[MessageTuple]) -> None:
        """The rows are added; they are saved now. In a transaction."""
        now = int(self._clock())
        self._db.executemany(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (identity, uid, _storable(key), _storable(place), flags, modseq, date, size, now)
                for uid, key, place, flags, modseq, date, size in rows
            ],
        )

    def save_dates(self, identity: int, first: int, last: int) -> Mapping[Uid, int]:
        """When each message of those UIDs came into the mailbox, or its internal date where that is older."""
        rows = self._read(
            "SELECT uid, coalesce(saved, date) FROM message WHERE mailbox=? AND uid BETWEEN ? AND ?",
            (identity, first, last),
        )
        return dict(rows)  # type: ignore[arg-type]

    def set_flags(self, identity: int, modseq: int, changes: Mapping[FlagChange, Sequence[Uid]]) -> None:
        """The flags are changed, under that modseq. In a transaction.

        Where all messages of a range that have the old flags get the new ones, it is one statement.
        """
        for (old, new), uids in changes.items():
            span = identity, min(uids), max(uids), encode_flags(old)
            if len(uids) > _FEW and self._count_with_flags(*span) == len(uids):
                self._db.execute(
                    "UPDATE message SET flags=?, modseq=?"
                    " WHERE mailbox=? AND uid BETWEEN ? AND ? AND flags=?",
                    (encode_flags(new), modseq, *span),
                )
            else:
                self._db.executemany(
                    "UPDATE message SET flags=?, modseq=? WHERE mailbox=? AND uid=?",
                    [(encode_flags(new), modseq, identity, uid) for uid in uids],
                )

    def _count_with_flags(self, *span: object) -> int:
        query = "SELECT count(*) FROM message WHERE mailbox=? AND uid BETWEEN ? AND ? AND flags=?"
        return int(self._db.execute(query, span).fetchone()[0])

    def set_places(self, identity: int, places: Mapping[Uid, str]) -> None:
        """The places are changed. In a transaction."""
        self._db.executemany(
            "UPDATE message SET place=? WHERE mailbox=? AND uid=?",
            [(_storable(place), identity, uid) for uid, place in places.items()],
        )

    def set_sizes(self, identity: int, sizes: Mapping[Uid, int]) -> None:
        """The sizes are changed. In a transaction."""
        self._db.executemany(
            "UPDATE message SET size=? WHERE mailbox=? AND uid=?",
            [(size, identity, uid) for uid, size in sizes.items()],
        )

    def expunge(self, identity: int, modseq: int, uids: Sequence[Uid]) -> None:
        """The messages are forgotten, and that they were expunged is remembered. In a transaction."""
        self._db.executemany(
            "DELETE FROM message WHERE mailbox=? AND uid=?", [(identity, uid) for uid in uids]
        )
        self._db.executemany(
            "INSERT OR IGNORE INTO expunged VALUES (?, ?, ?)", [(identity, modseq, uid) for uid in uids]
        )
        (kept,) = self._db.execute("SELECT count(*) FROM expunged WHERE mailbox=?", (identity,)).fetchone()
        if kept > 2 * EXPUNGES_KEPT:
            self._forget(identity)

    def _forget(self, identity: int) -> None:
        (modseq,) = self._db.execute(
            "SELECT modseq FROM expunged WHERE mailbox=? ORDER BY modseq DESC, uid DESC LIMIT 1 OFFSET ?",
            (identity, EXPUNGES_KEPT),
        ).fetchone()
        self._db.execute("DELETE FROM expunged WHERE mailbox=? AND modseq<=?", (identity, modseq))
        self._db.execute("UPDATE mailbox SET forgotten=? WHERE id=?", (modseq, identity))

    def expunged(self, identity: int, above: int) -> Sequence[Uid]:
        """UIDs expunged with a modseq above `above`, ascending."""
        rows = self._read(
            "SELECT DISTINCT uid FROM expunged WHERE mailbox=? AND modseq>? ORDER BY uid", (identity, above)
        )
        return [row[0] for row in rows]  # type: ignore[misc]

    def places_of(self, key: str) -> Sequence[tuple[str, Uid]]:
        """Mailbox and UID of each message that has that key."""
        return self._read(  # type: ignore[return-value]
            "SELECT name, uid FROM message JOIN mailbox ON mailbox.id=message.mailbox WHERE key=?",
            (_storable(key),),
        )

    def usage(self) -> tuple[int, int]:
        """Octets and messages of all mailboxes that were ever opened."""
        ((octets, messages),) = self._read("SELECT coalesce(sum(size), 0), count(*) FROM message")
        return int(octets), int(messages)  # type: ignore[call-overload]

    def usage_by_mailbox(self) -> Sequence[tuple[str, int, int]]:
        """The same of each mailbox, with its name."""
        return self._read(  # type: ignore[return-value]
            "SELECT name, coalesce(sum(size), 0), count(*) FROM message"
            " JOIN mailbox ON mailbox.id=message.mailbox GROUP BY name"
        )

    def keywords(self, identity: int) -> list[bytes]:
        """The mailbox's keywords in the order of first use."""
        rows = self._read("SELECT name FROM keyword WHERE mailbox=? ORDER BY position", (identity,))
        return [row[0] for row in rows]  # type: ignore[misc]

    def add_keywords(self, identity: int, first: int, names: Sequence[bytes]) -> None:
        """The keywords are added, the first at position `first`. In a transaction."""
        self._db.executemany(
            "INSERT OR REPLACE INTO keyword VALUES (?, ?, ?)",
            [(identity, position, name) for position, name in enumerate(names, first)],
        )

    # The account.

    def is_prepared(self) -> bool:
        """Whether the account's first login was."""
        return bool(self._read("SELECT prepared FROM account")[0][0])

    def set_prepared(self) -> None:
        """The first login was. In a transaction."""
        self._db.execute("UPDATE account SET prepared=1")

    def subscriptions(self) -> list[str]:
        """Subscribed names, sorted."""
        return sorted(str(row[0]) for row in self._read("SELECT name FROM subscription"))

    def set_subscribed(self, name: str, subscribed: bool) -> None:
        """The subscription is changed. In a transaction."""
        if subscribed:
            self._db.execute("INSERT OR IGNORE INTO subscription VALUES (?)", (name,))
        else:
            self._db.execute("DELETE FROM subscription WHERE name=?", (name,))

    def special_uses(self) -> dict[str, bytes]:
        """Special use by name."""
        return {str(name): bytes(use) for name, use in self._read("SELECT name, special_use FROM special")}  # type: ignore[call-overload]

    def set_special_use(self, name: str, special_use: bytes) -> None:
        """The name has the special use. In a transaction."""
        self._db.execute("INSERT OR REPLACE INTO special VALUES (?, ?)", (name, special_use))


def _is_damage(error: Exception) -> bool:
    """Also a schema that is not ours any more, and text that is none."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code == sqlite3.SQLITE_ERROR:
        return isinstance(error, UnicodeError) or str(error).startswith(_DAMAGED_TEXTS)
    return code & 0xFF in _DAMAGE
