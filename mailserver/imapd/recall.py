"""STATUS answered again: the octets of an answer, given as long as the mailbox stays as it was.

Clients ask for the figures of all their folders every few minutes, in the same words, and most folders
are as they were. What such a command costs is then the question whether that is so: no grammar,
no rendering. Of an answer that also depends on what the session enabled, see `forget`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Final

from mailserver.store.contract import AccountStore
from mailserver.wire.imap_commands import TAG

_MOST: Final = 1000  # answers of one session
_LONGEST: Final = 300  # octets of words that are worth being kept
_COMMAND: Final = re.compile(rb"(%b) ([^\r\n]{1,%d})\r\n" % (TAG, _LONGEST))


class Recall:
    """The answers of one session. `store` is its own."""

    __slots__ = ("_answers", "_store")

    def __init__(self, store: AccountStore) -> None:
        self._store = store
        self._answers: dict[bytes, tuple[str, Hashable, bytes] | None] = {}

    def is_worth_keeping(self, words: bytes) -> bool:
        """Whether the words, a command's after its tag, were said before; from now on they were."""
        if len(self._answers) >= _MOST:
            self._answers.clear()
        is_known = words in self._answers
        if not is_known and words:
            self._answers[words] = None
        return is_known

    def keep(self, words: bytes, name: str, stamp: Hashable, answer: bytes) -> None:
        """The words are answered so while the mailbox of that name has that stamp."""
        self._answers[words] = name, stamp, answer

    def forget(self) -> None:
        """What comes from now on is not answered as before."""
        self._answers.clear()

    def answer(self, data: bytes) -> bytes | None:
        """All that answers the octets, where they are one command whose answer is known and still holds."""
        command = _COMMAND.fullmatch(data) if self._answers else None
        known = self._answers.get(command[2]) if command is not None else None
        if command is None or known is None or self._store.stamp_at_once(known[0]) != known[1]:
            return None
        return b"%b%b OK Status completed.\r\n" % (known[2], command[1])
