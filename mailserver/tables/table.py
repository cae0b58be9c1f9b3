"""The interface of every lookup table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class TableError(Exception):
    """The table could not be read or asked. Temporary: 451 4.3.5, deferred, never "not found".

    The text says which table, what is wrong and what to do.
    """


@dataclass(frozen=True, slots=True)
class Entry:
    """A found value, and where it stands: "path:line" where the type knows lines, else the table's name."""

    value: str
    source: str


class Table(Protocol):
    """A map from keys to values. Safe to ask from any thread; a changed file is noticed by itself."""

    name: str  # as written in main.cf: "hash:/etc/aliases"

    def find(self, key: str) -> Entry | None:
        """The entry of this exact key (the table folds case itself). Raises TableError."""

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """All entries, where the type can list them (`postmap -s`). Raises TableError."""
