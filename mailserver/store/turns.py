"""Who of this process may try for a mailbox's lock, and when other programs are let in.

Threads get their turn in order, and no two of them ever fight over the file.

Other programs look for a dotlock once a second, mutt five times, and then give up. Where we take
the lock again as soon as we let it go, they would hardly ever find it free. So in each PERIOD in which
we had it most of the time in the one before, it is left alone for GAP, which such a program cannot miss.
The periods are those of the system's monotonic clock: all our processes leave the same gap, without a
word between them. It costs a fifth of the time where a mailbox is never free, and nothing elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

Key = tuple[int, int, str]  # device and inode of the directory, and the name in it

PERIOD: Final = 5.0  # seconds: as long as the most impatient program goes on looking
GAP: Final = 1.1  # seconds: a little longer than a program sleeps between two looks
_MOST: Final = 0.6 * PERIOD
_REMEMBERED: Final = 1000  # mailboxes whose use is kept in mind


class Turns:
    """Threads of one process, first come, first served, by key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._lines: dict[Key, deque[threading.Event]] = {}
        self._since: dict[Key, float] = {}
        self._used: dict[Key, tuple[int, float, float]] = {}  # period, seconds in it, in the one before

    def take(self, key: Key, patience: float) -> bool:
        """True when it is the caller's turn; false when `patience` seconds were not enough."""
        mine = threading.Event()
        with self._guard:
            line = self._lines.setdefault(key, deque())
            line.append(mine)
            if line[0] is mine:
                self._since[key] = self._clock()
                return True
        if mine.wait(patience):
            return True
        with self._guard:
            if mine.is_set():
                return True
            line.remove(mine)
            return False

    def give(self, key: Key) -> None:
        """The next in line has its turn."""
        with self._guard:
            now = self._clock()
            self._count(key, self._since[key], now)
            line = self._lines[key]
            line.popleft()
            if line:
                self._since[key] = now
                line[0].set()
            else:
                del self._lines[key], self._since[key]

    def gap(self, key: Key) -> float:
        """How many seconds the mailbox is to be left alone, from now. Asked by whose turn it is."""
        now = self._clock()
        period, inside = divmod(now, PERIOD)
        if inside >= GAP:
            return 0.0
        with self._guard:
            counted, current, before = self._used.get(key, (0, 0.0, 0.0))
            last = current if counted == period - 1 else before if counted == period else 0.0
            if last < _MOST:
                return 0.0
            self._since[key] = now + GAP - inside  # what is left alone is not used
        return GAP - inside

    def _count(self, key: Key, start: float, end: float) -> None:
        """The mailbox was ours from then until now."""
        period = int(end // PERIOD)
        counted, current, before = self._used.pop(key, (period, 0.0, 0.0))
        if counted != period:
            current, before = 0.0, current if counted == period - 1 else 0.0
        boundary = period * PERIOD
        before += max(0.0, min(end, boundary) - max(start, boundary - PERIOD))
        current += max(0.0, end - max(start, boundary))
        self._used[key] = period, current, before
        if len(self._used) > _REMEMBERED:
            del self._used[next(iter(self._used))]
