"""lmdb: tables, in the one-file form that Postfix reads and writes: NAME.lmdb.

Keys and values end in a NUL, as postmap(1) writes them. Behind the value's NUL stands the
number of its line in the source text, in ASCII digits: Postfix reads up to the NUL, and we can say
`path:line`. Files without these NULs, or without the number, are read too.

Writing makes a new file beside the old one and renames it, so a lookup never misses a key;
readers notice the new inode by stat(2). A crash while writing leaves `.NAME.*.tmp` behind,
which nobody reads. Readers take no lock: a file is replaced, or grows by whole transactions.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

import lmdb

from mailserver.durable import sync_directory
from mailserver.tables.source import SourceLine
from mailserver.tables.table import Entry, TableError
from mailserver.tables.watch import signature

SUFFIX: Final = ".lmdb"
LONGEST_KEY: Final = 511  # octets, LMDB's own limit, the NUL included
SMALLEST_MAP: Final = 16 * 1024 * 1024  # octets
LARGEST_MAP: Final = 1 << 40

OPEN_TRIES: Final = 20

# A file may be open once in a process, so environments are shared by all tables, by device and inode.
Identity = tuple[int, int]
_environments: dict[Identity, Any] = {}
_identities: dict[str, Identity] = {}
_environments_lock = threading.Lock()


def _forget_environments() -> None:
    """LMDB forbids the use of an environment across fork(2); the child opens its own."""
    global _environments_lock
    _environments_lock = threading.Lock()
    _environments.clear()
    _identities.clear()


os.register_at_fork(after_in_child=_forget_environments)


class LmdbTable:
    """The index `path` (NAME.lmdb) of the source text `source_path`."""

    whole_key = False

    def __init__(self, name: str, path: str, source_path: str) -> None:
        self.name = name
        self.path = path
        self.source_path = source_path

    def find(self, key: str, fold: bool = True) -> Entry | None:
        """See `Table.find`. Without `fold` the key is asked for as it is."""
        wanted = _encode(key.lower() if fold else key)
        if not 0 < len(wanted) < LONGEST_KEY:
            return None
        try:
            with _environment(self.path).begin() as transaction:
                stored = transaction.get(wanted + b"\0")
                if stored is None:
                    stored = transaction.get(wanted)
        except lmdb.Error as error:
            raise TableError(f"{self.path}: {error}: make it again with postmap") from error
        return None if stored is None else self._entry(stored)

    def version(self) -> object:
        """See `table.version_of`: the file, and the last transaction in it."""
        try:
            transaction = _environment(self.path).info()["last_txnid"]
            return signature(os.stat(self.path)), transaction
        except (lmdb.Error, OSError) as error:
            raise TableError(f"{self.path}: {error}: make it again with postmap") from error

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """See `Table.entries`; in the order of the keys' octets."""
        try:
            with _environment(self.path).begin() as transaction:
                for key, stored in transaction.cursor():
                    yield _decode(key.removesuffix(b"\0")), self._entry(stored)
        except lmdb.Error as error:
            raise TableError(f"{self.path}: {error}: make it again with postmap") from error

    def _entry(self, stored: bytes) -> Entry:
        value, _, line = stored.partition(b"\0")
        where = f"{self.source_path}:{line.decode()}" if line.isdigit() else self.path
        return Entry(_decode(value), where)


def _environment(path: str) -> Any:
    """The open index of that name, as it is now. Raises TableError."""
    identity = _identity(path)
    with _environments_lock:
        if _identities.get(path) != identity:
            _take_up(path)
        return _environments[_identities[path]]


def _identity(path: str) -> Identity:
    try:
        status = os.stat(path)
    except OSError as error:
        raise TableError(f"open database {path}: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _take_up(path: str) -> None:
    """The file that now has the name is open; the one before is closed when its last lookup is done.

    The name may move to another file while we open it: only if it is the same before and after do we
    know which file is open.
    """
    for _ in range(OPEN_TRIES):
        identity = _identity(path)
        environment = _environments.get(identity) or _open(path)
        if _identity(path) == identity:
            before = _identities.get(path)
            _identities[path] = identity
            _environments[identity] = environment
            if before is not None and before not in _identities.values():
                del _environments[before]
            return
        if identity not in _environments:
            environment.close()
    raise TableError(f"open database {path}: it is replaced all the time")


def _open(path: str) -> Any:
    try:
        return lmdb.open(path, subdir=False, readonly=True, lock=False, create=False, max_spare_txns=4)
    except lmdb.Error as error:
        raise TableError(f"open database {path}: {error}: make it again with postmap") from error


def write_index(path: str, lines: Iterable[SourceLine], mode: int = 0o644, with_nul: bool = True) -> None:
    """The index `path` holds exactly these entries, durably, and was replaced in one step.

    Raises OSError; the old index is then untouched.
    """
    directory = os.path.dirname(path) or "."
    descriptor, temporary = tempfile.mkstemp(
        prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=directory
    )
    try:
        os.fchmod(descriptor, mode)
        pairs = sorted(_pair(line, with_nul) for line in lines)
        _fill(temporary, pairs)
        os.fsync(descriptor)
        os.rename(temporary, path)
    except lmdb.Error as error:
        _remove(temporary)
        raise OSError(f"{path}: {error}") from error
    except BaseException:
        _remove(temporary)
        raise
    finally:
        os.close(descriptor)
    sync_directory(directory)


def _pair(line: SourceLine, with_nul: bool) -> tuple[bytes, bytes]:
    key, value = _encode(line.key), _encode(line.value)
    if not with_nul:
        return key, value
    return key + b"\0", value + b"\0" + (b"%d" % line.line if line.line else b"")


def _fill(path: str, pairs: list[tuple[bytes, bytes]]) -> None:
    size = max(SMALLEST_MAP, 4 * sum(len(key) + len(value) + 64 for key, value in pairs))
    with lmdb.open(
        path, subdir=False, map_size=min(size, LARGEST_MAP), lock=False, create=True
    ) as environment:
        with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(pairs, append=True)
        environment.sync(True)


def fits(line: SourceLine) -> bool:
    """Whether the key is neither empty nor longer than an index can hold, and holds no NUL."""
    key = _encode(line.key)
    return 0 < len(key) < LONGEST_KEY and b"\0" not in key + _encode(line.value)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decode(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
