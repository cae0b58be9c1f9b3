"""text.db: the decoded text of messages, folded, and where its trigrams occur. Droppable at any time.

    text   id, mailbox, uidvalidity, uid, partial, content   content: deflated `header NUL body`
    gram   an FTS5 table of trigrams over the same ids, without content and without accents

A needle of three characters and more, its accents not counted, asks for the messages that have all of its
trigrams, and each answer is verified against the text. Shorter ones, with which trigrams cannot help (two
Chinese characters are a word), are looked for in all stored text. Of a very long message only the start is
here: it is `partial`, and undecided where the start does not hold the needle.

Rows of `gram` outlive their messages until there are as many dead ones as living: then all is dropped.
Until then no id is used twice. `mailbox` is the MAILBOXID (see `store.cache`). Nothing is opened, or made,
before the first search.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from mailserver.message.text import without_accents
from mailserver.store.contract import Uid
from mailserver.store.droppable import DroppableDatabase

_VERSION: Final = 3
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS text (id INTEGER PRIMARY KEY AUTOINCREMENT, mailbox TEXT NOT NULL,"
    " uidvalidity INTEGER NOT NULL, uid INTEGER NOT NULL, partial INTEGER NOT NULL, content BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS place ON text (mailbox, uidvalidity, uid, partial)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS gram USING fts5(header, body, content='', detail=column,"
    " tokenize='trigram case_sensitive 1')",
)
LONGEST_TEXT: Final = 1 << 20  # characters of one message
_TRIGRAM: Final = 3
_MOST_GRAMS: Final = 24  # of a long needle: the rest is verified
_FEWEST_DEAD: Final = 10_000


class Text(NamedTuple):
    """A message's decoded, folded text."""

    uid: Uid
    header: str
    body: str


class Hits(NamedTuple):
    """`found` hold the needle; of all in `decided` it is known whether they do."""

    found: set[Uid]
    decided: set[Uid]


class TextIndex:
    """The text index of one account. Never raises; safe from any thread."""

    def __init__(self, directory: str, warn: Callable[[str], None] = lambda text: None) -> None:
        self._path = os.path.join(directory, "text.db")
        self._warn = warn
        self._lock = threading.Lock()
        self._opened: DroppableDatabase | None = None
        self._is_closed = False
        self.is_used = os.path.exists(self._path)  # somebody has searched

    def _database(self) -> DroppableDatabase | None:
        with self._lock:
            if self._opened is None and not self._is_closed:
                self._opened = DroppableDatabase(self._path, _SCHEMA, _VERSION, self._warn)
                self.is_used = True
            return self._opened

    def search(self, mailbox: str, uidvalidity: int, needle: str, with_header: bool) -> Hits:
        """Which messages of the mailbox hold the folded needle, in the body or also `with_header`."""
        database = self._database()
        nothing = Hits(set(), set())
        if database is None or "\0" in needle:
            return nothing
        return database.run(lambda db: _search(db, mailbox, uidvalidity, needle, with_header), nothing)

    def candidates(
        self, mailbox: str, uidvalidity: int, pieces: Sequence[Sequence[str]], with_header: bool
    ) -> Hits:
        """Which messages may hold one of the pieces of each group; the pieces are folded, without accents."""
        database = self._database()
        nothing = Hits(set(), set())
        if database is None:
            return nothing
        return database.run(lambda db: _candidates(db, mailbox, uidvalidity, pieces, with_header), nothing)

    def texts(self, mailbox: str, uidvalidity: int, uids: Sequence[Uid]) -> dict[Uid, tuple[str, str]]:
        """Header and body of those of the messages that are in the index, or what of them is."""
        database = self._database()
        nothing: dict[Uid, tuple[str, str]] = {}
        if database is None:
            return nothing
        return database.run(lambda db: _texts(db, mailbox, uidvalidity, uids), nothing)

    def indexed(self, mailbox: str, uidvalidity: int) -> set[Uid]:
        """The messages that are in the index."""
        database = self._database()
        nothing: set[Uid] = set()
        if database is None:
            return nothing
        query = "SELECT uid FROM text WHERE mailbox=? AND uidvalidity=?"
        return database.run(lambda db: {row[0] for row in db.execute(query, (mailbox, uidvalidity))}, nothing)

    def holds_any(self, mailbox: str) -> bool:
        """Whether the mailbox was ever searched."""
        database = self._database() if self.is_used else None
        query = "SELECT 1 FROM text WHERE mailbox=? LIMIT 1"
        return database is not None and database.run(
            lambda db: db.execute(query, (mailbox,)).fetchone() is not None, False
        )

    def add(self, mailbox: str, uidvalidity: int, texts: Sequence[Text]) -> None:
        """The texts are in the index, probably; those that were there already are left alone."""
        database = self._database()
        if database is not None:
            database.write(lambda db: _add(db, mailbox, uidvalidity, texts))

    def forget(self, mailbox: str, uids: Sequence[Uid]) -> None:
        """The messages are in the index no more."""
        database = self._database() if self.is_used else None
        if database is not None:
            delete = "DELETE FROM text WHERE mailbox=? AND uidvalidity>0 AND uid=?"
            rows = [(mailbox, uid) for uid in uids]
            database.write(lambda db: db.executemany(delete, rows))

    def tidy(self) -> None:
        """Where half of the trigrams are of messages that are gone, all is dropped, to be made again."""
        database = self._database() if self.is_used else None
        if database is not None:
            database.write(_drop_dead)

    def check(self) -> Sequence[str]:
        """What was wrong with the data base, which is an empty one now."""
        database = self._database() if self.is_used else None
        return database.check() if database is not None else []

    def close(self) -> None:
        """The data base is closed; nothing is found or remembered any more."""
        with self._lock:
            self._is_closed = True
            if self._opened is not None:
                self._opened.close()
                self._opened = None


def _search(db: sqlite3.Connection, mailbox: str, uidvalidity: int, needle: str, with_header: bool) -> Hits:
    place = (mailbox, uidvalidity)
    rows = db.execute("SELECT uid, partial FROM text WHERE mailbox=? AND uidvalidity=?", place).fetchall()
    octets = needle.encode("utf-8", "replace")
    plain = without_accents(needle)
    if len(plain) < _TRIGRAM:
        candidates = db.execute("SELECT uid, content FROM text WHERE mailbox=? AND uidvalidity=?", place)
    else:
        candidates = db.execute(
            "SELECT text.uid, text.content FROM gram CROSS JOIN text ON text.id = gram.rowid"
            " WHERE gram MATCH ? AND text.mailbox=? AND text.uidvalidity=?",
            (_columns(_grams(plain), with_header), *place),
        )
    found = {uid for uid, content in candidates if _holds(content, octets, with_header)}
    whole = {uid for uid, partial in rows if not partial}
    return Hits(found, whole | found)


def _candidates(
    db: sqlite3.Connection, mailbox: str, uidvalidity: int, pieces: Sequence[Sequence[str]], with_header: bool
) -> Hits:
    place = (mailbox, uidvalidity)
    rows = db.execute("SELECT uid FROM text WHERE mailbox=? AND uidvalidity=?", place)
    decided = {uid for (uid,) in rows}
    groups = [" OR ".join(f"({_grams(piece)})" for piece in group) for group in pieces if _are_long(group)]
    if not groups:
        return Hits(decided, decided)
    query = " AND ".join(f"({group})" for group in groups)
    found = db.execute(
        "SELECT text.uid FROM gram CROSS JOIN text ON text.id = gram.rowid"
        " WHERE gram MATCH ? AND text.mailbox=? AND text.uidvalidity=?",
        (_columns(query, with_header), *place),
    )
    return Hits({uid for (uid,) in found}, decided)


def _are_long(group: Sequence[str]) -> bool:
    return bool(group) and all(len(piece) >= _TRIGRAM for piece in group)


def _texts(
    db: sqlite3.Connection, mailbox: str, uidvalidity: int, uids: Sequence[Uid]
) -> dict[Uid, tuple[str, str]]:
    query = "SELECT content FROM text WHERE mailbox=? AND uidvalidity=? AND uid=?"
    found = {}
    for uid in uids:
        row = db.execute(query, (mailbox, uidvalidity, uid)).fetchone()
        if row is not None:
            header, _, body = _decompressed(row[0]).decode("utf-8", "replace").partition("\0")
            found[uid] = header, body
    return found


def _grams(needle: str) -> str:
    """The FTS5 query for texts that have all trigrams of the needle, or many of a long one's."""
    grams = list(dict.fromkeys(needle[at : at + _TRIGRAM] for at in range(len(needle) - _TRIGRAM + 1)))
    step = -(-len(grams) // _MOST_GRAMS)
    return " AND ".join('"' + gram.replace('"', '""') + '"' for gram in grams[::step])


def _columns(query: str, with_header: bool) -> str:
    return query if with_header else f"body : ({query})"


def _holds(content: bytes, needle: bytes, with_header: bool) -> bool:
    text = _decompressed(content)
    return text.find(needle, 0 if with_header else text.index(b"\0")) >= 0


def _decompressed(content: bytes) -> bytes:
    """Header, NUL and body."""
    try:
        text = zlib.decompress(content)
    except (zlib.error, TypeError) as error:
        raise sqlite3.DatabaseError(f"damaged text: {error}") from error
    if b"\0" not in text:
        raise sqlite3.DatabaseError("damaged text: no end of its header")
    return text


def _add(db: sqlite3.Connection, mailbox: str, uidvalidity: int, texts: Sequence[Text]) -> None:
    known = "SELECT 1 FROM text WHERE mailbox=? AND uidvalidity=? AND uid=?"
    for text in texts:
        if db.execute(known, (mailbox, uidvalidity, text.uid)).fetchone():
            continue  # by another process, meanwhile
        header = text.header[:LONGEST_TEXT].replace("\0", " ")
        body = text.body[: LONGEST_TEXT - len(header)].replace("\0", " ")
        is_partial = len(header) + len(body) < len(text.header) + len(text.body)
        content = zlib.compress(f"{header}\0{body}".encode("utf-8", "replace"), 1)
        row = (mailbox, uidvalidity, text.uid, is_partial, content)
        cursor = db.execute(
            "INSERT INTO text (mailbox, uidvalidity, uid, partial, content) VALUES (?, ?, ?, ?, ?)", row
        )
        header, body = (_storable(without_accents(part)) for part in (header, body))
        db.execute(
            "INSERT INTO gram (rowid, header, body) VALUES (?, ?, ?)", (cursor.lastrowid, header, body)
        )


def _storable(text: str) -> str:
    """The text without lone surrogates, which SQLite refuses."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _drop_dead(db: sqlite3.Connection) -> None:
    (living,) = db.execute("SELECT count(*) FROM text").fetchone()
    newest = db.execute("SELECT seq FROM sqlite_sequence WHERE name='text'").fetchone()
    if newest and newest[0] - living > max(living, _FEWEST_DEAD):
        db.execute("DELETE FROM text")
        db.execute("INSERT INTO gram (gram) VALUES ('delete-all')")
        db.execute("DELETE FROM sqlite_sequence WHERE name='text'")
