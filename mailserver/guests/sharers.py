"""Which users of the system share something with whom, from the indexes that each keeps of its own mailboxes.

An account's index (`store.shared_boxes`) lies in its own state directory, where its session host and
`mailserver acl` write it. The helper reads them all as root, and trusts none: a file counts where it is a
plain one that belongs to the directory's owner, is not too large, and it speaks for that owner alone. It only
says where to look.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from mailserver.store.acl import Person
from mailserver.store.shared_boxes import OWN_INDEX, keys_of, parse_index

_LARGEST: Final = 1024 * 1024
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True, slots=True)
class _Index:
    stamp: tuple[int, int, int, int]
    keys: frozenset[str]


class Sharers:
    """See the module. `directory` holds the accounts' state directories, and is root's. *Blocking.*"""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._known: dict[str, _Index] = {}

    def owners_for(self, person: Person) -> Collection[str]:
        """The accounts that may share something with that one, sorted. Raises OSError."""
        keys = keys_of(person)
        with self._lock:
            self._refresh()
            found = [unquote(name) for name, index in self._known.items() if not index.keys.isdisjoint(keys)]
        return sorted({*found} - {person.name})

    def _refresh(self) -> None:
        known: dict[str, _Index] = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    with suppress(OSError):  # no index, or none that counts
                        known[entry.name] = self._look(entry.name)
        self._known = known

    def _look(self, name: str) -> _Index:
        directory = os.path.join(self._directory, name)
        path = f"{directory}/{OWN_INDEX}"
        found = os.lstat(path)
        stamp = found.st_mtime_ns, found.st_size, found.st_ino, found.st_uid
        before = self._known.get(name)
        if before is not None and before.stamp == stamp:
            return before
        owner, entries = unquote(name), parse_index(_read(path, _owner_of(directory)))
        return _Index(stamp, frozenset(key for key, whose in entries if whose == owner))


def _owner_of(directory: str) -> int:
    return os.lstat(directory).st_uid


def _read(path: str, uid: int) -> bytes:
    """The file's content, where it is that user's. Raises OSError."""
    descriptor = os.open(path, _FLAGS)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != uid or found.st_size > _LARGEST:
            raise PermissionError(f"{path}: no index of uid {uid}")
        return file.read(_LARGEST)
