"""What a client says, cut into commands and lines, compressed or not.

See `wire.imap_framing` and `wire.imap_deflate`. Compressed octets are inflated only as fast as they are
acted on; a stream that cannot be followed is a Fatal event like any other.
"""

from __future__ import annotations

from collections.abc import Callable

from mailserver.wire.imap_deflate import DeflateError, Inflater
from mailserver.wire.imap_framing import CommandReader, Event, Fatal, Limits


class Input:
    """Octets in, events out. `limits` may be replaced between commands."""

    __slots__ = ("_inflater", "_reader", "_tap")

    def __init__(self, limits: Limits) -> None:
        self._reader = CommandReader(limits)
        self._inflater: Inflater | None = None
        self._tap: Callable[[bytes], None] | None = None

    @property
    def limits(self) -> Limits:
        """How much of a command is taken."""
        return self._reader.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._reader.limits = limits

    @property
    def is_compressed(self) -> bool:
        """Whether the client compresses what it says."""
        return self._inflater is not None

    @property
    def pending(self) -> int:
        """Octets that no event has taken yet, compressed ones as they are."""
        return self._reader.pending + (self._inflater.pending if self._inflater is not None else 0)

    @property
    def is_at_command(self) -> bool:
        """Whether a command begins next, as the client wrote it, and nobody else hears what it says."""
        return self._reader.is_at_command and self._inflater is None and self._tap is None

    def feed(self, data: bytes) -> None:
        """The octets are kept until events take them."""
        if self._inflater is not None:
            self._inflater.feed(data)
        else:
            self._heard(data)

    def _heard(self, data: bytes) -> None:
        if self._tap is not None:
            self._tap(data)
        self._reader.feed(data)

    def tap(self, listener: Callable[[bytes], None] | None) -> None:
        """The listener hears what the client says from here on, and what waits already, not compressed."""
        self._tap = listener
        if listener is not None:
            pending = self._reader.take_pending()
            self._heard(pending)

    def take_pending(self) -> bytes:
        """The octets that no event has taken yet, now the caller's."""
        return self._reader.take_pending()

    def inflate(self, allowance: int) -> None:
        """All that no event has taken yet, and all that follows, is compressed. RFC 4978 §3."""
        inflater = Inflater(allowance)
        inflater.feed(self._reader.take_pending())
        self._inflater = inflater

    def next_event(self) -> Event | None:
        """What has become whole; None where more octets are needed."""
        try:
            while (event := self._reader.next_event()) is None and self._inflate():
                pass
        except DeflateError as fault:
            return Fatal(f"{fault}.")
        return event

    def next_line(self, limit: int) -> bytes | Fatal | None:
        """One line without its end, where no command is expected; None where it is not whole yet."""
        try:
            while (line := self._reader.next_line(limit)) is None and self._inflate():
                pass
        except DeflateError as fault:
            return Fatal(f"{fault}.")
        return line

    def _inflate(self) -> bool:
        """Whether more came out of the compressed stream."""
        piece = self._inflater.read() if self._inflater is not None else b""
        self._heard(piece)
        return bool(piece)
