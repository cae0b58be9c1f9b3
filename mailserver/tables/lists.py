"""Lists of domains, networks and names, as main.cf writes them. postconf(5).

Items are separated by commas or white space and read from the left; the first that matches
decides. `!item` excludes; `/file` stands for the items in that file, one or more a line, `#`
lines left out; `type:table` matches where the table has the key. Files are read once, when the list
is made; tables whenever they are asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, ParamSpec, TypeVar, cast

from mailserver.tables.access import asks_whole_key, domain_keys
from mailserver.tables.cidr import NetworkPattern, network_pattern, parse_address
from mailserver.tables.table import Entry, Table, TableError
from mailserver.tables.watch import read_text
from mailserver.tables.words import LIST_SEPARATORS, split_words

DEEPEST_FILE: Final = 8
_REMEMBERED: Final = 1000  # answers of each list

P = ParamSpec("P")
R = TypeVar("R")

OpenTable = Callable[[str], Table]


@dataclass(frozen=True, slots=True)
class Item:
    """One item: a pattern, or a table; `source` says where it stands."""

    pattern: str
    negated: bool
    source: str
    table: Table | None = None


def read_items(words: Sequence[str], open_table: OpenTable, source: str, directory: str = "") -> list[Item]:
    """The items of a list, files read and tables opened. `source` is where the list stands.

    Raises TableError where a file cannot be read or a table's name is wrong.
    """
    return list(_items(words, open_table, source, directory, False, 0))


def _items(
    words: Sequence[str], open_table: OpenTable, source: str, directory: str, negated: bool, depth: int
) -> Iterator[Item]:
    if depth > DEEPEST_FILE:
        raise TableError(f"{source}: files within files, more than {DEEPEST_FILE} deep")
    for word in words:
        exclusion = negated
        while word.startswith("!"):
            exclusion, word = not exclusion, word[1:]
        if word.startswith("/"):
            path = os.path.join(directory, word)
            for number, line in _file_lines(path):
                yield from _items(line, open_table, f"{path}:{number}", directory, exclusion, depth + 1)
        elif _is_table(word):
            yield Item(word, exclusion, source, open_table(word))
        elif word:
            yield Item(word, exclusion, source)


def files_of(words: Sequence[str], depth: int = 0) -> Iterator[str]:
    """The files that a list's words stand for, and those that these name in turn; unreadable ones too."""
    paths = [word.lstrip("!") for word in words if word.lstrip("!").startswith("/")]
    yield from paths
    if depth < DEEPEST_FILE:
        for path in paths:
            with contextlib.suppress(TableError):
                for _, line in _file_lines(path):
                    yield from files_of(line, depth + 1)


def _file_lines(path: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.lstrip().startswith("#"):
            yield number, split_words(line, LIST_SEPARATORS)


def _is_table(word: str) -> bool:
    kind, colon, rest = word.partition(":")
    return bool(colon and rest) and kind.isalnum() and not word.startswith("[") and not _is_address(word)


def _is_address(word: str) -> bool:
    return parse_address(word.partition("/")[0]) is not None


def _remembering(look_up: Callable[P, R], items: Sequence[Item]) -> Callable[P, R]:
    """The function, with the answers to the last questions; they never change where there is no table."""
    if any(item.table is not None for item in items):
        return look_up
    return cast(Callable[P, R], lru_cache(_REMEMBERED)(look_up))


class DomainList:
    """Domains: mydestination, relay_domains, virtual_alias_domains ….

    `domain` matches itself, and its subdomains where `parents_match_subdomains`;
    `.domain` matches the subdomains alone. Case does not count.
    """

    def __init__(self, items: Sequence[Item], parents_match_subdomains: bool = False) -> None:
        self.items = tuple(items)
        self._parents = parents_match_subdomains
        self._answer = _remembering(self._look_up, self.items)

    def find(self, domain: str) -> Entry | None:
        """The item that includes the domain (value: the item), or None. Raises TableError."""
        return self._answer(domain)

    def has(self, domain: str) -> bool:
        """Whether an item includes the domain. Raises TableError."""
        return self._answer(domain) is not None

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that are asked."""
        return tuple(item.table for item in self.items if item.table is not None)

    def _look_up(self, domain: str) -> Entry | None:
        keys = tuple(domain_keys(domain, self._parents)) if self._parents else _own_and_dotted(domain)
        for item in self.items:
            found = self._ask(item, keys)
            if found is not None:
                return None if item.negated else found
        return None

    def _ask(self, item: Item, keys: tuple[str, ...]) -> Entry | None:
        if item.table is None:
            return Entry(item.pattern, item.source) if item.pattern.lower() in keys else None
        for key in keys[:1] if asks_whole_key(item.table) else keys:
            entry = item.table.find(key)
            if entry is not None:
                return Entry(item.pattern, entry.source)
        return None


def _own_and_dotted(domain: str) -> tuple[str, ...]:
    return tuple(domain_keys(domain, parents_match_subdomains=False))


class NetworkList:
    """Client networks: mynetworks, smtpd_authorized_xclient_hosts, login_trusted_networks ….

    Items are `10.0.0.0/8`, `192.0.2.1`, `[::1]/128`, `domain` and `.domain` (for a confirmed client
    name), tables (asked for the address), each with `!`. Host bits set are a TableError
    when the list is made, which says what was meant.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)
        self._patterns = [_network(item) for item in self.items]
        self._answer = _remembering(self._look_up, self.items)

    def find(self, address: str, name: str = "") -> Entry | None:
        """The item that includes the client (value: the item), or None. Raises TableError.

        `name` is the client's confirmed host name, "" or "unknown" where there is none.
        """
        return self._answer(address, name)

    def _look_up(self, address: str, name: str) -> Entry | None:
        parsed = parse_address(address)
        plain = str(parsed) if parsed is not None else address
        names = tuple(domain_keys(name)) if name and name != "unknown" else ()
        for item, pattern in zip(self.items, self._patterns, strict=True):
            if pattern is not None:
                found = parsed is not None and pattern.contains(parsed)
            elif item.table is not None:
                entry = item.table.find(plain) or next(filter(None, map(item.table.find, names[:1])), None)
                if entry is not None:
                    return None if item.negated else Entry(item.pattern, entry.source)
                continue
            else:
                found = item.pattern.lower() in names
            if found:
                return None if item.negated else Entry(item.pattern, item.source)
        return None


def _network(item: Item) -> NetworkPattern | None:
    """The item as a network, or None where it is a name or a table."""
    text = item.pattern
    if item.table is not None or not (text.startswith("[") or _is_address(text) or "/" in text):
        if item.table is None and text.replace(".", "").isdecimal():
            raise TableError(f'{item.source}: bad net/mask pattern: "{text}": write net/length')
        return None
    try:
        return network_pattern(text)
    except ValueError as error:
        raise TableError(f"{item.source}: {error}") from error


class StringList:
    """Plain names: debug peers, protocols, users. Case does not count."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = tuple(items)

    def find(self, text: str) -> Entry | None:
        """The item that includes the text (value: the item), or None. Raises TableError."""
        wanted = text.lower()
        for item in self.items:
            if item.table is not None:
                entry = item.table.find(wanted)
                found = Entry(item.pattern, entry.source) if entry is not None else None
            else:
                found = Entry(item.pattern, item.source) if item.pattern.lower() == wanted else None
            if found is not None:
                return None if item.negated else found
        return None
