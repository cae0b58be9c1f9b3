"""Which set of flags each message of a mailbox has, as a column of octets.

A mailbox knows few different sets of flags. Each gets a number, and each message, in the order of
UIDs, one octet: the number of its set. A search by flags, however its keys are nested, is then asked
once for each set instead of once for each message, and `bytes.translate` carries the answers to the
messages: ten thousand of them cost some microseconds.

A column is made in a thread, and then follows its mailbox by `changes_since`, in the reactor's.

Known gap: a mailbox with more than 256 sets of flags has no column, and is searched message by message.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Final, cast
from weakref import WeakKeyDictionary

from mailserver.imapd.session import Session
from mailserver.store.contract import Flags, Mailbox, Uid

MOST_SETS: Final = 256  # numbers that an octet can hold
_FEW: Final = 1000  # changes that are cheaper one by one
_columns: WeakKeyDictionary[Mailbox, FlagColumn] = WeakKeyDictionary()


class TooManySets(Exception):
    """There is no number left for a set of flags."""


class FlagColumn:
    """See the module. `flag_column` gives the one of a mailbox, up to date."""

    def __init__(self, mailbox: Mailbox) -> None:
        """Takes its time. Raises TooManySets."""
        self._modseq = mailbox.highest_modseq  # before the list: what changes meanwhile changes again
        self._numbers: dict[Flags, int] = {}
        messages = mailbox.messages
        found = [message for uid in [*mailbox.uids] if (message := messages.get(uid)) is not None]
        self._uids = array("I", [message.uid for message in found])
        self._octets = bytearray(self._number(message.flags) for message in found)

    def _number(self, flags: Flags) -> int:
        number = self._numbers.get(flags)
        if number is None:
            number = len(self._numbers)
            if number == MOST_SETS:
                raise TooManySets
            self._numbers[flags] = number
        return number

    def follow(self, mailbox: Mailbox) -> bool:
        """The column is up to date; false where it is cheaper to make a new one. Raises TooManySets."""
        if mailbox.highest_modseq == self._modseq:
            return True
        changes = mailbox.changes_since(self._modseq)
        if not changes.complete or len(changes.changed) + len(changes.expunged) > _FEW:
            return False
        self._take_out(changes.expunged)
        for uid in changes.changed:
            message = mailbox.messages.get(uid)
            if message is not None:
                self._set(uid, self._number(message.flags))
        self._modseq = changes.highest_modseq
        return True

    def _take_out(self, uids: Sequence[Uid]) -> None:
        for uid in uids:
            position = bisect_left(self._uids, uid)
            if self._uids[position : position + 1] == array("I", [uid]):
                del self._uids[position], self._octets[position]

    def _set(self, uid: Uid, number: int) -> None:
        position = bisect_left(self._uids, uid)
        if self._uids[position : position + 1] != array("I", [uid]):
            self._uids.insert(position, uid)
            self._octets.insert(position, number)
        self._octets[position] = number

    def matching(self, holds: Callable[[Flags], bool], below: int) -> list[Uid]:
        """The messages with a UID below `below` whose flags are such, ascending."""
        answers = bytearray(MOST_SETS)
        for flags, number in self._numbers.items():
            answers[number] = holds(flags)
        end = bisect_left(self._uids, below)
        marks = self._octets[:end].translate(answers)
        first, last = marks.find(1), marks.rfind(1) + 1
        if not last:
            return []
        uids = cast(list[Uid], self._uids[first:last].tolist())
        return uids if 0 not in marks[first:last] else [*compress(uids, marks[first:last])]


async def flag_column(session: Session, mailbox: Mailbox) -> FlagColumn | None:
    """The mailbox's column as of now; None where it has too many sets of flags."""
    column = _columns.get(mailbox)
    try:
        if column is None or not column.follow(mailbox):
            column = _columns[mailbox] = await session.run(FlagColumn, mailbox)
            column.follow(mailbox)
    except TooManySets:
        _columns.pop(mailbox, None)
        return None
    return column
