"""Bringing the text index up to date, in a thread that lives while there is something to do.

A mailbox is asked for at its first search, and from then on after each new message. The thread reads,
decodes and writes a few messages at a time, and rests between: a search or a delivery
beside it waits for one such batch at most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from mailserver.message.text import searchable
from mailserver.store.contract import MessageGone, StoreError, Uid
from mailserver.store.text_index import Text, TextIndex

MOST_WAITING: Final = 64  # mailboxes, which are in memory meanwhile
BATCH: Final = 20  # messages: 500 would hold up other writers for most of a second
_REST: Final = 0.002  # seconds between two batches


class Indexable(Protocol):
    """What is asked of a mailbox."""

    mailbox_id: str
    uidvalidity: int

    @property
    def uids(self) -> Sequence[Uid]:
        """Its messages, ascending."""

    def read(self, uid: Uid) -> bytes:
        """See `Mailbox.read`."""


def missing_batches(index: TextIndex, mailbox: Indexable) -> Iterator[Sequence[Uid]]:
    """The messages that the index lacks, newest first, a batch at a time."""
    known = index.indexed(mailbox.mailbox_id, mailbox.uidvalidity)
    missing = [uid for uid in reversed(mailbox.uids) if uid not in known]
    for start in range(0, len(missing), BATCH):
        yield missing[start : start + BATCH]


def index_batch(index: TextIndex, mailbox: Indexable, uids: Sequence[Uid]) -> None:
    """The messages are in the index; those that are gone are left out. Raises StoreError."""
    texts = []
    for uid in uids:
        try:
            texts.append(Text(uid, *searchable(mailbox.read(uid))))
        except MessageGone:
            continue
    index.add(mailbox.mailbox_id, mailbox.uidvalidity, texts)


class TextBuilder:
    """See the module. Safe from any thread."""

    def __init__(self, index: TextIndex, warn: Callable[[str], None] = lambda text: None) -> None:
        self.index = index
        self._warn = warn
        self._lock = threading.Lock()
        self._wanted: dict[str, Indexable] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def want(self, mailbox: Indexable) -> None:
        """The mailbox's messages will be in the index before long; after a later search, where many wait."""
        with self._lock:
            if self._stop.is_set() or len(self._wanted) >= MOST_WAITING:
                return
            self._wanted[mailbox.mailbox_id] = mailbox
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="text index", daemon=True)
                self._thread.start()

    def _next(self) -> Indexable | None:
        with self._lock:
            if self._wanted and not self._stop.is_set():
                return self._wanted.pop(next(iter(self._wanted)))
            self._thread = None
            return None

    def _run(self) -> None:
        while (mailbox := self._next()) is not None:
            try:
                for uids in missing_batches(self.index, mailbox):
                    index_batch(self.index, mailbox, uids)
                    if self._stop.wait(_REST):
                        break
            except StoreError as error:
                self._warn(f"text index: {error}")
        self.index.tidy()

    def stop(self) -> None:
        """The thread has ended. *Blocking*, for one batch."""
        self._stop.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def wait(self) -> None:
        """All that was asked for is done. For commands and tests."""
        while (thread := self._thread) is not None:
            thread.join()
