"""Files of keys and passwords, read by a process that may; others are given who may (`roles.separated`)."""

from __future__ import annotations

import os
from pathlib import Path


def read_file(path: str) -> bytes:
    """The file's content; raises OSError."""
    return Path(path).read_bytes()


def stamp_file(path: str) -> tuple[int, ...]:
    """A mark that changes when the file does, also where a symbolic link leads elsewhere. Raises OSError."""
    mark = os.stat(path)
    return mark.st_dev, mark.st_ino, mark.st_mtime_ns
