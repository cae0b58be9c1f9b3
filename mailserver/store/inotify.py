"""inotify(7) for a reactor: paths in, paths with news out.

twisted.internet.inotify does not serve here: it closes itself when any watched file is deleted.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.python.failure import Failure

IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000

CHANGED: Final = IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE
ARRIVED: Final = IN_CREATE | IN_MOVED_TO
REPLACED: Final = IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED
PAUSE: Final = 0.003  # seconds
_EVENT: Final = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _place(path: str) -> tuple[str, str]:
    """The directory that a path is expected in, in a form that no watched path has, and its name there."""
    directory, name = os.path.split(path)
    return os.path.join(directory, "."), name


class Inotify(FileDescriptor):
    """`seen(path, mask)` is called for each event on a watched path, coalesced per read.

    The first event is seen at once, what follows within PAUSE seconds together: a thread that
    changes ten thousand files must not wake the reactor ten thousand times.
    After an overflow it is called for every watched path. In the reactor's thread.
    """

    def __init__(self, reactor: Any, seen: Callable[[str, int], None]) -> None:
        super().__init__(reactor)
        self._seen = seen
        self._descriptor = _checked(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._watches: dict[str, int] = {}
        self._paths: dict[int, set[str]] = {}
        self._expected: dict[str, set[str]] = {}  # names, by the watch on the directory, "DIRECTORY/."
        self._pause: Any = None
        self.connected = 1

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self._descriptor

    def watch(self, path: str) -> None:
        """Changes of the path are seen from now on. Raises OSError."""
        watch = _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(path), CHANGED | REPLACED))
        self._watches[path] = watch
        self._paths.setdefault(watch, set()).add(path)

    def expect(self, path: str) -> None:
        """A path that does not exist is seen, as REPLACED, when a file has its name. Raises OSError."""
        directory, name = _place(path)
        self.watch(directory)
        self._expected.setdefault(directory, set()).add(name)

    def ignore(self, path: str) -> None:
        """Changes of the path are not seen any more."""
        directory, name = _place(path)
        if name in self._expected.get(directory, ()):
            self._expected[directory].discard(name)
            if not self._expected[directory]:
                del self._expected[directory]
                self.ignore(directory)
        watch = self._watches.pop(path, None)
        if watch is None:
            return
        sharing = self._paths.get(watch, set())
        sharing.discard(path)
        if not sharing:
            self._paths.pop(watch, None)
            _libc.inotify_rm_watch(self._descriptor, watch)

    def doRead(self) -> Failure | None:
        """The reactor says that there are events."""
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return None
        self.stopReading()
        self._pause = self.reactor.callLater(PAUSE, self._go_on)
        for path, mask in self._events(data).items():
            self._seen(path, mask)
        return None

    def _go_on(self) -> None:
        self._pause = None
        self.startReading()

    def _events(self, data: bytes) -> dict[str, int]:
        masks: dict[str, int] = {}
        heard: set[tuple[int, int]] = set()
        position = 0
        while position + _EVENT.size <= len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, position)
            start = position + _EVENT.size
            position = start + length
            if not self._expected:  # then names do not matter, and ten thousand renames are one
                if (watch, mask) in heard:
                    continue
                heard.add((watch, mask))
            name = os.fsdecode(data[start:position].rstrip(b"\0"))
            paths = list(self._watches) if mask & IN_Q_OVERFLOW else list(self._paths.get(watch, ()))
            if mask & IN_IGNORED:
                for path in self._paths.pop(watch, ()):
                    self._watches.pop(path, None)
            for path in paths:
                masks[path] = masks.get(path, 0) | mask
            for path in self._expected.keys() & paths:
                came = self._expected[path] if mask & IN_Q_OVERFLOW else self._expected[path] & {name}
                for each in came if mask & (ARRIVED | IN_Q_OVERFLOW) else ():
                    masks[path[:-1] + each] = IN_IGNORED  # whoever expected it is to watch the file now
        return masks

    def stop(self) -> None:
        """Nothing is seen any more; the descriptor is closed."""
        self.stopReading()
        if self._pause is not None:
            self._pause.cancel()
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
