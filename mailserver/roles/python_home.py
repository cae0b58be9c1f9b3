"""Whether an unprivileged user can reach the Python that this process runs on.

A role that gives up root goes on importing modules. An interpreter below /root, or a virtual
environment in a private directory, would fail it later and obscurely; so it is looked at first.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import mailserver
import twisted


def unreachable_path(*further: Path) -> Path | None:
    """The first directory on the way to the modules, or to `further`, that others may not pass."""
    for path in (*_module_paths(), *further):
        for parent in (path, *path.parents):
            if parent.is_dir() and not parent.stat().st_mode & stat.S_IXOTH:
                return parent
    return None


def _module_paths() -> Iterator[Path]:
    for file in (os.__file__, str(twisted.__file__), str(mailserver.__file__)):
        yield Path(file).resolve().parent
