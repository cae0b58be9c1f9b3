"""Tables without a file format of their own: texthash, inline, static, randmap, fail, unix.

`TextTable` also serves `hash:` and `btree:` tables that have no index of ours: it reads the
source text, so that a machine whose .db files nobody here can read works at once.
"""

from __future__ import annotations

import grp
import pwd
import random
import time
from collections.abc import Callable, Iterator
from typing import Final

from mailserver.tables.source import Grammar, Source, map_lines, read_source
from mailserver.tables.table import Entry, TableError
from mailserver.tables.watch import WatchedFile
from mailserver.tables.words import BraceError, split_words, unbrace


class TextTable:
    """The entries of a text file, kept in memory, read again when it changes."""

    whole_key = False

    def __init__(
        self, name: str, path: str, grammar: Grammar = map_lines, now: Callable[[], float] = time.time
    ) -> None:
        self.name = name
        self.path = path
        self._file = WatchedFile(path, lambda text: read_source(text, grammar), now)

    def find(self, key: str) -> Entry | None:
        """See `Table.find`. A key that a malformed line seems to be about is an error, not a miss."""
        source = self._file.current()
        line = source.lines.get(key.lower())
        if line is not None:
            return Entry(line.value, f"{self.path}:{line.line}")
        self._fail_if_malformed(source, key.lower())
        return None

    def version(self) -> object:
        """See `table.version_of`."""
        return self._file.version()

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """See `Table.entries`; in the order of the file."""
        for line in self._file.current().lines.values():
            yield line.key, Entry(line.value, f"{self.path}:{line.line}")

    def warnings(self) -> list[str]:
        """What is wrong with the text, one line each."""
        source = self._file.current()
        malformed = [f"{self.path}, line {item.line}: {item.problem}" for item in source.malformed]
        return malformed + [f'{self.path}: duplicate entry: "{key}"' for key in source.duplicates]

    def _fail_if_malformed(self, source: Source, key: str) -> None:
        for item in source.malformed:
            if key.startswith(item.key):
                raise TableError(f"{self.path}:{item.line}: {item.problem}: mend this line of {self.name}")


class InlineTable:
    """`inline:{key=value, {key = text with spaces}}`."""

    whole_key = False

    def __init__(self, name: str, argument: str) -> None:
        self.name = name
        self._values = dict(reversed([_inline_pair(name, word) for word in _group(name, argument)]))

    def find(self, key: str) -> Entry | None:
        """See `Table.find`."""
        value = self._values.get(key.lower())
        return None if value is None else Entry(value, self.name)

    def version(self) -> object:
        """See `table.version_of`: it never changes."""
        return self.name

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """See `Table.entries`; in the order of writing."""
        for key, value in reversed(self._values.items()):
            yield key, Entry(value, self.name)


class RandomTable:
    """`randmap:{value, value, ...}`: every key has one of these, another one each time."""

    whole_key = True

    def __init__(self, name: str, argument: str) -> None:
        self.name = name
        self._entries = [Entry(word, name) for word in _group(name, argument)]

    def find(self, key: str) -> Entry | None:
        """See `Table.find`."""
        return random.choice(self._entries)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """It has every key, so it cannot be listed."""
        raise TableError(f"table {self.name}: sequence operation is not supported")


class StaticTable:
    """`static:value` or `static:{text with spaces}`: every key has this value."""

    whole_key = True

    def __init__(self, name: str, argument: str) -> None:
        self.name = name
        self._entry = Entry(_static_value(name, argument), name)

    def find(self, key: str) -> Entry | None:
        """See `Table.find`."""
        return self._entry

    def version(self) -> object:
        """See `table.version_of`: it never changes."""
        return self.name

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """A static table has every key, so it cannot be listed."""
        raise TableError(f"table {self.name}: sequence operation is not supported")


class FailTable:
    """`fail:name`: a table that never answers, to see what becomes of mail then."""

    whole_key = True

    def __init__(self, name: str) -> None:
        self.name = name

    def find(self, key: str) -> Entry | None:
        """See `Table.find`. Always raises TableError."""
        raise TableError(f"table {self.name}: query error: it is made to fail")

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """See `Table.entries`. Always raises TableError."""
        raise TableError(f"table {self.name}: sequence operation is not supported")


class UnixTable:
    """`unix:passwd.byname` and `unix:group.byname`: the system's users and groups."""

    whole_key = False

    def __init__(self, name: str, argument: str) -> None:
        if argument not in ("passwd.byname", "group.byname"):
            raise TableError(f"{name}: unknown unix table: use unix:passwd.byname or unix:group.byname")
        self.name = name
        self._find = _passwd_line if argument == "passwd.byname" else _group_line

    def find(self, key: str) -> Entry | None:
        """See `Table.find`; the value is the line of passwd(5) without the password."""
        try:
            return Entry(self._find(key), self.name)
        except KeyError:
            return None
        except OSError as error:
            raise TableError(f"{self.name}: {error.strerror or error}") from error

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Not listed: the name service may hold many thousand users."""
        raise TableError(f"table {self.name}: sequence operation is not supported")


def _passwd_line(name: str) -> str:
    user = pwd.getpwnam(name)
    return f"{user.pw_name}:*:{user.pw_uid}:{user.pw_gid}:{user.pw_gecos}:{user.pw_dir}:{user.pw_shell}"


def _group_line(name: str) -> str:
    group = grp.getgrnam(name)
    return f"{group.gr_name}:*:{group.gr_gid}:{','.join(group.gr_mem)}"


_FORMS: Final = {"inline": "inline:{name=value...}", "randmap": "randmap:{value...}"}


def _group(name: str, argument: str) -> tuple[str, ...]:
    kind = "randmap" if "randmap:" in name.partition("{")[0] else "inline"
    try:
        words = split_words(unbrace(argument))
    except BraceError as error:
        raise TableError(f'bad syntax: "{name}"; need "{_FORMS[kind]}": {error}') from error
    if not words:
        raise TableError(f'bad syntax: "{name}"; need "{_FORMS[kind]}"')
    return words


def _inline_pair(name: str, word: str) -> tuple[str, str]:
    try:
        text = unbrace(word) if word.startswith("{") else word
    except BraceError as error:
        raise TableError(f'bad syntax: "{name}": {error}') from error
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise TableError(f'missing \'=\' after attribute name: "{name}"; need "{_FORMS["inline"]}"')
    return key.strip().lower(), value.strip()


def _static_value(name: str, argument: str) -> str:
    if not argument.startswith("{"):
        return argument
    try:
        return unbrace(argument)
    except BraceError as error:
        raise TableError(f'bad syntax: "{name}": {error}') from error
