"""SMTP replies on the client's side: bytes to `Reply`, bounded whatever the server sends.

RFC 5321 §4.2, RFC 2034.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LONGEST_LINE: Final = 2048  # octets; RFC 5321 §4.5.3.1.5 asks for 512
MOST_LINES: Final = 200
_LINE: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


class ReplyError(Exception):
    """The server does not speak SMTP, or talks without end. The text says which."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. `lines` are without the code, control characters replaced by `?`."""

    code: int
    lines: tuple[str, ...]

    @property
    def is_positive(self) -> bool:
        """2xx or 3xx."""
        return self.code < 400

    @property
    def is_permanent(self) -> bool:
        """5xx."""
        return self.code >= 500

    @property
    def dsn(self) -> str:
        """The enhanced status code, or the general one of the reply's class. RFC 3463 §2."""
        match = _ENHANCED.match(self.lines[-1])
        if match and match[1][0] == str(self.code)[0]:
            return match[1]
        return f"{self.code // 100}.0.0"

    def __str__(self) -> str:
        """As Postfix logs it: the code, then the lines joined by blanks."""
        return f"{self.code} {' '.join(self.lines)}".strip()


class ReplyReader:
    """Takes the server's bytes and gives whole replies."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._lines: list[str] = []

    def __len__(self) -> int:
        """Octets that are no whole line yet, or not looked at."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """The bytes wait to be read."""
        self._buffer += data

    def take(self) -> Reply | None:
        """The next whole reply, None where it has not arrived. Raises ReplyError."""
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r")
            del self._buffer[: end + 1]
            reply = self._add(line)
            if reply is not None:
                return reply
        if len(self._buffer) > LONGEST_LINE:
            raise ReplyError("the reply line is too long")
        return None

    def _add(self, line: bytes) -> Reply | None:
        match = _LINE.fullmatch(line)
        if match is None or len(line) > LONGEST_LINE:
            raise ReplyError("the server's reply is not SMTP")
        text = (match[3] or b"").decode("utf-8", "replace")
        if not text.isprintable():
            text = "".join(char if char.isprintable() else "?" for char in text)
        self._lines.append(text)
        if match[2] == b"-":
            if len(self._lines) >= MOST_LINES:
                raise ReplyError("the reply has too many lines")
            return None
        lines, self._lines = tuple(self._lines), []
        return Reply(int(match[1]), lines)


def parse_extensions(reply: Reply) -> dict[str, str]:
    """What an EHLO reply offers: keyword in upper case to its parameters. RFC 5321 §4.1.1.1."""
    offered: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword.upper().startswith("AUTH="):
            keyword, parameters = "AUTH", keyword[5:] + " " + parameters
        key = keyword.upper()
        offered[key] = f"{offered[key]} {parameters}" if key in offered else parameters
    return offered
