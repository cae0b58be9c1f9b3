"""Finding the messages of an mbox file: what lies where, and what it says of itself.

The file is read in large windows, searched with `bytes.find`, and only headers are looked at
closer: no line is ever handled by itself. Read, not mapped: a program that truncates the file
without regard for locks would kill a process that has it mapped (SIGBUS).

What stands before the first `From ` line, and UW imapd's pseudo message, is no message; it is
left where it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from mailserver.store.mbox_fields import (
    Fields,
    Place,
    header_length,
    is_pseudo,
    key_of,
    message_text,
    split_fields,
)
from mailserver.store.mbox_lines import LONGEST_FROM_LINE, parse_from_line, unquoted

WINDOW: Final = 2 * 1024 * 1024
_TAIL: Final = 4096


@dataclass(frozen=True, slots=True)
class Scanned:
    """A message as a scan finds it. `size` is in octets with CRLF line ends."""

    digest: str
    place: Place
    internal_date: int
    fields: Fields
    size: int


def pread_all(descriptor: int, length: int, offset: int) -> bytes:
    """Those octets of the file, fewer only where it ends."""
    block = os.pread(descriptor, length, offset)
    if len(block) == length or not block:
        return block
    return block + pread_all(descriptor, length - len(block), offset + len(block))


def scan(descriptor: int, begin: int, end: int, mboxrd: bool = False) -> Iterator[Scanned]:
    """The messages of the file from `begin`, where a line starts, to `end`, in order."""
    for offset, raw, date in _spans(descriptor, begin, end):
        text = message_text(raw)
        length = header_length(text)
        shown, fields = split_fields(text[:length])
        if offset == 0 and is_pseudo(text[:length], fields):
            continue
        body = memoryview(text)[length:]
        if mboxrd:
            size = _octets(unquoted(text)) - _octets(text[:length]) + _octets(shown)
        else:
            size = _octets(text) - (_octets(text[:length]) - _octets(shown) if len(shown) != length else 0)
        yield Scanned(key_of(shown, body), Place(offset, len(raw), fields.flags), date, fields, size)


def _octets(text: bytes) -> int:
    """The length with CRLF line ends."""
    line_ends = text.count(b"\n")
    return len(text) + line_ends - (text.count(b"\r\n") if b"\r" in text else 0)


def _spans(descriptor: int, begin: int, end: int) -> Iterator[tuple[int, bytes, int]]:
    """(offset, raw message, date) of each message."""
    window, base, at, is_line_start = b"", begin, begin, True
    while at < end:
        block = pread_all(descriptor, min(WINDOW, end - at), at)
        if not block:
            break
        at += len(block)
        window += block
        starts = message_starts(window, is_line_start, is_end=at == end)
        for (start, date), (following, _) in pairwise(starts):
            yield base + start, window[start:following], date
        if starts:
            keep, is_line_start = starts[-1][0], True
        else:
            keep = max(0, len(window) - LONGEST_FROM_LINE)
            is_line_start = is_line_start and not keep
        base, window = base + keep, window[keep:] if keep else window
    if is_line_start and (starts := message_starts(window, True, is_end=True)[:1]):
        yield base + starts[0][0], window[starts[0][0] :], starts[0][1]


def message_starts(window: bytes, is_line_start: bool, is_end: bool = False) -> list[tuple[int, int]]:
    """Where `From ` lines begin in a part of the file, and their dates.

    `is_end`: the last line needs no line end.
    """
    found: list[tuple[int, int]] = []
    at = -1 if is_line_start and window.startswith(b"From ") else window.find(b"\nFrom ")
    if at < 0 and not is_line_start:
        return found
    while True:
        line_end = window.find(b"\n", at + 1, at + 1 + LONGEST_FROM_LINE)
        if line_end < 0 and is_end and len(window) - at <= LONGEST_FROM_LINE:
            line_end = len(window)
        date = parse_from_line(window[at + 1 : line_end]) if line_end >= 0 else None
        if date is not None:
            found.append((at + 1, date))
        at = window.find(b"\nFrom ", at + 1)
        if at < 0:
            return found


@dataclass(frozen=True, slots=True)
class Mark:
    """A state of the file, remembered so that nothing need be read while it lasts.

    `size` is how far the messages are known; `tail` the digest of the last octets before it. The
    change time counts too: mutt sets the modification time back after it rewrote the file.
    """

    device: int
    inode: int
    size: int
    modified: int  # nanoseconds
    changed: int  # nanoseconds
    tail: str

    @classmethod
    def of(cls, descriptor: int, size: int) -> Mark:
        """The mark of the file as it is now, known up to `size`."""
        found = os.fstat(descriptor)
        tail = tail_digest(descriptor, size)
        return cls(found.st_dev, found.st_ino, size, found.st_mtime_ns, found.st_ctime_ns, tail)

    def fits(self, found: os.stat_result) -> bool:
        """Whether nothing was done to the file since."""
        return (self.device, self.inode, self.size, self.modified, self.changed) == (
            found.st_dev,
            found.st_ino,
            found.st_size,
            found.st_mtime_ns,
            found.st_ctime_ns,
        )

    def encode(self) -> str:
        """The mark as the index keeps it."""
        return f"{self.device} {self.inode} {self.size} {self.modified} {self.changed} {self.tail}"

    @classmethod
    def decode(cls, text: str) -> Mark | None:
        """The value of `encode`; None for anything else."""
        words = text.split(" ")
        if len(words) != 6 or not all(word.isdecimal() for word in words[:5]):
            return None
        device, inode, size, modified, changed = map(int, words[:5])
        return cls(device, inode, size, modified, changed, words[5])


def tail_digest(descriptor: int, size: int) -> str:
    """A digest of the last octets before `size`."""
    length = min(size, _TAIL)
    return hashlib.sha256(pread_all(descriptor, length, size - length)).hexdigest()[:32]
