"""A table whose source only somebody else may read: sasl_passwd with mode 600, in a process without rights.

`read` and `stamp` ask whoever has them. The text is read again when its mark changes; an index beside it
is not looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from mailserver.tables.source import Source, map_lines, read_source
from mailserver.tables.table import Entry, TableError


class SecretTable:
    """See `Table`. *Blocking.* `read` and `stamp` take the path and may raise OSError."""

    whole_key = False

    def __init__(
        self, name: str, path: str, read: Callable[[str], bytes], stamp: Callable[[str], object]
    ) -> None:
        self.name = name
        self._path = path
        self._read = read
        self._stamp = stamp
        self._guard = threading.Lock()
        self._loaded: tuple[object, Source] | None = None

    def find(self, key: str) -> Entry | None:
        """See `Table.find`. A malformed line is an error for the key that it begins with."""
        source = self._source()
        line = source.lines.get(key.lower())
        if line is not None:
            return Entry(line.value, f"{self._path}:{line.line}")
        if any(key.lower().startswith(item.key) for item in source.malformed):
            raise TableError(f"{self._path}: a line of {self.name} has no value: mend it")
        return None

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Not listed: the values are secrets."""
        raise TableError(f"table {self.name}: sequence operation is not supported")

    def _source(self) -> Source:
        try:
            stamp = self._stamp(self._path)
            with self._guard:
                if self._loaded is None or self._loaded[0] != stamp:
                    text = self._read(self._path).decode("utf-8", "surrogateescape")
                    self._loaded = stamp, read_source(text, map_lines)
                return self._loaded[1]
        except OSError as error:
            raise TableError(f"open {self._path}: {error.strerror or error}") from error
