"""The mailboxes of one account that are in memory: opened once, shared, and kept for the next one.

Who has a mailbox open is counted. The last one to leave has it settled: what was put off is done. It
then stays in memory, the least used ones going first; what leaves memory is settled and exported.

`open_at_once`, `close_at_once` and `figures_at_once` never block: they are for the reactor's thread, and
answer only where nothing changed since anybody looked. That costs a stat or two.

Locks: the account's, then a mailbox's own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from mailserver.store.contract import MailboxStatus, NoSuchMailbox, StoreError
from mailserver.store.mailbox import IndexedMailbox

LINGERING_MAILBOXES: Final = 256
LINGERING_MESSAGES: Final = 50_000


class Watcher(Protocol):
    """Whoever refreshes open mailboxes when other programs change them. Safe from any thread."""

    def watch(self, mailbox: IndexedMailbox) -> None:
        """The mailbox is refreshed soon after every change of its paths."""

    def unwatch(self, mailbox: IndexedMailbox) -> None:
        """It is not any more."""


class Unwatched:
    """A watcher that watches nothing: for commands and tests."""

    def watch(self, mailbox: IndexedMailbox) -> None:
        """Nothing."""

    def unwatch(self, mailbox: IndexedMailbox) -> None:
        """Nothing."""


class OpenMailboxes:
    """See the module. `lock` is the account's; `make` opens the mailbox of a name for the first time."""

    def __init__(
        self,
        lock: threading.RLock,
        exists: Callable[[str], bool],
        make: Callable[[str], IndexedMailbox],
        watcher: Watcher,
        warn: Callable[[str], None],
    ) -> None:
        self._lock = lock
        self._exists = exists
        self._make = make
        self._watcher = watcher
        self._warn = warn
        self._boxes: OrderedDict[str, IndexedMailbox] = OrderedDict()  # least recently used first

    @property
    def boxes(self) -> Mapping[str, IndexedMailbox]:
        """Those in memory, by name, least recently used first. Under the lock."""
        return self._boxes

    def find(self, name: str) -> IndexedMailbox:
        """The mailbox, from memory where it is there. Under the lock. Raises NoSuchMailbox."""
        box = self._boxes.get(name)
        if box is not None and box.is_replaced:
            del self._boxes[name]
            box = None
        if not self._exists(name):
            if box is not None:
                self._boxes.pop(name).replace()
            raise NoSuchMailbox("There is no such mailbox")
        if box is None:
            box = self._boxes[name] = self._make(name)
        self._boxes.move_to_end(name)
        return box

    # Opening and closing.

    def open(self, name: str) -> IndexedMailbox:
        """The mailbox, refreshed and watched, for a user more."""
        with self._lock:
            box = self.find(name)
            box.users += 1
        try:
            box.refresh()
        except BaseException:
            self._leave(box)
            raise
        with self._lock:
            self._watch(box)
        return box

    def _watch(self, box: IndexedMailbox) -> None:
        if not box.is_watched:
            box.is_watched = True
            self._watcher.watch(box)

    def open_at_once(self, name: str) -> IndexedMailbox | None:
        """As `open`, without blocking; None where that cannot be."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            box = self._current(name)
            if box is not None:
                box.users += 1
                self._watch(box)
            return box
        finally:
            self._lock.release()

    def _current(self, name: str) -> IndexedMailbox | None:
        """The mailbox where it is in memory and as it was; waits for nothing. Under the lock."""
        box = self._boxes.get(name)
        if box is None or not box.is_current():
            return None
        self._boxes.move_to_end(name)
        return box

    @contextmanager
    def borrow(self, name: str) -> Iterator[IndexedMailbox]:
        """The mailbox, refreshed but not watched: it is settled when it leaves memory."""
        with self._lock:
            box = self.find(name)
            box.users += 1
        try:
            box.refresh()
            yield box
        finally:
            self.close(box)

    def _leave(self, box: IndexedMailbox) -> bool:
        """One user less; whether the mailbox was watched, and is no more."""
        with self._lock:
            box.users -= 1
            if box.users or not box.is_watched:
                return False
            box.is_watched = False
            self._watcher.unwatch(box)
            return True

    def close(self, box: IndexedMailbox) -> None:
        """A user of the mailbox less."""
        if self._leave(box) and box.needs_settling():
            self._settle(box)
        with self._lock:
            self.evict()

    def close_at_once(self, box: IndexedMailbox) -> bool:
        """As `close`, without blocking; false where that cannot be: then it is open still."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            is_last = box.users == 1
            if is_last and (box.needs_settling() or self._excess(box)):
                return False
            self._leave(box)
            return True
        finally:
            self._lock.release()

    def _settle(self, box: IndexedMailbox) -> None:
        """What was put off is done, or warned of."""
        try:
            box.settle()
        except StoreError as error:
            self._warn(f"mailbox {box.name}: {error}")

    def _export(self, box: IndexedMailbox) -> None:
        """Nobody needs the mailbox now: Dovecot may."""
        try:
            box.export()
        except StoreError:
            pass  # another program holds the lock, or the disk is full: warned of, and no loss

    # Staying in memory.

    def _excess(self, leaving: IndexedMailbox | None = None) -> Sequence[IndexedMailbox]:
        """Those that must leave memory, once `leaving` has no user any more."""
        held = sum([box.held for box in self._boxes.values()])
        if held <= LINGERING_MESSAGES and len(self._boxes) <= LINGERING_MAILBOXES:
            return ()
        idle = [box for box in self._boxes.values() if box.users == 0 or box is leaving]
        messages = sum(box.held for box in idle[:-1])
        excess = len(idle) - LINGERING_MAILBOXES
        going = []
        for box in idle[:-1]:  # the last used one stays
            if excess <= 0 and messages <= LINGERING_MESSAGES:
                break
            going.append(box)
            excess -= 1
            messages -= box.held
        return going

    def evict(self) -> None:
        """No more mailboxes linger than may. Under the lock."""
        for box in self._excess():
            del self._boxes[box.name]
            self._take_leave(box)

    def _take_leave(self, box: IndexedMailbox) -> None:
        if box.needs_settling():
            self._settle(box)
        self._export(box)

    def shut(self) -> None:
        """None is in memory; every user has one that is no more. Under the lock."""
        for box in self._boxes.values():
            if box.is_watched:
                box.is_watched = False
                self._watcher.unwatch(box)
            self._take_leave(box)
            box.replace()
        self._boxes.clear()

    # Renaming and removing, under the lock.

    def take(self, name: str) -> IndexedMailbox | None:
        """The mailbox where it was in memory; it is not any more."""
        return self._boxes.pop(name, None)

    def below(self, name: str) -> Sequence[IndexedMailbox]:
        """The mailbox of that name and those below it, as far as they are in memory."""
        return [box for other, box in self._boxes.items() if other == name or other.startswith(name + "/")]

    def above(self, name: str) -> Sequence[IndexedMailbox]:
        """The mailboxes that the name is below of, as far as they are in memory."""
        return [box for other, box in self._boxes.items() if name.startswith(other + "/")]

    def rename(self, box: IndexedMailbox, name: str, relocate: Callable[[], None]) -> None:
        """The mailbox has that name; `relocate` tells it, between its old watch and its new one."""
        self._boxes[name] = self._boxes.pop(box.name)
        self._watcher.unwatch(box)
        relocate()
        if box.is_watched:
            self._watcher.watch(box)

    # Figures.

    def stamp_at_once(self, name: str) -> Hashable | None:
        """What is the same only while the mailbox's figures are, but for its size. As `figures_at_once`."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            box = self._current(name)
            if box is None:
                return None
            return box.mailbox_id, box.uidvalidity, box.uidnext, box.highest_modseq, box.peek_recent()
        finally:
            self._lock.release()

    def figures_at_once(self, name: str, with_size: bool) -> MailboxStatus | None:
        """The mailbox's figures, without blocking; None where that cannot be."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            box = self._boxes.get(name)
            if box is None or not box.lock.acquire(blocking=False):
                return None
            try:
                figures = box.figures(with_size) if box.is_current() else None
            finally:
                box.lock.release()
            if figures is None or (with_size and figures.size is None):
                return None
            self._boxes.move_to_end(name)
            return figures
        finally:
            self._lock.release()
