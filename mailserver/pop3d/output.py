"""Messages as POP3 sends them. RFC 1939 §3, §7.

A message gets its blank line after the header where it has none, and loses its NULs: clients
hang on either. Lines that begin with a dot get another; the whole message is looked at at
once, so no border between chunks can lose one. NUL becomes 0x80, as in Dovecot.
"""

from __future__ import annotations

from typing import Final

from mailserver.message.header import header_end

_NUL_STAND_IN: Final = b"\x80"
END: Final = b".\r\n"


def multiline(content: bytes) -> bytes:
    """The message as the body of a multi-line response, the closing dot included."""
    if b"\0" in content:
        content = content.replace(b"\0", _NUL_STAND_IN)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if not (content.startswith(b"\r\n") or b"\r\n\r\n" in content):
        content += b"\r\n"
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    stuffing = b"." if content.startswith(b".") else b""
    return stuffing + content + END


def top(content: bytes, lines: int) -> bytes:
    """The header, the blank line and so many lines of the body."""
    end = header_end(content)
    for _ in range(lines):
        newline = content.find(b"\n", end)
        if newline < 0:
            return content
        end = newline + 1
    return content[:end]
