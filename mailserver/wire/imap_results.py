"""What SEARCH and SORT are to return: the options between RETURN's parentheses, and parts of results.

RFC 4731 (ESEARCH), RFC 5182 (SAVE), RFC 5267 (UPDATE, CONTEXT, PARTIAL), RFC 9394 (PARTIAL from the
end, and in UID FETCH), RFC 6203 (RELEVANCY).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError

T = TypeVar("T")

_OPTIONS: Final = frozenset(
    {"MIN", "MAX", "ALL", "COUNT", "SAVE", "PARTIAL", "UPDATE", "CONTEXT", "RELEVANCY"}
)
_ANSWERED: Final = frozenset({"MIN", "MAX", "ALL", "COUNT", "PARTIAL"})


@dataclass(frozen=True, slots=True)
class PartialRange:
    """Results counted from 1, or from -1 backwards, the nearer end first. RFC 9394 §3.1."""

    start: int
    end: int

    @property
    def label(self) -> bytes:
        """The range as it is told."""
        return b"%d:%d" % (self.start, self.end)

    def of(self, results: Sequence[T]) -> Sequence[T]:
        """Those of the results that the range names, in their order."""
        low, high = abs(self.start), abs(self.end)
        if self.start > 0:
            return results[low - 1 : high]
        count = len(results)
        return results[max(0, count - high) : max(0, count - low + 1)]


@dataclass(frozen=True, slots=True)
class Returns:
    """RETURN's options. `partial` is there with PARTIAL."""

    options: frozenset[str]
    partial: PartialRange | None = None

    def __contains__(self, option: str) -> bool:
        return option in self.options

    @property
    def is_answered(self) -> bool:
        """Whether an ESEARCH response is due. RFC 5182 §2.1: not for SAVE alone."""
        return bool(self.options & _ANSWERED)


RETURN_ALL: Final = Returns(frozenset({"ALL"}))


def read_returns(reader: ArgumentReader) -> Returns | None:
    """RETURN and its options, the space after them read too; None where the command has none."""
    if reader.text[reader.position : reader.position + 8].upper() != b"RETURN (":
        return None
    reader.position += 7
    names: set[str] = set()
    ranges: list[PartialRange] = []

    def option() -> None:
        name = reader.word()
        if name not in _OPTIONS:
            raise ImapSyntaxError("Unknown SEARCH return option")
        if name == "PARTIAL":
            reader.space()
            ranges.append(read_partial_range(reader))
        names.add(name)

    reader.list_of(option, may_be_empty=True)
    reader.space()
    if len(ranges) + ("ALL" in names) > 1:
        raise ImapSyntaxError("ALL and PARTIAL exclude each other")
    if not names - {"UPDATE", "CONTEXT", "RELEVANCY"}:
        names.add("ALL")
    return Returns(frozenset(names), ranges[0] if ranges else None)


def read_partial_range(reader: ArgumentReader) -> PartialRange:
    """`1:500` or `-1:-500`. RFC 9394 §4."""
    sign = -1 if reader.peek() == b"-" else 1
    ends = []
    for index in range(2):
        if index:
            reader.expect(b":")
        if sign < 0:
            reader.expect(b"-")
        ends.append(sign * reader.number())
    if not all(ends):
        raise ImapSyntaxError("Invalid partial range")
    return PartialRange(*sorted(ends, key=abs))
