"""The search program: keys, nesting, charset and return options.

A program becomes a tree of small values; `Every` is the implied AND. What a key means is
`imapd.search`'s business. RFC 3501 §6.4.4, RFC 4731 (ESEARCH), RFC 5032 (WITHIN),
RFC 5182 (SEARCHRES), RFC 7162 §3.1.5 (MODSEQ), RFC 8474 §5 (EMAILID), RFC 8514 (SAVEDATE),
RFC 6203 (SEARCH=FUZZY),
RFC 5466 (FILTERS).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from mailserver.wire.imap_arguments import LARGEST_MODSEQ, ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_results import Returns, read_returns
from mailserver.wire.imap_sequence import SequenceSet, read_sequence_set

DEEPEST_SEARCH: Final = 50
MOST_KEYS: Final = 1000


@dataclass(frozen=True, slots=True)
class Every:
    """All of the keys hold; none at all is ALL."""

    keys: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Either:
    """One of the two holds."""

    first: Key
    second: Key


@dataclass(frozen=True, slots=True)
class Not:
    """The key does not hold."""

    key: Key


@dataclass(frozen=True, slots=True)
class HasFlag:
    """The flag or keyword is set (compared without regard to case)."""

    flag: bytes


@dataclass(frozen=True, slots=True)
class IsRecent:
    r"""The message is \\Recent in this session."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """The message is in the set."""

    messages: SequenceSet
    by_uid: bool


@dataclass(frozen=True, slots=True)
class Dated:
    """BEFORE, ON or SINCE the day; `is_sent` compares the Date field, not the internal date."""

    relation: str
    day: date
    is_sent: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """Saved in this mailbox BEFORE, ON or SINCE the day. RFC 8514 §4.3."""

    relation: str
    day: date


@dataclass(frozen=True, slots=True)
class Sized:
    """LARGER or SMALLER than so many octets."""

    relation: str
    octets: int


@dataclass(frozen=True, slots=True)
class Aged:
    """OLDER or YOUNGER than so many seconds. RFC 5032."""

    relation: str
    seconds: int


@dataclass(frozen=True, slots=True)
class InField:
    """The header field `name` exists and holds the text; an empty text asks for existence."""

    name: bytes
    text: str
    is_fuzzy: bool = False


@dataclass(frozen=True, slots=True)
class InText:
    """The text is in the body, or for TEXT in header or body."""

    where: str
    text: str
    is_fuzzy: bool = False


@dataclass(frozen=True, slots=True)
class ModifiedSince:
    """The modseq is at or above. RFC 7162 §3.1.5."""

    modseq: int


@dataclass(frozen=True, slots=True)
class HasObject:
    """EMAILID or THREADID is that. RFC 8474 §5."""

    kind: str
    identifier: bytes


@dataclass(frozen=True, slots=True)
class Filtered:
    """What the stored criteria of that name say. `depth` is how deep the key stands. RFC 5466 §3.1."""

    name: str
    depth: int
    is_fuzzy: bool = False


Key = (
    Every | Either | Not | HasFlag | IsRecent | Numbered | Dated | Saved | Sized | Aged
    | InField | InText | ModifiedSince | HasObject | Filtered
)  # fmt: skip


class BadCharset(ValueError):
    """The charset is not one we read: NO [BADCHARSET (US-ASCII UTF-8)]. `saves`: of a search with SAVE.

    `is_bad`: BAD instead, since a filter is UTF-8 (RFC 5466 §3.1).
    """

    def __init__(self, name: str, saves: bool = False, is_bad: bool = False) -> None:
        super().__init__(name)
        self.saves = saves
        self.is_bad = is_bad


@dataclass(frozen=True, slots=True)
class Search:
    """SEARCH, UID SEARCH. `returns` None: the old untagged SEARCH. `has_filters`: some key is `Filtered`."""

    program: Key
    by_uid: bool = False
    returns: Returns | None = None
    uses_modseq: bool = False
    has_filters: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """SORT and THREAD. `criteria` are (key, is_reverse) pairs; `algorithm` is THREAD's. RFC 5256.

    `returns` None: the old untagged SORT (RFC 5267 §3).
    """

    program: Key
    criteria: tuple[tuple[str, bool], ...] = ()
    algorithm: str = ""
    by_uid: bool = False
    returns: Returns | None = None
    uses_modseq: bool = False
    has_filters: bool = False


@dataclass(frozen=True, slots=True)
class Criteria:
    """A search program that was stored, of so many keys."""

    program: Key
    count: int
    uses_modseq: bool


_FLAG_KEYS: Final = {
    "ANSWERED": b"\\Answered", "DELETED": b"\\Deleted", "DRAFT": b"\\Draft",
    "FLAGGED": b"\\Flagged", "SEEN": b"\\Seen",
}  # fmt: skip
_FIELD_KEYS: Final = frozenset({"BCC", "CC", "FROM", "SUBJECT", "TO"})
_LITERAL: Final = re.compile(rb"\{([0-9]{1,9})\+?\}\r\n")
SORT_KEYS: Final = frozenset(
    {"ARRIVAL", "CC", "DATE", "DISPLAYFROM", "DISPLAYTO", "FROM", "RELEVANCY", "SIZE", "SUBJECT", "TO"}
)
THREAD_ALGORITHMS: Final = frozenset({"ORDEREDSUBJECT", "REFERENCES", "REFS"})


class _ProgramReader:
    def __init__(
        self, reader: ArgumentReader, charset: str = "UTF-8", depth: int = 1, is_fuzzy: bool = False
    ) -> None:
        self._reader = reader
        self._charset = charset
        self._depth = depth
        self._is_within_fuzzy = is_fuzzy
        self.count = 0
        self.has_filters = False
        self.is_fuzzy = False
        self.uses_modseq = False

    def program(self) -> Key:
        """All keys up to the end of the command."""
        keys = [self.key(self._depth)]
        while not self._reader.at_end:
            self._reader.space()
            keys.append(self.key(self._depth))
        return keys[0] if len(keys) == 1 else Every(tuple(keys))

    def key(self, depth: int) -> Key:
        self.count += 1
        if depth > DEEPEST_SEARCH or self.count > MOST_KEYS:
            raise ImapSyntaxError("Search program too complex")
        reader = self._reader
        if reader.peek() == b"(":
            return Every(tuple(reader.list_of(lambda: self.key(depth + 1))))
        if reader.peek() in b"0123456789*$" and not reader.at_end:
            return Numbered(read_sequence_set(reader), by_uid=False)
        name = reader.word()
        if name == "FUZZY":
            return self._fuzzy(depth)
        if name == "FILTER":
            return self._filtered(depth)
        if name == "NOT":
            reader.space()
            return Not(self.key(depth + 1))
        if name == "OR":
            reader.space()
            first = self.key(depth + 1)
            reader.space()
            return Either(first, self.key(depth + 1))
        return self._without_argument(name) or self._with_argument(name)

    def _fuzzy(self, depth: int) -> Key:
        """The key with its texts to be matched fuzzily; other keys are exact all the same. RFC 6203 §5."""
        self._reader.space()
        before, self._is_within_fuzzy, self.is_fuzzy = self._is_within_fuzzy, True, True
        key = self.key(depth + 1)
        self._is_within_fuzzy = before
        return key

    def _filtered(self, depth: int) -> Key:
        self._reader.space()
        name = self._reader.atom().decode("ascii")
        if "/" in name:
            raise ImapSyntaxError("Invalid filter name")
        self.has_filters = True
        return Filtered(name, depth, self._is_within_fuzzy)

    def _without_argument(self, name: str) -> Key | None:
        if name in _FLAG_KEYS:
            return HasFlag(_FLAG_KEYS[name])
        if name.startswith("UN") and name[2:] in _FLAG_KEYS:
            return Not(HasFlag(_FLAG_KEYS[name[2:]]))
        if name in ("ALL", "SAVEDATESUPPORTED"):  # RFC 8514 §4.3: every mailbox here keeps it
            return Every()
        if name == "RECENT":
            return IsRecent()
        if name == "OLD":
            return Not(IsRecent())
        if name == "NEW":
            return Every((IsRecent(), Not(HasFlag(b"\\Seen"))))
        return None

    def _with_argument(self, name: str) -> Key:
        reader = self._reader
        if name not in _WITH_ARGUMENT and name not in _FIELD_KEYS:
            raise ImapSyntaxError("Unknown search key")
        reader.space()
        if name in _FIELD_KEYS:
            return self._in_field(name.encode("ascii"))
        if name in ("BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE"):
            return Dated(name.removeprefix("SENT"), reader.date(), name.startswith("SENT"))
        if name in ("SAVEDBEFORE", "SAVEDON", "SAVEDSINCE"):
            return Saved(name.removeprefix("SAVED"), reader.date())
        if name in ("LARGER", "SMALLER"):
            return Sized(name, reader.number(LARGEST_MODSEQ))
        if name in ("OLDER", "YOUNGER"):
            return self._age(name)
        return self._other(name)

    def _age(self, name: str) -> Key:
        seconds = self._reader.number()
        if not seconds:
            raise ImapSyntaxError("Interval must not be zero")
        return Aged(name, seconds)

    def _other(self, name: str) -> Key:
        reader = self._reader
        if name == "UID":
            return Numbered(read_sequence_set(reader), by_uid=True)
        if name == "KEYWORD":
            return HasFlag(reader.flag())
        if name == "UNKEYWORD":
            return Not(HasFlag(reader.flag()))
        if name == "HEADER":
            field = reader.astring()
            reader.space()
            return self._in_field(field)
        if name == "MODSEQ":
            return self._modseq()
        if name in ("EMAILID", "THREADID"):
            return HasObject(name, reader.astring())
        return InText(name, self._text(), self._is_within_fuzzy)

    def _in_field(self, name: bytes) -> Key:
        text = self._text()
        return InField(name, text, self._is_within_fuzzy and text != "")

    def _modseq(self) -> Key:
        reader = self._reader
        if reader.peek() == b'"':
            reader.string()  # the entry: flags have one modseq together here
            reader.space()
            if reader.word() not in ("PRIV", "SHARED", "ALL"):
                raise ImapSyntaxError("Entry type expected")
            reader.space()
        self.uses_modseq = True
        return ModifiedSince(reader.number(LARGEST_MODSEQ))

    def _text(self) -> str:
        raw = self._reader.astring()
        try:
            return raw.decode(self._charset)
        except UnicodeDecodeError:
            raise ImapSyntaxError("Search text is not in its charset")


_WITH_ARGUMENT: Final = frozenset(
    {"BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE", "LARGER", "SMALLER", "OLDER", "YOUNGER",
     "UID", "KEYWORD", "UNKEYWORD", "HEADER", "MODSEQ", "EMAILID", "THREADID", "BODY", "TEXT",
     "SAVEDBEFORE", "SAVEDON", "SAVEDSINCE"}
)  # fmt: skip


def _charset(reader: ArgumentReader, returns: Returns | None = None) -> str:
    name = reader.astring()
    upper = name.upper()
    if upper in (b"UTF-8", b"US-ASCII", b"ASCII"):
        return "UTF-8" if upper == b"UTF-8" else "ascii"
    is_bad = b" FILTER " in reader.text[reader.position :].upper()
    saves = returns is not None and "SAVE" in returns and not is_bad
    raise BadCharset(name.decode("latin-1"), saves, is_bad)


def read_search(reader: ArgumentReader, by_uid: bool = False) -> Search:
    """The arguments of SEARCH. Raises BadCharset."""
    reader.space()
    returns = read_returns(reader)
    charset = "UTF-8"  # also without CHARSET: nothing else can be meant by 8-bit text
    if reader.text[reader.position : reader.position + 8].upper() == b"CHARSET ":
        reader.position += 7
        reader.space()
        charset = _charset(reader, returns)
        reader.space()
    program = _ProgramReader(reader, charset)
    key = program.program()
    _check_relevancy(program, returns, ())
    return Search(key, by_uid, returns, program.uses_modseq, program.has_filters)


def read_criteria(value: bytes, depth: int = 1, is_fuzzy: bool = False) -> Criteria:
    """What is stored as a filter: keys alone, in UTF-8. Raises ImapSyntaxError. RFC 5466 §3.2."""
    text, literals = _without_literals(value)
    reader = ArgumentReader(text, literals)
    program = _ProgramReader(reader, depth=depth, is_fuzzy=is_fuzzy)
    key = program.program()
    return Criteria(key, program.count, program.uses_modseq)


def _without_literals(value: bytes) -> tuple[bytes, list[bytes]]:
    pieces, literals, position = list[bytes](), list[bytes](), 0
    for _ in range(MOST_KEYS):
        found = _LITERAL.search(value, position)
        if found is None:
            break
        end = found.end() + int(found[1])
        pieces.append(value[position : found.end()])
        literals.append(value[found.end() : end])
        position = end
    return b"".join((*pieces, value[position:])), literals


def _check_relevancy(
    program: _ProgramReader, returns: Returns | None, criteria: Sequence[tuple[str, bool]]
) -> None:
    """RFC 6203 §4, §6."""
    is_wanted = (returns is not None and "RELEVANCY" in returns) or "RELEVANCY" in dict(criteria)
    if is_wanted and not program.is_fuzzy and not program.has_filters:
        raise ImapSyntaxError("RELEVANCY without a FUZZY key")


def read_sort(reader: ArgumentReader, by_uid: bool = False) -> Order:
    """The arguments of SORT. RFC 5256 §3, RFC 5267 §3."""
    reader.space()
    returns = read_returns(reader)
    criteria = tuple(reader.list_of(lambda: _criterion(reader)))
    reader.space()
    charset = _charset(reader, returns)
    reader.space()
    returns = returns or read_returns(reader)  # imaptest has it there
    program = _ProgramReader(reader, charset)
    key = program.program()
    _check_relevancy(program, returns, criteria)
    return Order(
        key,
        criteria,
        by_uid=by_uid,
        returns=returns,
        uses_modseq=program.uses_modseq,
        has_filters=program.has_filters,
    )


def _criterion(reader: ArgumentReader) -> tuple[str, bool]:
    name = reader.word()
    is_reverse = name == "REVERSE"
    if is_reverse:
        reader.space()
        name = reader.word()
    if name not in SORT_KEYS:
        raise ImapSyntaxError("Unknown SORT key")
    return name, is_reverse


def read_thread(reader: ArgumentReader, by_uid: bool = False) -> Order:
    """The arguments of THREAD. RFC 5256 §4."""
    reader.space()
    algorithm = reader.word()
    if algorithm not in THREAD_ALGORITHMS:
        raise ImapSyntaxError("Unknown THREAD algorithm")
    reader.space()
    charset = _charset(reader)
    reader.space()
    program = _ProgramReader(reader, charset)
    return Order(program.program(), algorithm=algorithm, by_uid=by_uid, has_filters=program.has_filters)
