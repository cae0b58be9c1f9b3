"""Sequence sets: `1:4,7,10:*`, as ranges, never expanded beyond what a mailbox holds.

A range's end is a number, or `LAST` for `*`. Resolving costs the number of ranges (times a
binary search) plus the number of messages found, whatever numbers the client wrote.

RFC 3501 §9 sequence-set; RFC 5182 (`$`, the saved result).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import sub
from typing import Final

from mailserver.wire.imap_arguments import LARGEST_NUMBER, ArgumentReader, ImapSyntaxError

MOST_RANGES: Final = 10_000
LAST: Final = 0  # `*`: no message has the number 0

_SET: Final = re.compile(rb"[0-9*:,]+")
_RANGE: Final = re.compile(rb"(\*|[1-9][0-9]{0,9})(?::(\*|[1-9][0-9]{0,9}))?")


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """Ranges of message numbers or UIDs as the client wrote them. `is_saved` for `$`, without ranges."""

    ranges: tuple[tuple[int, int], ...] = ()
    is_saved: bool = False

    def spans(self, last: int) -> list[tuple[int, int]]:
        """Ascending ranges that neither touch nor overlap, with `*` as `last`. RFC 3501 §9 seq-range."""
        ordered = sorted(
            (min(low or last, high or last), max(low or last, high or last)) for low, high in self.ranges
        )
        return _merged(ordered)

    @property
    def size(self) -> int:
        """How many numbers are named, one named twice counted twice; without `*` and `$`."""
        return sum(abs(high - low) + 1 for low, high in self.ranges)

    def has_number_above(self, last: int) -> bool:
        """Whether a number beyond `last` is named: a fault where it is a sequence number."""
        return any(low > last or high > last for low, high in self.ranges)

    def positions(self, count: int) -> list[range]:
        """Indexes from 0 into a mailbox of `count` messages, by sequence number."""
        if not count:
            return []
        return [range(low - 1, min(high, count)) for low, high in self.spans(count) if low <= count]

    def uid_positions(self, uids: Sequence[int]) -> list[range]:
        """Indexes into the ascending `uids` of those that the set names."""
        if not uids:
            return []
        return [
            found
            for low, high in self.spans(uids[-1])
            if (found := range(bisect_left(uids, low), bisect_right(uids, high)))
        ]


def _merged(ordered: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for low, high in ordered:
        if merged and low <= merged[-1][1] + 1:
            if high > merged[-1][1]:
                merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return merged


def read_sequence_set(reader: ArgumentReader) -> SequenceSet:
    """The set at the reader's position."""
    if reader.skip(b"$"):
        return SequenceSet(is_saved=True)
    found = _SET.match(reader.text, reader.position)
    if found is None:
        raise ImapSyntaxError("Message set expected")
    reader.position = found.end()
    return parse_sequence_set(found.group())


def read_known_set(reader: ArgumentReader) -> SequenceSet:
    """A set in which neither `*` nor `$` may stand: numbers that the client knows. RFC 7162 §7."""
    found = read_sequence_set(reader)
    if found.is_saved or any(LAST in each for each in found.ranges):
        raise ImapSyntaxError("Message set without * expected")
    return found


def parse_sequence_set(text: bytes) -> SequenceSet:
    """The set that `text` is. Raises ImapSyntaxError."""
    items = text.split(b",", MOST_RANGES)
    if len(items) > MOST_RANGES:
        raise ImapSyntaxError("Message set too long")
    return SequenceSet(tuple(map(_range, items)))


def _range(item: bytes) -> tuple[int, int]:
    found = _RANGE.fullmatch(item)
    if found is None:
        raise ImapSyntaxError("Invalid message set")
    low = _number(found[1])
    return (low, low if found[2] is None else _number(found[2]))


def _number(text: bytes) -> int:
    if text == b"*":
        return LAST
    number = int(text)
    if number > LARGEST_NUMBER:
        raise ImapSyntaxError("Number too large in message set")
    return number


def within(numbers: Sequence[int], spans: Iterable[tuple[int, int]]) -> list[int]:
    """Those of the ascending numbers that lie in one of the spans."""
    return [
        number
        for low, high in spans
        for number in numbers[bisect_left(numbers, low) : bisect_right(numbers, high)]
    ]


def render_set(numbers: Sequence[int]) -> bytes:
    """Ascending or ordered numbers as a set in the same order, runs as `low:high`; b"" for none.

    RFC 4315 §3 needs the order kept: the n-th UID of one set answers to the n-th of the other.
    """
    return b",".join([b"%d" % low if low == high else b"%d:%d" % (low, high) for low, high in runs(numbers)])


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The numbers as ranges, in their order."""
    known = numbers if isinstance(numbers, Sequence) else list(numbers)
    if not known:
        return []
    steps = map(sub, islice(known, 1, None), known)
    ends = [index for index, step in enumerate(steps) if step != 1]  # the last of each run but the last
    firsts = [known[0], *(known[index + 1] for index in ends)]
    return list(zip(firsts, [*(known[index] for index in ends), known[-1]], strict=True))
