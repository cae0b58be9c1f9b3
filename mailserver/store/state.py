"""state.db: what must survive about an account's mailboxes and is not in the mail itself.

Here are the questions and the changes; `state_database` describes the tables and owns the file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mailserver.store.contract import Flags, Modseq, Uid
from mailserver.store.state_readers import ReadersState
from mailserver.store.state_url_keys import UrlKeysState

EXPUNGES_KEPT: Final = 10_000  # at least, per mailbox
_FEW: Final = 20  # messages that are cheaper one by one


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
    """What was counted in a mailbox at a modseq; `size` None where it is not known of a message.

    `first_unseen` is a sequence number, 0 for none. `checksum` is over these and the mailbox's own figures
    (`store.sleep`); None where an older release kept them.
    """

    modseq: Modseq
    messages: int
    unseen: int
    deleted: int
    size: int | None
    uid_sum: int = 0
    first_unseen: int = 0
    checksum: int | None = None


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


class State(ReadersState, UrlKeysState):
    """The open state.db of one account. Methods block; those that write need `transaction`."""

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
        self.forget_seen(row.id)
        self._db.execute("DELETE FROM foreign_mark WHERE mailbox=?", (row.id,))
        self.forget_figures(row.id)
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
            "SELECT figures.modseq, messages, unseen, deleted, size, coalesce(uid_sum, 0),"
            " coalesce(first_unseen, 0), checksum FROM figures JOIN mailbox ON mailbox.id=figures.mailbox"
            " LEFT JOIN summary ON summary.mailbox=figures.mailbox WHERE name=?",
            (name,),
        )
        return Figures(*rows[0]) if rows else None  # type: ignore[arg-type]

    def set_figures(self, identity: int, figures: Figures) -> None:
        """The figures are kept. In a transaction."""
        values = (figures.modseq, figures.messages, figures.unseen, figures.deleted, figures.size)
        self._db.execute("INSERT OR REPLACE INTO figures VALUES (?, ?, ?, ?, ?, ?)", (identity, *values))
        more = (figures.uid_sum, figures.first_unseen, figures.checksum)
        self._db.execute("INSERT OR REPLACE INTO summary VALUES (?, ?, ?, ?)", (identity, *more))

    def forget_figures(self, identity: int) -> None:
        """None are kept. In a transaction."""
        self._db.execute("DELETE FROM figures WHERE mailbox=?", (identity,))
        self._db.execute("DELETE FROM summary WHERE mailbox=?", (identity,))

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
        self.forget_seen(identity, uids)
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
