"""What a transcript of a session may show: the dialogue, no message content, no password.

Octets of one direction in, lines for people out. Of IMAP all literals are left out, and quoted strings that
are content (BODY[…], RFC822…, PREVIEW); of a client's side nothing is shown from a command on that carries or
leads to a password. What is left out is told by its number of octets. RFC 3501 §4.3, RFC 4616.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_LINE: Final = 1000  # octets of a line that are shown
_MOST_HELD: Final = 1_048_576  # octets of a line without its end
_LITERAL: Final = re.compile(rb"\{([0-9]{1,20})\+?\}\r?\n\Z")
_CONTENT: Final = re.compile(
    rb"((?:BODY\[[^\]]*\]|BINARY\[[^\]]*\]|RFC822(?:\.TEXT|\.HEADER)?|PREVIEW)(?:<[0-9]+>)?)"
    rb' "((?:[^"\\]|\\.)*)"',
    re.IGNORECASE,
)
_LOGIN: Final = re.compile(
    rb"(\s*\S+\s+(?:LOGIN|AUTHENTICATE|UNAUTHENTICATE)|\s*(?:PASS|APOP|AUTH))\b.*", re.IGNORECASE | re.DOTALL
)


class Redaction:
    """One direction of one session, after the login. `has_literals` is true of IMAP."""

    def __init__(self, has_literals: bool, is_client: bool) -> None:
        self._has_literals = has_literals
        self._is_client = is_client
        self._is_over = False
        self._held = bytearray()
        self._skip = 0  # octets of a literal that are still to come

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that have become whole, without their ends, printable."""
        lines: list[bytes] = []
        if self._is_over:
            return lines
        self._held += data
        while self._held and not self._is_over:
            skipped = min(self._skip, len(self._held))
            self._skip -= skipped
            del self._held[:skipped]
            end = self._held.find(b"\n") + 1
            if self._skip or not end:
                break
            line = bytes(self._held[:end])
            del self._held[:end]
            lines.append(self._line(line))
        if len(self._held) > _MOST_HELD:
            self._is_over = True
            lines.append(b"[a line is too long to be followed: the rest is left out]")
        return lines

    def _line(self, line: bytes) -> bytes:
        if self._is_client and (login := _LOGIN.match(line)):
            self._is_over = True
            return b"%b [the rest of what the client says is left out]" % shown(login[1])
        if not self._has_literals:
            return shown(line)
        literal = _LITERAL.search(line)
        if literal is not None:
            self._skip = int(literal[1])
        if not self._is_client:
            line = _CONTENT.sub(lambda found: b'%b "[%d octets]"' % (found[1], len(found[2])), line)
        text = shown(line)
        return text + b" [%d octets]" % self._skip if literal is not None else text


def shown(line: bytes) -> bytes:
    """The line without its end, `?` for what is not printable ASCII, cut where it is long."""
    text = re.sub(rb"[^\x20-\x7e]", b"?", line.rstrip(b"\r\n"))
    if len(text) <= LONGEST_LINE:
        return text
    return text[:LONGEST_LINE] + b"... [%d more octets]" % (len(text) - LONGEST_LINE)
