"""Parts in binary, as APPEND may bring them, in a form that any store and any reader can take.

A part whose Content-Transfer-Encoding is `binary` and that holds NUL or bare line ends becomes base64: its
content is the same, and BINARY gives it back as it came. RFC 3516 §4.3, RFC 2045 §6.2.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Final

from mailserver.message.header import scan
from mailserver.message.mime import Part, parse

_UNFIT: Final = re.compile(rb"\0|(?<!\r)\n|\r(?!\n)")
_LINE: Final = 57  # octets that make a line of 76 characters


def without_binary(content: bytes) -> bytes:
    """The message with its unfit binary parts in base64; unchanged where it has none."""
    if b"\0" not in content and content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r"):
        return content
    pieces: list[bytes] = []
    end = len(content)
    for part in reversed([part for part in parse(content).walk() if _is_unfit(part, content)]):
        encoded = _base64(content[part.body.start : part.body.end])
        at_end = b"\r\n" if part.body.end == len(content) else b""
        pieces += [content[part.body.end : end], at_end, encoded]
        pieces.append(_header(content[part.header.start : part.header.end]))
        end = part.header.start
    return b"".join([content[:end], *reversed(pieces)])


def _is_unfit(part: Part, content: bytes) -> bool:
    if part.children or part.is_multipart or part.said.encoding.lower() != b"binary":
        return False
    return _UNFIT.search(content, part.body.start, part.body.end) is not None


def _header(header: bytes) -> bytes:
    fields = (
        b"Content-Transfer-Encoding: base64\r\n"
        if name.strip().lower() == b"content-transfer-encoding"
        else name + body
        for name, body in scan(header)
    )
    return b"".join(fields) + b"\r\n"


def _base64(octets: bytes) -> bytes:
    lines = (b2a_base64(octets[at : at + _LINE], newline=False) for at in range(0, len(octets), _LINE))
    return b"\r\n".join(lines)
