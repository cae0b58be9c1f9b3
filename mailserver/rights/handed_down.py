"""What a process leaves to the one that takes its place: a JSON value in memory that both have.

Made before the fork, in no file system and readable by nobody else; the roles that it is not for close it.
Whoever leaves writes the value, then its length and checksum: a reader that comes in between finds nothing,
and looks again later. One writes at a time; the last value counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
from typing import Any, Final
from zlib import crc32

_HEAD: Final = struct.Struct("QQL")  # how often something was left, its octets, its checksum


class HandedDown:
    """See the module. Both methods are safe in threads, and raise OSError."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        self._taken = 0
        self._guard = threading.Lock()

    def leave(self, value: Any) -> None:
        """A successor can take the value."""
        content = json.dumps(value).encode()
        with self._guard:
            self._taken = number = self._head()[0] + 1
            os.pwrite(self._descriptor, _HEAD.pack(number, 0, 0), 0)
            os.pwrite(self._descriptor, content, _HEAD.size)
            os.pwrite(self._descriptor, _HEAD.pack(number, len(content), crc32(content)), 0)

    def take(self) -> Any:
        """What another process left since the last time; None where nothing was."""
        with self._guard:
            number, octets, checksum = self._head()
            if number == self._taken or not octets:
                return None
            content = os.pread(self._descriptor, octets, _HEAD.size)
            if crc32(content) != checksum:
                return None
            self._taken = number
        return json.loads(content)

    def _head(self) -> tuple[int, int, int]:
        found = os.pread(self._descriptor, _HEAD.size, 0).ljust(_HEAD.size, b"\0")
        number, octets, checksum = _HEAD.unpack(found)
        return number, octets, checksum

    def close(self) -> None:
        """This process has it no more."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
