"""A heartbeat that a role shows its supervisor through one shared page of memory.

No descriptor, no message, nothing to parse: the role writes the time, the supervisor reads
it. A role whose reactor hangs stops beating, and is killed and restarted.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from typing import Final

_TIME: Final = struct.Struct("d")
LONGEST_SILENCE: Final = 5.0  # seconds


class Heart:
    """Made before the fork; `beat` is the role's, the rest the supervisor's. Monotonic seconds."""

    def __init__(
        self, longest_silence: float = LONGEST_SILENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.longest_silence = longest_silence
        self._clock = clock
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def beat(self) -> None:
        """The role is alive now. Call it about once a second, from the reactor."""
        _TIME.pack_into(self._page, 0, self._clock())

    def has_stopped(self) -> bool:
        """Whether the last beat is too long ago."""
        last: float = _TIME.unpack_from(self._page, 0)[0]
        return self._clock() - last > self.longest_silence
