"""A queue file in use: its lock, its journal, its end.

A file is complete when three things agree: the owner's execute bit, the header with the
content's length and checksum, and the envelope record behind the content (`queue.record`
has the grammar). Only a locked file is worked on: the lock is an open file description lock
(F_OFD_SETLK), so it excludes the other workers of this process as well, and a killed worker
leaves nothing behind.

Journal records are written without fsync unless asked: a killed process loses none of them,
a power cut may lose the last ones, which repeats a delivery but never drops one (P3).
All functions here block, for microseconds unless they fsync.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from mailserver.queue.record import (
    HEADER_SIZE,
    Accepted,
    Damaged,
    Record,
    decode_header,
    decode_records,
    encode_record,
    read_accepted,
)

COMPLETE: Final = 0o700
INCOMPLETE: Final = 0o600
_PIECE: Final = 1 << 18
_WHOLE_FILE_LOCK: Final = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def lock(descriptor: int) -> bool:
    """Whether this descriptor holds the queue file's lock now. Never waits."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE_LOCK)
    except BlockingIOError:
        return False
    return True


def is_locked(descriptor: int) -> bool:
    """Whether somebody else holds the lock. Takes nothing."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _WHOLE_FILE_LOCK)
    return bool(struct.unpack("hhqqi", answer)[0] != fcntl.F_UNLCK)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """All of the data is in the file at `offset`. Raises OSError, perhaps with a part written."""
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)


def read_exactly(descriptor: int, length: int, offset: int) -> bytes:
    """`length` octets from `offset`. Raises Damaged where the file is shorter."""
    pieces = []
    while length > 0:
        piece = os.pread(descriptor, min(length, _PIECE), offset)
        if not piece:
            raise Damaged("it is shorter than its header says")
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class QueueFile:
    """One complete, locked message in the queue.

    The descriptor stays open until `close` or `remove`; deliveries read the content from it:
    `content_length` octets at `content_offset`, LF line ends. `records` are the journal
    records found at `open`, in order. Safe to use from several threads.
    """

    content_offset: Final = HEADER_SIZE

    def __init__(
        self,
        queue_id: str,
        path: str,
        descriptor: int,
        accepted: Accepted,
        content_length: int,
        end: int,
        records: Sequence[Record] = (),
    ) -> None:
        self.queue_id = queue_id
        self.path = path
        self.descriptor = descriptor
        self.accepted = accepted
        self.content_length = content_length
        self.records = records
        self._end = end
        self._guard = threading.Lock()

    def __repr__(self) -> str:
        return f"QueueFile({self.path!r})"

    def read_head(self, octets: int) -> bytes:
        """The first `octets` octets of the content, fewer where it is shorter."""
        return self.read_content(0, octets)

    def read_content(self, start: int = 0, octets: int = -1) -> bytes:
        """The content from `start`, at most `octets` of it, to its end where that is negative."""
        rest = self.content_length - start
        length = rest if octets < 0 else min(octets, rest)
        return read_exactly(self.descriptor, length, self.content_offset + start)

    def append(self, records: Sequence[Record], durable: bool = False) -> None:
        """The records are in the journal, all or none; after fsync where `durable`. Raises OSError."""
        data = b"".join(map(encode_record, records))
        with self._guard:
            try:
                write_all(self.descriptor, data, self._end)
                if durable:
                    os.fdatasync(self.descriptor)
            except OSError:
                os.ftruncate(self.descriptor, self._end)
                raise
            self._end += len(data)

    def set_next_attempt(self, when: float) -> None:
        """The scan at the next start finds `when` as the file's modification time."""
        os.utime(self.descriptor, (when, when))

    def release(self) -> int:
        """The descriptor, which is the caller's now, with the lock on it; -1 where it was closed."""
        with self._guard:
            descriptor, self.descriptor = self.descriptor, -1
        return descriptor

    def close(self) -> None:
        """The lock is given up; the message stays in the queue. May be called twice."""
        descriptor = self.release()
        if descriptor >= 0:
            os.close(descriptor)

    def remove(self) -> None:
        """The message is no longer in the queue. Raises OSError, with the lock still held.

        No fsync: after a power cut the file may be back, its recipients are then delivered again.
        """
        os.unlink(self.path)
        self.close()


def load(queue_id: str, path: str, descriptor: int, may_repair: bool = True) -> QueueFile:
    """The message in an open, locked file, checked to the last octet. Raises Damaged, OSError.

    A torn last journal record is cut off where we `may_repair`.
    The caller closes the descriptor where this raises.
    """
    length, checksum = decode_header(read_exactly(descriptor, HEADER_SIZE, 0))
    if content_checksum(descriptor, length) != checksum:
        raise Damaged("its content does not fit its checksum")
    return _with_records(queue_id, path, descriptor, length, may_repair)


def look(queue_id: str, path: str, descriptor: int) -> QueueFile:
    """As `load`, of a file that is not locked and stays as it is; its content is neither read nor checked."""
    length, _ = decode_header(read_exactly(descriptor, HEADER_SIZE, 0))
    return _with_records(queue_id, path, descriptor, length, may_repair=False)


def _with_records(queue_id: str, path: str, descriptor: int, length: int, may_repair: bool) -> QueueFile:
    journal_start = HEADER_SIZE + length
    size = os.fstat(descriptor).st_size
    if size < journal_start:
        raise Damaged("it is shorter than its header says")
    journal = read_exactly(descriptor, size - journal_start, journal_start) if size > journal_start else b""
    records, used = decode_records(journal)
    if not records:
        raise Damaged("it has no envelope")
    if may_repair and used < len(journal):
        os.ftruncate(descriptor, journal_start + used)
    accepted = read_accepted(records[0])
    return QueueFile(queue_id, path, descriptor, accepted, length, journal_start + used, records[1:])


def content_checksum(descriptor: int, length: int) -> int:
    """CRC-32 of the content. Raises Damaged where the file is too short."""
    checksum = 0
    for position in range(0, length, _PIECE):
        piece = read_exactly(descriptor, min(_PIECE, length - position), HEADER_SIZE + position)
        checksum = crc32(piece, checksum)
    return checksum
