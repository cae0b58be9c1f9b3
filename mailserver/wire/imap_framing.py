"""Cuts the octets of an IMAP client into commands: lines, and the literals inside them.

The protocol feeds what arrives and asks for the next event when it is ready to act on it, so
that nothing is cut (and no literal is invited) before the command in front is done. What is
refused is thrown away exactly: the octets of an announced literal and the rest of its
command never run as commands. All buffers are bounded by `Limits`.

RFC 3501 §2.2.1, RFC 7888 (LITERAL+, LITERAL-).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_LITERAL: Final = re.compile(rb"\{([0-9]{1,20})(\+?)\}\r?\n\Z")
_APPEND: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+ +(?:APPEND|(?:UID +)?REPLACE) ', re.IGNORECASE)
_TAG: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+')
MOST_LITERALS: Final = 100  # in one command other than APPEND and REPLACE


@dataclass(frozen=True, slots=True)
class Limits:
    """Octets: `line` of a command's text, `literals` in all, `message` one of APPEND's literals.

    `is_strict` (before login): whatever is too large ends the connection.
    """

    line: int
    literals: int
    message: int
    is_strict: bool = False

    @property
    def messages(self) -> int:
        """Octets of all the literals of one APPEND (RFC 3502): held in memory together."""
        return 2 * self.message


@dataclass(frozen=True, slots=True)
class CommandText:
    """A whole command: its text without the last CR LF, and its literals in order."""

    text: bytes
    literals: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Continue:
    """The client waits for `+` before it sends a literal of that many octets."""

    octets: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A command was thrown away: too long, or with too large a literal (`is_too_big`)."""

    tag: bytes
    is_too_big: bool


@dataclass(frozen=True, slots=True)
class Fatal:
    """The client cannot be followed any longer: say BYE and close."""

    text: str


Event = CommandText | Continue | Refused | Fatal


class CommandReader:
    """Octets in (`feed`), events out (`next_event`, or `next_line` where no command is expected)."""

    __slots__ = ("_buffer", "_dropping", "_literals", "_searched", "_text", "_wanted", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._buffer = bytearray()
        self._searched = 0  # no line end before this index
        self._reset()

    def _reset(self) -> None:
        self._text: list[bytes] = []
        self._literals: list[bytes] = []
        self._wanted = -1  # octets of the literal that is arriving; -1: a line is
        self._dropping: Refused | None = None

    def feed(self, data: bytes) -> None:
        """The octets are kept until events take them."""
        self._buffer += data

    @property
    def pending(self) -> int:
        """Octets that no event has taken yet."""
        return len(self._buffer)

    @property
    def is_at_command(self) -> bool:
        """Whether the next octet is a command's first."""
        return not (self._buffer or self._text or self._dropping is not None or self._wanted >= 0)

    def take_pending(self) -> bytes:
        """The octets that no event has taken yet, now the caller's (STARTTLS, a session handed over)."""
        pending = bytes(self._buffer)
        self._buffer = bytearray()
        self._searched = 0
        return pending

    def next_line(self, limit: int) -> bytes | Fatal | None:
        """One line without its end (after `+`, during IDLE); None where it is not whole yet."""
        line = self._take_line(limit)
        if line is None and len(self._buffer) > limit:
            return self._fatal("Line too long")
        return None if line is None else line.rstrip(b"\r\n")

    def next_event(self) -> Event | None:
        """What has become whole; None where more octets are needed."""
        while self._buffer or not self._wanted:
            if self._wanted >= 0:
                if not self._take_literal():
                    return None
                continue
            line = self._take_line(self.limits.line + 2)
            if line is None:
                if len(self._buffer) <= self.limits.line + 2:
                    return None
                event = self._overlong()
            else:
                event = self._line(line)
            if event is not None:
                return event
        return None

    def _take_line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched, limit)
        if end < 0:
            self._searched = min(len(self._buffer), limit)
            return None
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    def _overlong(self) -> Event | None:
        """A line longer than allowed is thrown away as it arrives; its end may hold a literal."""
        if self.limits.is_strict:
            return self._fatal("Command line too long")
        self._drop(is_too_big=False)
        end = self._buffer.find(b"\n")
        end = len(self._buffer) if end < 0 else end
        del self._buffer[: max(0, end - 32)]  # what is left can show a literal at the line's end
        self._searched = 0
        return None

    def _fatal(self, text: str) -> Fatal:
        self.take_pending()
        self._reset()
        return Fatal(text)

    def _drop(self, is_too_big: bool) -> None:
        if self._dropping is None:
            start = self._text[0] if self._text else bytes(self._buffer[:1000])
            found = _TAG.match(start)
            self._dropping = Refused(found.group() if found else b"*", is_too_big)
        self._text, self._literals = self._text[:1], []

    def _line(self, line: bytes) -> Event | None:
        announced = _LITERAL.search(line, max(0, len(line) - 32))
        if self._dropping is not None:
            return self._dropped_line(announced)
        self._text.append(line)
        if announced is None:
            return self._complete()
        return self._announce(int(announced[1]), is_waiting=not announced[2])

    def _complete(self) -> Event:
        if sum(map(len, self._text)) > self.limits.line + 2:
            return self._refuse(is_too_big=False)
        text = b"".join(self._text)
        text = text[:-2] if text.endswith(b"\r\n") else text[:-1]
        command = CommandText(text, tuple(self._literals))
        self._reset()
        return command

    def _dropped_line(self, announced: re.Match[bytes] | None) -> Event | None:
        refused = self._dropping
        if announced is not None and announced[2]:
            self._wanted = int(announced[1])
            return None
        self._reset()
        return refused

    def _refuse(self, is_too_big: bool) -> Event:
        self._drop(is_too_big)
        refused = self._dropping
        assert refused is not None
        self._reset()
        return refused

    def _announce(self, octets: int, is_waiting: bool) -> Event | None:
        is_append = _APPEND.match(self._text[0]) is not None and not self.limits.is_strict
        if self._fits(octets, is_append):
            self._normalise_line_end()
            self._wanted = octets
            return Continue(octets) if is_waiting else None
        if is_waiting:
            return self._refuse(is_too_big=True)
        if self.limits.is_strict or octets > 2**32:
            return self._fatal("Literal size too large")
        self._drop(is_too_big=True)
        self._wanted = octets
        return None

    def _fits(self, octets: int, is_append: bool) -> bool:
        held = sum(map(len, self._literals))
        if sum(map(len, self._text)) > self.limits.line + 2:
            return False
        if is_append:
            return octets <= self.limits.message and held + octets <= self.limits.messages
        return len(self._literals) < MOST_LITERALS and held + octets <= self.limits.literals

    def _normalise_line_end(self) -> None:
        if not self._text[-1].endswith(b"\r\n"):
            self._text[-1] = self._text[-1][:-1] + b"\r\n"

    def _take_literal(self) -> bool:
        """Whether the literal is whole; its octets, refused ones too, leave the buffer."""
        if self._dropping is not None:
            taken = min(self._wanted, len(self._buffer))
            del self._buffer[:taken]
            self._wanted -= taken
            self._searched = 0
            if self._wanted:
                return False
            self._wanted = -1
            return True
        if len(self._buffer) < self._wanted:
            return False
        self._literals.append(bytes(self._buffer[: self._wanted]))
        del self._buffer[: self._wanted]
        self._searched = 0
        self._wanted = -1
        return True
