"""Lines that arrived and wait for their turn. RFC 1939 §3."""

from __future__ import annotations

from collections import deque


class LineTooLong(Exception):
    """The line at the front has no end within the limit."""


class LineQueue:
    """Octets in, whole lines out. `held` counts the octets that wait, unfinished lines included.

    A line ends with CRLF; a bare LF is taken too. Nothing is copied twice however many
    lines arrive at once.
    """

    def __init__(self) -> None:
        self.held = 0
        self._lines: deque[bytes] = deque()  # without their newline
        self._rest = b""

    def add(self, octets: bytes) -> None:
        """The octets wait."""
        self.held += len(octets)
        lines = (self._rest + octets).split(b"\n")
        self._rest = lines.pop()
        self._lines.extend(lines)

    def take(self, limit: int) -> bytes | None:
        """The next line without its end, None where it is not whole yet.

        Raises LineTooLong where it has more than `limit` octets.
        """
        line = self._lines[0] if self._lines else self._rest
        if len(line) > limit:
            raise LineTooLong
        if not self._lines:
            return None
        self._lines.popleft()
        self.held -= len(line) + 1
        return line.removesuffix(b"\r")

    def take_all(self) -> bytes:
        """Everything that waits, as it came; nothing waits any more."""
        pending = b"\n".join([*self._lines, self._rest])
        self._lines.clear()
        self._rest, self.held = b"", 0
        return pending
