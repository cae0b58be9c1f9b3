r"""What one user has seen of a mailbox whose \Seen each has for himself, in memory; state.db has it durably.

Of a message that it does not name he never said anything. It may name some that are gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailserver.store.contract import Modseq, Uid
from mailserver.store.listeners import Listeners

_REMEMBERED_CHANGES: Final = 1000
Said = tuple[bool, Modseq]  # whether the message is seen, and the modseq of that


@dataclass(slots=True)
class SeenChange:
    """What a reader has now seen or unseen, `keys` of those that came with it; see `mailbox_changes`."""

    reader: str
    seen: dict[Uid, bool] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.seen or self.keys)


class OwnSeen:
    """See the module. `since` is the modseq up to which all of `rows` are known."""

    def __init__(self, rows: Iterable[tuple[Uid, bool, Modseq]], since: Modseq) -> None:
        self.said: dict[Uid, Said] = {uid: (is_seen, modseq) for uid, is_seen, modseq in rows}
        self.passed_by: dict[Uid, tuple[Modseq, Modseq]] = {}  # see `pass_by`
        self._log: deque[tuple[Modseq, Sequence[Uid]]] = deque(maxlen=_REMEMBERED_CHANGES)
        self._floor = since
        self.listeners = Listeners()  # a change of this kind is told to no others

    def take(self, modseq: Modseq, seen: Mapping[Uid, bool]) -> None:
        """The committed change is visible. `modseq` is the mailbox's, and not seen there yet."""
        self.said.update({uid: (is_seen, modseq) for uid, is_seen in seen.items()})
        self._log.append((modseq, [*seen]))

    def pass_by(self, messages: Mapping[Uid, Modseq], modseq: Modseq) -> None:
        r"""The common \Seen of the messages changes with that modseq, and nothing else. They had these.

        To who has his own a message is unchanged since the first of two modseqs in `passed_by`, as long
        as it has the second.
        """
        for uid, before in messages.items():
            first, last = self.passed_by.get(uid, (before, before))
            self.passed_by[uid] = (first if last == before else before), modseq

    @property
    def size(self) -> int:
        """Of how many messages something is known."""
        return max(len(self.said), len(self.passed_by))

    def forget(self, there: Callable[[Uid], bool]) -> None:
        """Nothing is known of messages that are not there."""
        for uid in [uid for uid in self.said if not there(uid)]:
            del self.said[uid]
        for uid in [uid for uid in self.passed_by if not there(uid)]:
            del self.passed_by[uid]

    def changed(self, since: Modseq, until: Modseq) -> set[Uid]:
        """The messages that were seen or unseen with a modseq above `since`, at most `until`."""
        log = list(self._log)
        floor = self._floor if len(log) < _REMEMBERED_CHANGES else log[0][0]
        if since < floor:
            said = self.said.copy()
            return {uid for uid, (_, modseq) in said.items() if since < modseq <= until}
        found: set[Uid] = set()
        for modseq, uids in reversed(log):
            if modseq <= since:
                break
            if modseq <= until:
                found.update(uids)
        return found
