"""A message on its way into the queue, until the one fsync that makes it ours.

Up to MEMORY_LIMIT octets wait in memory, so that the usual message is written by one write,
in one visit to a thread; of a larger message eight times as many, for fewer visits. The file is locked
from its creation, and removed again whatever goes wrong. A process killed before the commit leaves a
file that the scan removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from zlib import crc32

from mailserver.envelope import Envelope
from mailserver.queue.file import COMPLETE, QueueFile, write_all
from mailserver.queue.record import (
    HEADER_SIZE,
    INCOMPLETE_HEADER,
    Accepted,
    accepted_record,
    encode_header,
    encode_record,
)

MEMORY_LIMIT: Final = 1 << 16  # octets
_LARGE_PIECE: Final = 1 << 19  # octets of a message that is on the disk already


class IncomingMessage:
    """A message being received.

    `write` and the attributes never block; `flush`, `commit` and `discard` do. `envelope` and
    `is_held` may be changed until the commit. For one thread at a time.
    `create` gives the path and the descriptor of a locked file, which may hold old octets;
    `complete` gives the envelope its last recipients, and may block.
    """

    def __init__(
        self,
        queue_id: str,
        accepted: Accepted,
        create: Callable[[str, bool], tuple[str, int]],
        complete: Callable[[Envelope], Envelope] | None = None,
    ) -> None:
        self.queue_id = queue_id
        self.envelope = accepted.envelope
        self.is_held = False
        self._accepted = accepted
        self._create = create
        self._complete = complete
        self._path = ""
        self._descriptor = -1
        self._pieces: list[bytes] = []
        self._pending = 0
        self._written = 0
        self._checksum = 0

    @property
    def octets(self) -> int:
        """The content so far."""
        return self._written + self._pending

    @property
    def accepted(self) -> Accepted:
        """What the queue file will say of the message."""
        return Accepted(self.envelope, self._accepted.arrival, self._accepted.origin)

    @property
    def is_in_memory(self) -> bool:
        """Whether nothing of the message is on the disk yet."""
        return self._descriptor < 0

    def content(self) -> bytes | int:
        """The whole content where it is in memory, else the descriptor of the file that has it.

        There it begins behind HEADER_SIZE octets, once all of it was flushed.
        """
        if self._descriptor >= 0:
            return self._descriptor
        content = b"".join(self._pieces)
        self._pieces = [content]
        return content

    def head(self, octets: int) -> bytes:
        """How the content begins: so many octets, or all of it. *Blocking.* Raises OSError."""
        content = self.content()
        if isinstance(content, bytes):
            return content[:octets]
        return os.pread(content, min(octets, self._written), HEADER_SIZE)

    def complete(self) -> None:
        """The envelope has its last recipients. *Blocking.* Raises OSError: the message is as it was."""
        if self._complete is not None:
            self.envelope = self._complete(self.envelope)
            self._complete = None

    @property
    def wants_flush(self) -> bool:
        """Whether `flush` is due before the next `write`."""
        return self._pending >= (MEMORY_LIMIT if self._descriptor < 0 else _LARGE_PIECE)

    def write(self, data: bytes) -> None:
        """The piece of content (LF line ends) waits in memory."""
        self._pieces.append(data)
        self._pending += len(data)

    def flush(self) -> None:
        """What waited is in the file, not yet durable. *Blocking.* Raises OSError: all is undone."""
        with self._undone_on_error():
            offset = HEADER_SIZE + self._written
            content = self._take()
            if self._descriptor < 0:
                self._path, self._descriptor = self._create(self.queue_id, self.is_held)
                content, offset = INCOMPLETE_HEADER + content, 0
                os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, content, offset)

    def reader(self) -> Callable[[int], Iterator[bytes]]:
        """A function that gives the content so far, from an offset on, replaced or not. *Blocking.*"""
        descriptor, written, pieces = self._descriptor, self._written, tuple(self._pieces)

        def read(start: int) -> Iterator[bytes]:
            at = start
            while at < written:
                piece = os.pread(descriptor, min(MEMORY_LIMIT, written - at), HEADER_SIZE + at)
                if not piece:
                    raise OSError(errno.EIO, "the queue file is too short")
                at += len(piece)
                yield piece
            rest = b"".join(pieces)[max(start - written, 0) :]
            if rest:
                yield rest

        return read

    def replace_content(self, pieces: Iterable[bytes]) -> None:
        """The content is that instead; `pieces` may come from a `reader`. *Blocking.*

        Raises OSError: all is undone.
        """
        old, path = self._descriptor, self._path
        self._descriptor, self._path = -1, ""
        self._pieces, self._pending, self._written, self._checksum = [], 0, 0, 0
        try:
            with self._undone_on_error():
                if old >= 0:
                    os.unlink(path)
                for piece in pieces:
                    self.write(piece)
                    if old >= 0 and self.wants_flush:
                        self.flush()
        finally:
            if old >= 0:
                os.close(old)

    def commit(self) -> QueueFile:
        """The message is durable under its name, and still locked. *Blocking.*

        Raises OSError: all is undone. The answer's descriptor goes on to delivery.
        """
        with self._undone_on_error():
            self.complete()
            if self.is_held and self._descriptor >= 0:
                self._move_to_hold()
            end = self._write_rest()
            os.fchmod(self._descriptor, COMPLETE)
            os.fsync(self._descriptor)
            descriptor, self._descriptor = self._descriptor, -1
            return QueueFile(self.queue_id, self._path, descriptor, self.accepted, self._written, end)

    def discard(self) -> None:
        """Nothing of the message is left. *Blocking* where something was flushed. Never raises."""
        self._pieces.clear()
        self._pending = 0
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):  # the scan removes what cannot be removed now
                os.unlink(self._path)
            os.close(descriptor)

    def _take(self) -> bytes:
        content = b"".join(self._pieces)
        self._pieces.clear()
        self._pending = 0
        self._written += len(content)
        self._checksum = crc32(content, self._checksum)
        return content

    def _write_rest(self) -> int:
        """Header, remaining content and envelope are written; the file's length."""
        offset = HEADER_SIZE + self._written
        content = self._take()
        header = encode_header(self._written, self._checksum)
        envelope = encode_record(accepted_record(self.accepted))
        if self._descriptor < 0:
            self._path, self._descriptor = self._create(self.queue_id, self.is_held)
            whole = b"".join((header, content, envelope))
            os.ftruncate(self._descriptor, len(whole))
            write_all(self._descriptor, whole, 0)
        else:
            write_all(self._descriptor, content + envelope, offset)
            write_all(self._descriptor, header, 0)
        return HEADER_SIZE + self._written + len(envelope)

    def _move_to_hold(self) -> None:
        """The file was created under incoming before anybody knew that it is to be held."""
        target = os.path.join(os.path.dirname(os.path.dirname(self._path)), "hold", self.queue_id)
        if target != self._path:
            os.rename(self._path, target)
            self._path = target

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.discard()
            raise
