"""unionmap: and pipemap:: tables made of tables. postconf(5), DATABASE_README.

`unionmap:{A, B}` gives the values of all that have the key, joined by commas; `pipemap:{A, B}`
asks B for what A gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mailserver.tables.access import asks_whole_key
from mailserver.tables.table import Entry, Table, TableError
from mailserver.tables.words import BraceError, split_words, unbrace


class _CombinedTable:
    def __init__(self, name: str, tables: Sequence[Table]) -> None:
        self.name = name
        self._tables = tuple(tables)
        self.whole_key = all(asks_whole_key(table) for table in self._tables)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Not listed."""
        raise TableError(f"table {self.name}: sequence operation is not supported")


class UnionTable(_CombinedTable):
    """`unionmap:{type:name, …}`."""

    def find(self, key: str) -> Entry | None:
        """See `Table.find`."""
        found = [entry for entry in (table.find(key) for table in self._tables) if entry is not None]
        if not found:
            return None
        return Entry(",".join(entry.value for entry in found), ", ".join(entry.source for entry in found))


class PipeTable(_CombinedTable):
    """`pipemap:{type:name, …}`."""

    def find(self, key: str) -> Entry | None:
        """See `Table.find`."""
        entry: Entry | None = Entry(key, self.name)
        for table in self._tables:
            entry = table.find(entry.value) if entry is not None else None
        return entry


def member_tables(name: str, argument: str, open_member: Callable[[str], Table]) -> list[Table]:
    """The tables between the braces. Raises TableError."""
    kind = name.removeprefix("proxy:").partition(":")[0]
    try:
        words = split_words(unbrace(argument))
        members = [unbrace(word) if word.startswith("{") else word for word in words]
    except BraceError as error:
        raise TableError(f'bad syntax: "{name}"; need "{kind}:{{type:name...}}": {error}') from error
    if not members or not all(":" in member for member in members):
        raise TableError(f'bad syntax: "{name}"; need "{kind}:{{type:name...}}"')
    return [open_member(member) for member in members]
