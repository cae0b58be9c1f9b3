"""hash:, btree: and dbm: tables: our own index where it is fresh, else the source text.

Postfix's NAME.db cannot be read without Berkeley DB. So `hash:NAME` uses NAME.lmdb where one
is there and not older than NAME, and otherwise reads NAME itself, which is slower only for
very large texts. `lmdb:NAME` is the index alone; an old one is used, with a warning.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from mailserver.tables.index import SUFFIX, LmdbTable
from mailserver.tables.source import Grammar, map_lines
from mailserver.tables.table import Entry, Table, version_of
from mailserver.tables.text import TextTable
from mailserver.tables.watch import SETTLED


class IndexedTable:
    """`hash:NAME` (text_when_stale) or `lmdb:NAME` (not)."""

    whole_key = False

    def __init__(
        self,
        name: str,
        path: str,
        text_when_stale: bool,
        grammar: Grammar = map_lines,
        now: Callable[[], float] = time.time,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name = name
        self.path = path
        self._text_when_stale = text_when_stale
        self._now = now
        self._warn = warn
        self._warned_of = 0
        self._index = LmdbTable(name, path + SUFFIX, path)
        self._text = TextTable(name, path, grammar, now)

    def find(self, key: str) -> Entry | None:
        """See `Table.find`."""
        return self._table().find(key)

    def version(self) -> object:
        """See `table.version_of`."""
        table = self._table()
        return table is self._text, version_of((table,))

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """See `Table.entries`."""
        return self._table().entries()

    def warnings(self) -> list[str]:
        """What is wrong with the table, one line each. Raises TableError."""
        stale = self._stale_since()
        found = [self._stale_text()] if stale else []
        return found + (self._text.warnings() if self._table() is self._text else [])

    def _table(self) -> Table:
        """The index, or the text where that is what to read."""
        if not os.path.exists(self._index.path):
            return self._text if self._text_when_stale and os.path.exists(self.path) else self._index
        changed = self._stale_since()
        if not changed:
            return self._index
        if changed != self._warned_of:
            self._warned_of = changed
            self._warn(self._stale_text())
        return self._text if self._text_when_stale else self._index

    def _stale_since(self) -> int:
        """The time of the text's change where the index is older, in ns, else 0.

        A text that changed within the last second may be half written: it does not count yet.
        """
        try:
            source = os.stat(self.path)
            index = os.stat(self._index.path)
        except OSError:
            return 0
        being_written = 0 <= self._now() - source.st_mtime < SETTLED
        return 0 if source.st_mtime_ns <= index.st_mtime_ns or being_written else source.st_mtime_ns

    def _stale_text(self) -> str:
        return f"database {self._index.path} is older than source file {self.path}"
