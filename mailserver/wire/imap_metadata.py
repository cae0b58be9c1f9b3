"""GETMETADATA and SETMETADATA: annotations of mailboxes, and of the account. RFC 5464 §5.

Entry names are compared without regard to case (§3.2): they come out in lower case. Options stand
before the mailbox in the grammar, and behind it in the examples: both are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_mailbox import mailbox_name

MOST_ENTRIES: Final = 100
LONGEST_ENTRY: Final = 255
INFINITY: Final = 1000


@dataclass(frozen=True, slots=True)
class GetMetadata:
    """GETMETADATA; `mailbox` is "" for the account. `depth` counts levels below each entry."""

    mailbox: str
    entries: tuple[str, ...]
    max_size: int | None = None
    depth: int = 0


_TOPS: Final = ("/private", "/shared")


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """SETMETADATA; a value of None removes the entry."""

    mailbox: str
    values: tuple[tuple[str, bytes | None], ...]


@dataclass(slots=True)
class _Options:
    max_size: int | None = None
    depth: int = 0


def read_get_metadata(reader: ArgumentReader) -> GetMetadata:
    """The arguments of GETMETADATA."""
    options = _Options()
    reader.space()
    if reader.peek() == b"(":
        _read_options(reader, options)
        reader.space()
    mailbox = _mailbox(reader)
    reader.space()
    if reader.text[reader.position : reader.position + 2][1:].isalpha() and reader.peek() == b"(":
        _read_options(reader, options)
        reader.space()
    return GetMetadata(mailbox, read_entries(reader), options.max_size, options.depth)


def read_set_metadata(reader: ArgumentReader) -> SetMetadata:
    """The arguments of SETMETADATA."""
    reader.space()
    mailbox = _mailbox(reader)
    reader.space()

    def pair() -> tuple[str, bytes | None]:
        entry = _entry(reader)
        if entry in _TOPS:
            raise ImapSyntaxError("Entry names begin with /private/ or /shared/")
        reader.space()
        return entry, reader.nstring()

    values = reader.list_of(pair)
    if len(values) > MOST_ENTRIES:
        raise ImapSyntaxError("Too many entries")
    return SetMetadata(mailbox, tuple(values))


def read_entries(reader: ArgumentReader) -> tuple[str, ...]:
    """One entry name, or several between parentheses."""
    entries = reader.list_of(lambda: _entry(reader)) if reader.peek() == b"(" else [_entry(reader)]
    if len(entries) > MOST_ENTRIES:
        raise ImapSyntaxError("Too many entries")
    return tuple(dict.fromkeys(entries))


def _mailbox(reader: ArgumentReader) -> str:
    raw = reader.astring()
    return mailbox_name(raw, reader.takes_utf8, reader.namespace) if raw else ""


def _entry(reader: ArgumentReader) -> str:
    """RFC 5464 §3.2: `/private/…` or `/shared/…`; these alone for what lies below them."""
    raw = reader.astring().lower()
    name = raw.decode("ascii", "replace")
    levels = name.split("/")
    if len(raw) > LONGEST_ENTRY or not name.isprintable() or not name.isascii():
        raise ImapSyntaxError("Invalid entry name")
    if "/".join(levels[:2]) not in _TOPS or not all(levels[2:]):
        raise ImapSyntaxError("Entry names begin with /private/ or /shared/")
    if "*" in name or "%" in name:
        raise ImapSyntaxError("Invalid entry name")
    return name


def _read_options(reader: ArgumentReader, options: _Options) -> None:
    def option() -> None:
        name = reader.word()
        reader.space()
        if name == "MAXSIZE":
            options.max_size = reader.number()
        elif name == "DEPTH":
            depth = reader.word()
            if depth not in ("0", "1", "INFINITY"):
                raise ImapSyntaxError("Invalid DEPTH")
            options.depth = INFINITY if depth == "INFINITY" else int(depth)
        else:
            raise ImapSyntaxError("Unknown GETMETADATA option")

    reader.list_of(option)
