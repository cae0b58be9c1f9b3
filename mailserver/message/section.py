"""What BODY[section] and BINARY[section] name in a parsed message.

Part numbers count from 1. In a message that is no multipart, part 1 is its body; the number
of a message/rfc822 part leads into the message inside. RFC 3501 §6.4.5, RFC 3516 §4.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Sequence
from typing import Final

from mailserver.message.header import selected
from mailserver.message.mime import Part, Span

_TRAILING_SPACE: Final = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\Z)")
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]")


class UnknownEncoding(ValueError):
    """The part's Content-Transfer-Encoding cannot be decoded: UNKNOWN-CTE. RFC 3516 §4.3."""


def find_part(message: Part, numbers: Sequence[int]) -> Part | None:
    """The part of that number, the message itself for no number, None where there is none."""
    current = message
    for depth, number in enumerate(numbers):
        container: Part | None = current
        if depth and not current.is_multipart:
            container = current.children[0] if current.is_message else None
        if container is None:
            return None
        if container.is_multipart:
            if number > len(container.children):
                return None
            current = container.children[number - 1]
        elif number == 1:
            current = container
        else:
            return None
    return current


def section_span(message: Part, numbers: Sequence[int], text: str) -> Span | None:
    """Where the section lies in the content, or None where the message has no such section.

    `text` is "", HEADER, TEXT or MIME; HEADER of a part needs a message/rfc822 part.
    """
    part = find_part(message, numbers)
    if part is None:
        return None
    if text == "MIME":
        return part.header if numbers else None
    if not numbers:
        return Span(0, message.body.end) if not text else _half(message, text)
    if not text:
        return part.body
    return _half(part.children[0], text) if part.is_message else None


def _half(message: Part, text: str) -> Span:
    return message.header if text.startswith("HEADER") else message.body


def section_bytes(
    content: bytes, message: Part, numbers: Sequence[int], text: str, fields: Collection[bytes] = ()
) -> bytes | None:
    """The octets of the section, or None (NIL). `fields`, in lower case, for HEADER.FIELDS and .NOT."""
    span = section_span(message, numbers, text)
    if span is None:
        return None
    octets = content[span.start : span.end]
    if text.startswith("HEADER.FIELDS"):
        return selected(octets, fields, exclude=text.endswith("NOT"))
    return octets


def decode(octets: bytes, encoding: bytes) -> bytes:
    """The octets without their Content-Transfer-Encoding. Raises UnknownEncoding.

    What is no base64 or quoted-printable inside is skipped or kept, never an error.
    RFC 2045 §6.7, §6.8.
    """
    encoding = encoding.lower()
    if encoding in (b"7bit", b"8bit", b"binary"):
        return octets
    if encoding == b"quoted-printable":
        return binascii.a2b_qp(_TRAILING_SPACE.sub(b"", octets))
    if encoding == b"base64":
        return _from_base64(octets)
    raise UnknownEncoding(encoding.decode("ascii", "replace"))


def _from_base64(octets: bytes) -> bytes:
    """All that can be decoded, runs that were padded one by one included."""
    try:
        return binascii.a2b_base64(octets)
    except binascii.Error:
        digits = _NOT_BASE64.sub(b"", octets)
        digits = digits[: len(digits) - (len(digits) % 4 == 1)]
        return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def binary(content: bytes, message: Part, numbers: Sequence[int]) -> bytes | None:
    """BINARY[numbers]: the decoded body of a part, or None. Raises UnknownEncoding.

    A multipart or a message has nothing to be decoded as a whole. RFC 3516 §4.2.
    """
    part = find_part(message, numbers)
    if part is None:
        return None
    if not numbers:
        return content
    octets = content[part.body.start : part.body.end]
    return octets if part.children or part.is_multipart else decode(octets, part.said.encoding)
