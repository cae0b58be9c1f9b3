"""Everything a session says, with back-pressure.

Lines are gathered and leave in one write; a client that does not read makes `room` wait, and
long answers give the reactor back after every slice of time, so that one session's FETCH
never delays another's NOOP. Not more than a batch beyond the transport's own buffer is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from zope.interface import implementer

from mailserver.imapd.replies import ClientGone
from mailserver.wire.imap_deflate import Deflater

FULL: Final = 65_536  # octets that make one write
_LARGE_PIECE: Final = 4096  # octets: pieces of this size on average leave without being joined
SLICE: Final = 0.010  # seconds of work before others get their turn


@implementer(IPushProducer)
class Output:
    """Writes to one transport. `resumed` is called when a client that was behind has caught up."""

    __slots__ = (
        "_clock", "_deflater", "_held", "_pieces", "_resumed", "_slice_start", "_transport", "_waiting",
        "is_paused", "octets", "tap",
    )  # fmt: skip

    def __init__(self, clock: Any, resumed: Callable[[], None]) -> None:
        self.octets = 0
        self.is_paused = False
        self._clock = clock
        self._resumed = resumed
        self._transport: Any = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._waiting: Deferred[None] | None = None
        self._slice_start = 0.0
        self._deflater: Deflater | None = None
        self.tap: Callable[[bytes], None] | None = None  # hears all that is said, not compressed

    def attach(self, transport: Any) -> None:
        """What is said from now on goes to `transport`."""
        self._transport = transport
        transport.registerProducer(self, True)

    def detach(self) -> None:
        """What was said is with the transport; nothing more will be. Nobody waits any longer."""
        self.flush()
        if self._transport is not None:
            self._transport.unregisterProducer()
            self._transport = None
        self._release()

    def line(self, line: bytes) -> None:
        """The line, its end added, is said."""
        self.write(line + b"\r\n")

    def write(self, data: bytes) -> None:
        """The octets are said, in order, at the next flush."""
        self._pieces.append(data)
        self._held += len(data)

    def write_all(self, pieces: Sequence[bytes]) -> None:
        """The pieces are said, in order, at the next flush."""
        self._pieces += pieces
        self._held += sum(map(len, pieces))

    def flush(self) -> None:
        """All that was said is with the transport."""
        if self._pieces:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces = []
            self._held = 0
            self.octets += len(data)
            if self.tap is not None:
                self.tap(data)
            if self._deflater is not None:
                data = self._deflater.deflate(data)
            if self._transport is not None:
                self._transport.write(data)

    def compress(self) -> None:
        """What is said from now on is compressed. RFC 4978 §3."""
        self.flush()
        self._deflater = Deflater()

    def start_slice(self) -> None:
        """A piece of work begins now."""
        self._slice_start = self._clock.seconds()

    async def room(self) -> None:
        """There is room for more, and others had their turn. Raises ClientGone."""
        if self._held >= FULL:
            self.flush()
        if self.is_paused and self._transport is not None:
            self.flush()
            self._waiting = Deferred()
            await self._waiting
            self.start_slice()
        elif self._clock.seconds() - self._slice_start > SLICE:
            await deferLater(self._clock, 0)
            self.start_slice()
        if self._transport is None:
            raise ClientGone

    @property
    def is_attached(self) -> bool:
        """Whether anybody can still hear us."""
        return self._transport is not None

    def pauseProducing(self) -> None:
        """Called by the transport: its buffer is full."""
        self.is_paused = True

    def resumeProducing(self) -> None:
        """Called by the transport: its buffer is empty."""
        self._release()
        self._resumed()

    def stopProducing(self) -> None:
        """Called by the transport: the connection is gone."""
        self._transport = None
        self._release()

    def _release(self) -> None:
        self.is_paused = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
