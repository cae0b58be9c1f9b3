"""The interface of every lookup table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol


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


def version_of(tables: Iterable[Table]) -> tuple[object, ...] | None:
    """Equal to what it was as long as no answer of the tables can have changed. *Blocking.*

    None where one of them cannot tell: it has no method `version`, or gives None. Raises TableError.
    """
    versions = tuple(_version(table) for table in tables)
    return None if None in versions else versions


def _version(table: Any) -> object:
    tell = getattr(table, "version", None)
    return tell() if tell is not None else None
