"""The values of a header field; those of all messages in one piece of memory, for who searches as they type.

A search of a column is one pass over some hundred kilobytes. Of each mailbox the field that was searched
last is kept, of the mailboxes that were searched last, a few; whatever is longer than `LONGEST` is not.
What a message says never changes, so a column only grows; messages that are gone stay in it unseen.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

from mailserver.message.addresses import parse_addresses
from mailserver.message.header import header_end, scan, unfold
from mailserver.message.text import field_text, fold, from_raw
from mailserver.store.contract import Mailbox, Uid

LONGEST: Final = 4 << 20  # octets of one column
MOST: Final = 16  # columns
_ADDRESS_FIELDS: Final = frozenset({b"bcc", b"cc", b"from", b"reply-to", b"sender", b"to"})


def field_fact(name: bytes, content: bytes) -> bytes:
    """The folded values of all fields of that name, each after a line feed; b"" where there is none.

    Addresses that are written with comments or spaces inside stand there once more, without.
    """
    bodies = [body for spelt, body in scan(content[: header_end(content)]) if spelt.strip().lower() == name]
    values = [fold(field_text(body)) for body in bodies]
    if name in _ADDRESS_FIELDS:
        specs = [fold(from_raw(each.spec)) for body in bodies for each in parse_addresses(unfold(body))]
        values += [spec for spec in specs if not any(spec in value for value in values)]
    return "".join("\n" + value for value in values).encode("utf-8", "replace")


def field_values(mailbox: Mailbox, name: bytes, uids: Sequence[Uid]) -> Mapping[Uid, bytes]:
    """See `field_fact`, of each of the messages that is there. `name` in lower case. *Blocking.*"""
    kind = "field.2 " + name[:100].decode("latin-1")
    return mailbox.facts(uids, partial(field_fact, name), kind, of_header=True)


class Column:
    """Values by UID. Safe from any thread."""

    def __init__(self, field: bytes) -> None:
        self.field = field
        self._lock = threading.Lock()
        self._text = bytearray()  # each value behind a NUL
        self._starts: list[int] = []
        self._uids: list[Uid] = []
        self._known: set[Uid] = set()

    def add(self, values: Mapping[Uid, bytes]) -> None:
        """The values are in the column, while there is room."""
        with self._lock:
            for uid, value in values.items():
                if uid in self._known or b"\0" in value or len(self._text) + len(value) > LONGEST:
                    continue
                self._starts.append(len(self._text))
                self._uids.append(uid)
                self._known.add(uid)
                self._text += b"\0" + value

    def search(self, needle: bytes, uids: Sequence[Uid]) -> tuple[list[Uid], list[Uid]]:
        """Those of the ascending UIDs whose value is there and holds the needle, and those it does not know.

        An empty needle is in every value that is not empty.
        """
        with self._lock:
            if b"\0" in needle:
                return [], list(uids)
            hits = self._hits(needle or b"\n")
            unknown = [] if self._known.issuperset(uids) else [uid for uid in uids if uid not in self._known]
        if len(hits) * 8 > len(uids):
            return [*filter(set(hits).__contains__, uids)], unknown
        return [uid for uid in hits if _is_among(uid, uids)], unknown

    def _hits(self, needle: bytes) -> list[Uid]:
        text, starts, hits = self._text, self._starts, []
        position = text.find(needle)
        while position >= 0:
            index = bisect_right(starts, position) - 1
            hits.append(self._uids[index])
            position = text.find(needle, starts[index + 1]) if index + 1 < len(starts) else -1
        return sorted(hits)


def _is_among(uid: Uid, uids: Sequence[Uid]) -> bool:
    index = bisect_left(uids, uid)
    return index < len(uids) and uids[index] == uid


_columns: WeakKeyDictionary[Mailbox, Column] = WeakKeyDictionary()
_lock = threading.Lock()


def column_of(mailbox: Mailbox, field: bytes) -> Column:
    """The mailbox's column of that field, an empty one where it had none."""
    with _lock:
        column = _columns.pop(mailbox, None)
        if column is None or column.field != field:
            column = Column(field)
        _columns[mailbox] = column  # the last one now
        while len(_columns) > MOST:
            _columns.pop(next(iter(_columns)), None)
        return column
