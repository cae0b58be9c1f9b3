r"""state.db's memory of who has seen what, in mailboxes where each user's \Seen is his own.

    reader        of a mailbox, by its MAILBOXID: a user who ever said what he has seen, or not
    own_seen      (reader, uid) -> seen, modseq; only of messages of which he said so

MAILBOXIDs are never given twice, and UIDs only once in a mailbox: what a release without these tables leaves
behind when it expunges a message or deletes a mailbox is nobody's, and goes some day.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mailserver.store.contract import Modseq, Reader, Uid
from mailserver.store.state_database import StateDatabase

_SEEN: Final = "instr(message.flags, CAST('\\Seen' AS BLOB)) > 0"  # no keyword has a backslash
_OF_READER: Final = (
    " FROM own_seen JOIN reader ON reader.id=own_seen.reader"
    " JOIN mailbox ON mailbox.mailbox_id=reader.mailbox_id"
    " JOIN message ON message.mailbox=mailbox.id AND message.uid=own_seen.uid"
    " WHERE mailbox.id=? AND reader.name=?"
)
Said = Mapping[str, Mapping[Uid, bool]]  # of a mailbox: reader -> UID -> whether it is seen

SAID: Final = (
    "SELECT mailbox.name, reader.name, uid, seen FROM own_seen JOIN reader ON reader.id=own_seen.reader"
    " JOIN mailbox USING (mailbox_id)"
)


def by_mailbox(rows: Iterable[tuple[Any, ...]]) -> Mapping[str, Said]:
    """The rows of SAID by the mailbox's name."""
    found: defaultdict[str, defaultdict[str, dict[Uid, bool]]] = defaultdict(lambda: defaultdict(dict))
    for mailbox, reader, uid, seen in rows:
        found[mailbox][reader][uid] = bool(seen)
    return found


class ReadersState(StateDatabase):
    """The questions and changes; see `State`."""

    def own_seen(self, identity: int, reader: str, above: int = 0) -> Sequence[tuple[Uid, bool, Modseq]]:
        """UID, whether it is seen, and modseq, of what the reader said with a modseq above `above`."""
        return self._read(  # type: ignore[return-value]
            "SELECT uid, seen, modseq FROM own_seen WHERE modseq>? AND reader=(SELECT reader.id FROM reader"
            " JOIN mailbox USING (mailbox_id) WHERE mailbox.id=? AND reader.name=?)",
            (above, identity, reader),
        )

    def set_seen(self, identity: int, reader: str, modseq: int, seen: Mapping[Uid, bool]) -> None:
        """What the reader has seen is kept, under that modseq. In a transaction."""
        number = self._reader(identity, reader)
        self._db.executemany(
            "INSERT OR REPLACE INTO own_seen VALUES (?, ?, ?, ?)",
            [(number, uid, is_seen, modseq) for uid, is_seen in seen.items()],
        )

    def _reader(self, identity: int, name: str) -> int:
        query = (
            "SELECT id FROM reader WHERE mailbox_id=(SELECT mailbox_id FROM mailbox WHERE id=?) AND name=?"
        )
        found = self._db.execute(query, (identity, name)).fetchone()
        if found is None:
            self._forget_strays()
            self._db.execute(
                "INSERT INTO reader (mailbox_id, name) SELECT mailbox_id, ? FROM mailbox WHERE id=?",
                (name, identity),
            )
            found = self._db.execute(query, (identity, name)).fetchone()
        return int(found[0])

    def _forget_strays(self) -> None:
        """Readers of mailboxes that an older release deleted."""
        strays = "(SELECT id FROM reader WHERE mailbox_id NOT IN (SELECT mailbox_id FROM mailbox))"
        self._db.execute(f"DELETE FROM own_seen WHERE reader IN {strays}")
        self._db.execute(f"DELETE FROM reader WHERE id IN {strays}")

    def unseen_by(self, identity: int, reader: Reader) -> int:
        r"""How many messages of the mailbox the reader has not seen."""
        common = f"SELECT count(*) FROM message WHERE mailbox=? AND NOT {_SEEN}"
        if not reader.starts_with_common:
            common = "SELECT count(*) FROM message WHERE mailbox=?"
        is_seen = _SEEN if reader.starts_with_common else "0"
        ((unseen, more, fewer),) = self._read(
            f"SELECT ({common}), count(*) FILTER (WHERE {is_seen} AND NOT own_seen.seen),"
            f" count(*) FILTER (WHERE NOT ({is_seen}) AND own_seen.seen)" + _OF_READER,
            (identity, identity, reader.name),
        )
        return unseen + more - fewer  # type: ignore[operator,no-any-return]

    def said(self) -> Mapping[str, Said]:
        """What readers have said of each mailbox, by its name."""
        return by_mailbox(self._read(SAID))

    def forget_seen(self, identity: int, uids: Sequence[Uid] | None = None) -> None:
        """Nobody has seen these messages of the mailbox, or any, nor its readers. In a transaction."""
        numbers = self._db.execute(
            "SELECT reader.id FROM reader JOIN mailbox USING (mailbox_id) WHERE mailbox.id=?", (identity,)
        ).fetchall()
        if not numbers:
            return
        if uids is None:
            self._db.executemany("DELETE FROM own_seen WHERE reader=?", numbers)
            self._db.executemany("DELETE FROM reader WHERE id=?", numbers)
        else:
            self._db.executemany(
                "DELETE FROM own_seen WHERE reader=? AND uid=?",
                [(number, uid) for (number,) in numbers for uid in uids],
            )
