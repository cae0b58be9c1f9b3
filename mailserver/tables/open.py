"""From `type:name` as main.cf has it to a table. DATABASE_README, postconf(5).

hash, btree and dbm read our index or the source text; lmdb, texthash, inline, static, randmap, fail, cidr,
regexp, pcre, unionmap, pipemap, tcp, socketmap and unix are Postfix's; cidr:, regexp: and pcre: take their
rules from `{{ rule }, { rule }}` as well as from a file. `proxy:` in front changes nothing: there
is no process that would have to read for another one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from mailserver.tables.cidr import CidrTable
from mailserver.tables.combine import PipeTable, UnionTable, member_tables
from mailserver.tables.hash import IndexedTable
from mailserver.tables.regexp import pcre_table, regexp_table
from mailserver.tables.remote import SocketmapTable, TcpTable
from mailserver.tables.source import Grammar, alias_lines, map_lines
from mailserver.tables.table import Table, TableError
from mailserver.tables.text import FailTable, InlineTable, RandomTable, StaticTable, TextTable, UnixTable

TABLE_TYPES: Final = (
    "btree", "cidr", "dbm", "fail", "hash", "inline", "lmdb", "pcre", "pipemap",
    "proxy", "randmap", "regexp", "socketmap", "static", "tcp", "texthash", "unionmap", "unix",
)  # fmt: skip
TEXT_WHEN_STALE: Final = frozenset({"hash", "btree", "dbm"})
DEFAULT_TYPE: Final = "hash"


def no_warning(text: str) -> None:
    """Nobody wants to hear of stale indexes."""


class TableOpener:
    """Opens tables with the same clock, directory and ears.

    `directory` is where relative names lie. `warn` is told, once per change, of an index that is
    older than its source. Opening reads nothing: an absent file is a TableError at `find`.
    """

    def __init__(
        self,
        directory: str = "",
        now: Callable[[], float] = time.time,
        warn: Callable[[str], None] = no_warning,
    ) -> None:
        self._directory = directory
        self._now = now
        self._warn = warn

    def table(self, name: str) -> Table:
        """The table of `type:name`. Raises TableError where the type or the syntax is unknown."""
        return self._open(name, map_lines, may_substitute=True)

    def aliases(self, name: str) -> Table:
        """An alias table: its source has `name: value` lines, and `$1` is not for its results."""
        if split_name(name)[0] in ("tcp", "socketmap"):
            raise TableError(f"{name}: map is not allowed for security sensitive data")
        return self._open(name, alias_lines, may_substitute=False)

    def _open(self, name: str, grammar: Grammar, may_substitute: bool) -> Table:
        kind, argument = split_name(name)
        if kind in TEXT_WHEN_STALE or kind == "lmdb":
            path = self._path(name, argument)
            return IndexedTable(name, path, kind in TEXT_WHEN_STALE, grammar, self._now, self._warn)
        if kind == "texthash":
            return TextTable(name, self._path(name, argument), grammar, self._now)
        if kind in ("cidr", "regexp", "pcre"):
            path = argument if argument.startswith("{") else self._path(name, argument)
            if kind == "cidr":
                return CidrTable(name, path, self._now)
            make = regexp_table if kind == "regexp" else pcre_table
            return make(name, path, may_substitute, self._now)
        return self._open_other(
            name, kind, argument, lambda member: self._open(member, grammar, may_substitute)
        )

    def _open_other(self, name: str, kind: str, argument: str, member: Callable[[str], Table]) -> Table:
        if kind == "inline":
            return InlineTable(name, argument)
        if kind == "static":
            return StaticTable(name, argument)
        if kind in ("tcp", "socketmap"):
            return TcpTable(name, argument) if kind == "tcp" else SocketmapTable(name, argument)
        if kind == "randmap":
            return RandomTable(name, argument)
        if kind == "fail":
            return FailTable(name)
        if kind == "unix":
            return UnixTable(name, argument)
        if kind in ("unionmap", "pipemap"):
            tables = member_tables(name, argument, member)
            return UnionTable(name, tables) if kind == "unionmap" else PipeTable(name, tables)
        supported = ", ".join(TABLE_TYPES)
        raise TableError(f"unsupported dictionary type: {kind}: use one of {supported}")

    def _path(self, name: str, argument: str) -> str:
        if not argument:
            raise TableError(f'"{name}" names no file: write type:/path')
        return os.path.join(self._directory, argument)


def split_name(name: str) -> tuple[str, str]:
    """The type and what follows it, `proxy:` removed; a name without a type is a hash: table."""
    name = name.strip()
    while name.startswith("proxy:"):
        name = name.removeprefix("proxy:")
    kind, colon, argument = name.partition(":")
    return (kind, argument) if colon and "/" not in kind else (DEFAULT_TYPE, name)


def open_table(
    name: str,
    directory: str = "",
    *,
    now: Callable[[], float] = time.time,
    warn: Callable[[str], None] = no_warning,
) -> Table:
    """The table of `type:name`; see `TableOpener`."""
    return TableOpener(directory, now, warn).table(name)
