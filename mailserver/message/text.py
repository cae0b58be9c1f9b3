"""Message text as Unicode, for SEARCH and SORT.

Encoded words and charsets are decoded as far as they can be; what cannot is read as
windows-1252, so that every octet remains findable. `fold` makes two spellings of the same
text equal: letter case and compatibility forms, as i;unicode-casemap wants (RFC 5255 §4.6).
"""

from __future__ import annotations

import binascii
import codecs
import re
import unicodedata
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from mailserver.message.header import LARGEST_HEADER, unfold
from mailserver.message.mime import Part, parse
from mailserver.message.parameters import find
from mailserver.message.section import UnknownEncoding, decode

_ENCODED_WORD: Final = re.compile(rb"=\?([^?\s*]{1,60})(?:\*[^?\s]{0,60})?\?([bBqQ])\?([^?\r\n]*+)\?=")
_REFUSED: Final = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"})
_FALLBACK: Final = "latin-1"
_ACCENTS: Final = re.compile("[\u0300-\u036f]+")


def fold(text: str) -> str:
    """The text with case and compatibility forms levelled; equal for what a search calls equal."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())


def without_accents(folded: str) -> str:
    """The folded text without the accents of Latin, Greek and Cyrillic letters, which stand alone in it."""
    return folded if folded.isascii() else _ACCENTS.sub("", folded)


def from_charset(octets: bytes, charset: str) -> str:
    """The octets as text; an unknown charset or broken text is read as UTF-8 or Latin-1."""
    if octets.isascii() and not charset.lower().startswith(("utf-16", "utf-32", "utf-7", "iso-2022", "hz")):
        return octets.decode("ascii")
    try:
        name = codecs.lookup(charset).name
        if name not in _REFUSED and b"\0" not in charset.encode():
            return octets.decode(name, "replace")
    except (LookupError, ValueError, UnicodeError):
        pass
    return from_raw(octets)


def from_raw(octets: bytes) -> str:
    """Octets whose charset nobody named: UTF-8 where they are, else Latin-1. RFC 6532 §3.1."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode(_FALLBACK)


def decode_words(value: bytes) -> str:
    """A header field's unfolded value with its encoded words decoded. RFC 2047 §6.

    White space between two encoded words is dropped; characters split between words of one
    charset are put together again.
    """
    if b"=?" not in value:
        return from_raw(value)
    pieces: list[tuple[str, bytes]] = []
    position = 0
    for word in _ENCODED_WORD.finditer(value):
        between = value[position : word.start()]
        if between.strip() or not pieces:
            pieces.append(("", between))
        _add(pieces, word[1].decode("ascii", "replace").lower(), _word_octets(word[2], word[3]))
        position = word.end()
    pieces.append(("", value[position:]))
    return "".join([from_charset(octets, name) if name else from_raw(octets) for name, octets in pieces])


def _add(pieces: list[tuple[str, bytes]], charset: str, octets: bytes) -> None:
    if pieces and pieces[-1][0] == charset and not charset.startswith("iso-2022"):
        octets = pieces.pop()[1] + octets
    pieces.append((charset, octets))


def _word_octets(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"bB":
        return decode(text, b"base64")
    return binascii.a2b_qp(text, header=True)


def header_text(header: bytes) -> str:
    """All fields of one header, unfolded and decoded, one a line."""
    block = header[:LARGEST_HEADER]
    unfolded = re.sub(rb"\r?\n(?=[ \t])", b"", block)
    return decode_words_by_line(unfolded)


def decode_words_by_line(block: bytes) -> str:
    """Each line decoded; only lines with encoded words or 8-bit octets cost anything."""
    if b"=?" not in block:
        return from_raw(block)
    return "\r\n".join([decode_words(line) for line in block.split(b"\r\n")])


def headers_text(content: bytes, message: Part) -> str:
    """The headers of the message, of its parts and of messages within: names of files are found in them."""
    return "\r\n".join(_headers(content, message))


def _headers(content: bytes, message: Part) -> Iterator[str]:
    for part in message.walk():
        yield header_text(content[part.header.start : part.header.end])
        disposition = part.said.disposition.parameters if part.said.disposition else ()
        for name, value in (*part.said.parameters, *disposition):
            if name.endswith(b"*"):
                yield _extended(value)


def _extended(value: bytes) -> str:
    """The text of a parameter's value `charset'language'text%20with%20octets`. RFC 2231 §4."""
    charset, _, rest = value.partition(b"'")
    octets = unquote_to_bytes(rest.partition(b"'")[2])
    return from_charset(octets, charset.decode("ascii", "replace"))


def body_text(content: bytes, message: Part) -> str:
    """The text of all text parts, decoded. No header field is in it (RFC 9051 §6.4.4)."""
    parts = (
        part for part in message.walk() if not part.children and not part.is_multipart and _is_text(part)
    )
    return "\n".join([part_text(content, part) for part in parts])


def _is_text(part: Part) -> bool:
    return part.said.type.lower() in (b"text", b"message")


def part_text(content: bytes, part: Part) -> str:
    """The decoded text of one part."""
    octets = content[part.body.start : part.body.end]
    try:
        octets = decode(octets, part.said.encoding)
    except UnknownEncoding:
        pass  # RFC 2045 §6.4: opaque; its octets stay findable as they are
    charset = find(part.said.parameters, b"charset") or b""
    return from_charset(octets, charset.decode("ascii", "replace")) if charset else from_raw(octets)


def searchable(content: bytes) -> tuple[str, str]:
    """Headers and body of a message, folded: a text is in it if its fold is."""
    message = parse(content)
    return fold(headers_text(content, message)), fold(body_text(content, message))


def field_text(body: bytes) -> str:
    """A raw field body, unfolded and decoded."""
    return decode_words(unfold(body))
