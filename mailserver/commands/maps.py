"""What postmap and postalias do: make an index of a text, ask it, change it.

An index is always written as a new file and renamed, so that a lookup under load finds either the old
one or the new one. Output and exit statuses are postmap(1)'s: 1 for a fatal error and for a key that is
not found, 0 for a source with malformed lines, which are warned about.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.config.read import ConfigError, read_unchecked
from mailserver.tables.index import SUFFIX, LmdbTable, fits, write_index
from mailserver.tables.open import TEXT_WHEN_STALE, TableOpener, split_name
from mailserver.tables.patterns import PatternTable
from mailserver.tables.source import Grammar, SourceLine, read_source
from mailserver.tables.table import Table, TableError
from mailserver.tables.text import TextTable
from mailserver.tables.watch import read_text

INDEXED_TYPES: Final = TEXT_WHEN_STALE | {"lmdb"}
OPTIONS: Final = "bc:d:fFhimnNopq:rsuUvw"
DEFAULT_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class Program:
    """What differs between postmap and postalias."""

    command: PostfixCommand
    grammar: Grammar
    opener: Callable[[TableOpener], Callable[[str], Table]]
    after_key: str = "\t"  # in listings
    letters: str = OPTIONS


@dataclass(slots=True)
class Options:
    """The command line."""

    config_directory: str | None = None
    query: str | None = None
    delete: str | None = None
    listing: bool = False
    incremental: bool = False
    replace: bool = False
    quiet: bool = False
    fold: bool = True
    with_nul: bool = True
    keep_root: bool = False
    default_mode: bool = False
    file_values: bool = False
    header_keys: bool = False
    body_keys: bool = False
    follows_mime: bool = False


def run(program: Program, argv: Sequence[str] | None) -> int:
    """The whole command; its exit status."""

    def work(arguments: list[str]) -> int:
        options, names = _parse(program, arguments)
        return Command(program, options).perform(names)

    return program.command.run(work, argv)


def _parse(program: Program, arguments: list[str]) -> tuple[Options, list[str]]:
    pairs, names = program.command.options(arguments, program.letters)
    options = Options()
    switches: dict[str, Callable[[], None]] = {
        "-b": lambda: setattr(options, "body_keys", True),
        "-h": lambda: setattr(options, "header_keys", True),
        "-f": lambda: setattr(options, "fold", False),
        "-F": lambda: setattr(options, "file_values", True),
        "-i": lambda: setattr(options, "incremental", True),
        "-m": lambda: setattr(options, "follows_mime", True),
        "-n": lambda: setattr(options, "with_nul", False),
        "-N": lambda: setattr(options, "with_nul", True),
        "-o": lambda: setattr(options, "keep_root", True),
        "-p": lambda: setattr(options, "default_mode", True),
        "-r": lambda: setattr(options, "replace", True),
        "-s": lambda: setattr(options, "listing", True),
        "-w": lambda: setattr(options, "quiet", True),
    }
    if {"-b", "-h", "-m"} & {letter for letter, _ in pairs} and ("-q", "-") not in pairs:
        raise CommandError('specify -b -h or -m only with "-q -"')
    for letter, value in pairs:
        if letter == "-c":
            options.config_directory = value
        elif letter == "-q":
            options.query = value
        elif letter == "-d":
            options.delete = value
        elif letter in switches:
            switches[letter]()
    modes = [letter for letter, _ in pairs if letter in ("-s", "-q", "-d")]
    if len(modes) > 1:
        raise CommandError(f"specify only one of -s {'or ' if modes[1] == '-s' else ''}-q or -d")
    if not names:
        raise program.command.misused()
    return options, names


class Command:
    """One run of postmap or postalias."""

    def __init__(self, program: Program, options: Options) -> None:
        self._program = program
        self._options = options
        self._opener = TableOpener()

    def perform(self, names: Sequence[str]) -> int:
        """Do it for each table; the exit status. Raises CommandError, TableError, OSError."""
        for name in names:
            if name.endswith(":"):
                raise CommandError(f'open dictionary: expecting "type:name" form instead of "{name}"')
        typed = [name if ":" in name else f"{self._default_type()}:{name}" for name in names]
        if self._options.query is not None:
            return self._query(typed, self._options.query)
        if self._options.listing:
            return self._list(typed)
        if self._options.delete is not None:
            return self._delete(typed, self._options.delete)
        for name in typed:
            self._create(name)
        return 0

    def _default_type(self) -> str:
        try:
            return read_unchecked(self._options.config_directory, os.environ).string("default_database_type")
        except ConfigError as error:
            if self._options.config_directory is not None or "MAIL_CONFIG" in os.environ:
                raise CommandError(str(error)) from error
            return "hash"

    def _table(self, name: str) -> Table:
        return self._program.opener(self._opener)(name)

    def _query(self, names: Sequence[str], key: str) -> int:
        for name in names:
            self._warn_of_rules(name)
        if key != "-":
            found = self._find(names, key)
            if found is not None:
                print(found)
            return 0 if found is not None else 1
        status = 1
        for wanted in self._keys(sys.stdin):
            found = self._find(names, wanted)
            if found is not None:
                print(f"{wanted}{self._program.after_key}{found}")
                status = 0
        return status

    def _warn_of_rules(self, name: str) -> None:
        """What cannot be read in the table is said; where that matters, a lookup fails."""
        table = self._table(name)
        if isinstance(table, PatternTable | TextTable):
            with contextlib.suppress(TableError):
                for warning in table.warnings():
                    self._warn(warning)

    def _find(self, names: Sequence[str], key: str) -> str | None:
        """The value in the first table that has the key."""
        for name in names:
            table = self._table(name)
            entry = self._index(name).find(key, fold=False) if self._reads_unfolded(name) else table.find(key)
            if entry is not None:
                return _decoded(entry.value) if self._options.file_values else entry.value
        return None

    def _reads_unfolded(self, name: str) -> bool:
        return not self._options.fold and split_name(name)[0] in INDEXED_TYPES

    def _keys(self, stream: TextIO) -> Iterator[str]:
        """The keys on standard input: lines, or the header fields or body lines of a message."""
        options = self._options
        if not options.header_keys and not options.body_keys:
            if options.follows_mime:
                self._warn("ignoring -m option without -b or -h")
            yield from (line.rstrip("\r\n") for line in stream)
            return
        from mailserver.commands.map_keys import message_keys

        text = stream.read().replace("\r\n", "\n")
        yield from message_keys(text, options.header_keys, options.body_keys, options.follows_mime)

    def _list(self, names: Sequence[str]) -> int:
        for name in names:
            for key, entry in self._table(name).entries():
                value = _decoded(entry.value) if self._options.file_values else entry.value
                print(f"{key}{self._program.after_key}{value}")
        return 0

    def _index(self, name: str) -> LmdbTable:
        """The index of an indexed type. Raises CommandError."""
        kind, path = split_name(name)
        if kind not in INDEXED_TYPES:
            raise CommandError(f"unsupported dictionary type: {kind} does not support bulk-mode creation.")
        return LmdbTable(name, path + SUFFIX, path)

    def _delete(self, names: Sequence[str], key: str) -> int:
        keys = [line.rstrip("\r\n") for line in sys.stdin] if key == "-" else [key]
        unwanted = {text.lower() if self._options.fold else text for text in keys}
        status = 1
        for name in names:
            if split_name(name)[0] not in INDEXED_TYPES:
                raise CommandError(f"{name} map requires O_RDONLY access mode")
            index = self._index(name)
            lines = list(_index_lines(index))
            kept = [line for line in lines if line.key not in unwanted]
            if len(kept) < len(lines):
                self._write(index, kept)
                status = 0
        return status

    def _create(self, name: str) -> None:
        index = self._index(name)
        if self._options.incremental:
            text, old = (
                sys.stdin.read(),
                {line.key: line for line in _index_lines(index, missing_is_empty=True)},
            )
        else:
            text, old = self._source_text(index.source_path), {}
        self._write(index, self._merged(index, text, old).values())

    def _source_text(self, path: str) -> str:
        if not os.path.exists(path):
            raise CommandError(f"open {path}: No such file or directory")
        return read_text(path)

    def _merged(self, index: LmdbTable, text: str, old: dict[str, SourceLine]) -> dict[str, SourceLine]:
        """The entries of the text over the old ones; malformed, doubled and overlong ones are warned of."""
        source = read_source(text, self._program.grammar, self._options.fold, last_wins=self._options.replace)
        for item in source.malformed:
            self._warn(f"{index.source_path}, line {item.line}: {item.problem}")
        merged = dict(old)
        duplicates = [] if self._options.replace else list(source.duplicates)
        for key, line in source.lines.items():
            if key in old and not self._options.replace:
                duplicates.append(key)
            elif not fits(line):
                self._warn(f"{index.source_path}, line {line.line}: key too long for an index: skipped")
            else:
                self._add(merged, index, line)
        for key in [] if self._options.quiet else duplicates:
            self._warn(f'{index.path}: duplicate entry: "{key}"')
        return merged

    def _add(self, merged: dict[str, SourceLine], index: LmdbTable, line: SourceLine) -> None:
        try:
            merged[line.key] = self._with_files(line) if self._options.file_values else line
        except OSError as error:
            where = f"{index.source_path}, line {line.line}: open {error.filename}: {error.strerror}"
            self._warn(f"{where}: skipping this entry")

    def _with_files(self, line: SourceLine) -> SourceLine:
        """The entry with the files that its value names, joined, in base64. Raises OSError."""
        contents = []
        for path in line.value.replace(",", " ").split():
            with open(path, "rb") as file:
                contents.append(file.read())
        return SourceLine(line.key, base64.b64encode(b"\n".join(contents)).decode("ascii"), line.line)

    def _write(self, index: LmdbTable, lines: Iterable[SourceLine]) -> None:
        status = _stat_first(index.source_path, index.path)
        mode = DEFAULT_MODE
        if status is not None and not self._options.default_mode:
            mode = status.st_mode & 0o666
        owner = None if status is None or self._options.keep_root else status
        with _as_owner(owner):
            write_index(index.path, lines, mode, self._options.with_nul)

    def _warn(self, text: str) -> None:
        print(f"{self._program.command.name}: warning: {text}", file=sys.stderr)


def _index_lines(index: LmdbTable, missing_is_empty: bool = False) -> Iterator[SourceLine]:
    if missing_is_empty and not os.path.exists(index.path):
        return
    for key, entry in index.entries():
        line = entry.source.rpartition(":")[2]
        yield SourceLine(key, entry.value, int(line) if line.isdecimal() else 0)


def _stat_first(*paths: str) -> os.stat_result | None:
    for path in paths:
        try:
            return os.stat(path)
        except FileNotFoundError:
            continue
    return None


@contextlib.contextmanager
def _as_owner(status: os.stat_result | None) -> Iterator[None]:
    """Root becomes the source's owner meanwhile, so that nobody can lead it to other files."""
    if status is None or os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([status.st_gid])
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "surrogateescape")
    except ValueError as error:
        raise CommandError(f"malformed BASE64 value: {value}") from error
