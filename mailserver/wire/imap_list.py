"""LIST, LSUB and STATUS arguments, the extended LIST included.

RFC 3501 §6.3.8 and §6.3.10, RFC 5258 (LIST-EXTENDED), RFC 5819 (LIST-STATUS),
RFC 6154 (SPECIAL-USE), RFC 8438 (STATUS=SIZE), RFC 8440 (LIST-MYRIGHTS), RFC 8474 (MAILBOXID).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_mailbox import decode_name
from mailserver.wire.imap_metadata import read_entries

MOST_PATTERNS: Final = 20
STATUS_ITEMS: Final = frozenset(
    {"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "HIGHESTMODSEQ", "DELETED", "SIZE",
     "MAILBOXID", "APPENDLIMIT", "DELETED-STORAGE"}
)  # fmt: skip
_SELECTION: Final = frozenset({"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"})
_RETURN: Final = frozenset({"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "MYRIGHTS"})


@dataclass(frozen=True, slots=True)
class List:
    """LIST and LSUB. `is_extended`: more than one pattern, or any option, was given."""

    reference: str
    patterns: tuple[str, ...]
    selection: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status_items: tuple[str, ...] = ()
    is_extended: bool = False
    entries: tuple[str, ...] = ()  # RFC 9590


def read_list(reader: ArgumentReader) -> List:
    """The arguments of LIST."""
    reader.space()
    selection: frozenset[str] = frozenset()
    is_extended = reader.peek() == b"("
    if is_extended:
        selection = _options(reader, _SELECTION)
        reader.space()
    if "RECURSIVEMATCH" in selection and not selection & {"SUBSCRIBED", "SPECIAL-USE"}:
        raise ImapSyntaxError("RECURSIVEMATCH needs another selection option")
    reference = decode_name(reader.astring(), reader.takes_utf8, reader.namespace)
    reader.space()
    is_extended |= reader.peek() == b"("
    patterns = _patterns(reader)
    entries: list[str] = []
    returns, items = _returns(reader, entries)
    is_extended |= returns is not None
    return List(reference, patterns, selection, returns or frozenset(), items, is_extended, tuple(entries))


def read_lsub(reader: ArgumentReader) -> List:
    """The arguments of LSUB."""
    reader.space()
    reference = decode_name(reader.astring(), reader.takes_utf8, reader.namespace)
    reader.space()
    return List(reference, (decode_name(reader.pattern(), reader.takes_utf8, reader.namespace),))


def _patterns(reader: ArgumentReader) -> tuple[str, ...]:
    raw = reader.list_of(reader.pattern) if reader.peek() == b"(" else [reader.pattern()]
    if len(raw) > MOST_PATTERNS:
        raise ImapSyntaxError("Too many patterns")
    return tuple(decode_name(pattern, reader.takes_utf8, reader.namespace) for pattern in raw)


def _options(reader: ArgumentReader, known: frozenset[str]) -> frozenset[str]:
    options = frozenset(reader.list_of(reader.word, may_be_empty=True))
    if options - known:
        raise ImapSyntaxError("Unknown LIST option")
    return options


def _returns(reader: ArgumentReader, entries: list[str]) -> tuple[frozenset[str] | None, tuple[str, ...]]:
    if reader.at_end:
        return None, ()
    reader.space()
    if reader.word() != "RETURN":
        raise ImapSyntaxError("RETURN expected")
    reader.space()
    items: list[str] = []

    def option() -> str:
        name = reader.word()
        if name == "STATUS":
            reader.space()
            items.extend(read_status_items(reader))
        elif name == "METADATA":
            reader.space()
            entries.extend(read_entries(reader))
        elif name not in _RETURN:
            raise ImapSyntaxError("Unknown LIST return option")
        return name

    return frozenset(reader.list_of(option, may_be_empty=True)), tuple(items)


def read_status_items(reader: ArgumentReader) -> tuple[str, ...]:
    """STATUS's item list."""
    items = tuple(dict.fromkeys(reader.list_of(reader.word)))
    if set(items) - STATUS_ITEMS:
        raise ImapSyntaxError("Unknown STATUS item")
    return items
