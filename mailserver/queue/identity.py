"""Queue ids: names that no two messages share.

A short id is eleven hexadecimal digits, Postfix's form as log readers know it: microseconds
since the epoch, which come round after 203 days. A long id (enable_long_queue_ids) is
Postfix's base-52 time with seconds, `z`, and the worker's number; it never comes round.

Ids of one source rise strictly whatever the clock does, and the workers of one machine have
disjoint ids, since the lowest digit of the microsecond is the worker's number. So an id can be
given before any file exists, and is written into Received: before the content is on disk.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Final

WORKERS: Final = 16
_CYCLE: Final = 1 << 44
_DIGITS: Final = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_QUEUE_ID: Final = re.compile(r"[0-9A-F]{6,16}|[0-9A-Za-y]{10,12}z[0-9A-Za-y]{1,12}")


def is_word(text: str) -> bool:
    """Whether Postfix's commands would look for a queue file of that name; ours have other names, too."""
    return re.fullmatch(r"[A-Za-z0-9_]+", text) is not None


def is_queue_id(name: str) -> bool:
    """Whether a file of this name may be a message: other names in the queue are not ours."""
    return _QUEUE_ID.fullmatch(name) is not None


def _base52(value: int, width: int) -> str:
    digits = ""
    while value or len(digits) < width:
        value, digit = divmod(value, 52)
        digits = _DIGITS[digit] + digits
    return digits


class QueueIds:
    """A source of queue ids for one worker. `clock` is wall-clock seconds. Safe in threads."""

    def __init__(self, clock: Callable[[], float], worker: int = 0, long_ids: bool = False) -> None:
        self._clock = clock
        self._worker = worker % WORKERS
        self._long = long_ids
        self._last = 0
        self._guard = threading.Lock()

    def next(self) -> str:
        """An id that was not given before, and will not be given by another worker."""
        now = int(self._clock() * 1_000_000) // WORKERS
        with self._guard:
            self._last = max(self._last + 1, now)
            stamp = self._last * WORKERS + self._worker
        if not self._long:
            return f"{stamp % _CYCLE:011X}"
        seconds, microseconds = divmod(stamp, 1_000_000)
        return f"{_base52(seconds, 6)}{_base52(microseconds, 4)}z{_DIGITS[self._worker]}"
