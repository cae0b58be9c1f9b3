"""The name under which ps(1), top(1), ss(8) and netstat(8) show a process."""

from __future__ import annotations

import ctypes
from typing import Final

_PR_SET_NAME: Final = 15
_ARGUMENTS: Final = (47, 48)  # fields of /proc/self/stat, from 0: where the command line begins and ends

_latest: Final[list[str]] = []
_libc: Final = ctypes.CDLL(None, use_errno=True)


def name_process(name: str, *arguments: str) -> None:
    """The process has the name, of which 15 octets count, and those arguments, as far as there is room.

    Without arguments it keeps those that it, or the process it was forked from, had at the last call.
    What was on the command line before is overwritten where it lies in memory, as all programs do that
    show what they are; where /proc cannot be read it stays. Never raises.
    """
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)
    _latest[:] = arguments or _latest
    line = b"\0".join(word.encode("utf-8", "surrogateescape") for word in (name, *_latest)) + b"\0"
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return
    start, end = (int(fields[number - 2]) for number in _ARGUMENTS)
    room = end - start
    if 0 < start < end and room < 1 << 20:
        ctypes.memmove(start, line[: room - 1].ljust(room, b"\0"), room)
