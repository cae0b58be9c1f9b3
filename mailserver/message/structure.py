"""IMAP's BODY and BODYSTRUCTURE as wire bytes. RFC 3501 §7.4.2, RFC 9051 §7.5.2.

A multipart without parts, which the grammar cannot say, is answered as one that holds an
empty text part, as Dovecot does.
"""

from __future__ import annotations

from typing import Final

from mailserver.message.imap_envelope import envelope_of_header, nstring, string
from mailserver.message.mime import Description, Disposition, Part, parse
from mailserver.message.parameters import Parameters, find

BODY_KIND: Final = "body.2"  # for Mailbox.facts; raise them whenever the octets change
BODYSTRUCTURE_KIND: Final = "bodystructure.2"

_US_ASCII: Final = (b"charset", b"us-ascii")
_NO_PART: Final = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0'


def render_body(content: bytes) -> bytes:
    """BODY of a message, for `Mailbox.facts`."""
    return render_structure(content, parse(content), extended=False)


def render_bodystructure(content: bytes) -> bytes:
    """BODYSTRUCTURE of a message, for `Mailbox.facts`."""
    return render_structure(content, parse(content), extended=True)


def render_structure(content: bytes, part: Part, extended: bool) -> bytes:
    """BODY of a part, or BODYSTRUCTURE where `extended`. At most `mime.DEEPEST` calls deep."""
    said = part.said
    if part.is_multipart:
        children = b"".join([render_structure(content, child, extended) for child in part.children])
        children = children or _NO_PART + (b" NIL NIL NIL NIL)" if extended else b")")
        rest = b" " + _parameters(said.parameters) + _extension(said) if extended else b""
        return b"(%b %b%b)" % (children, string(said.subtype), rest)
    return b"(%b%b)" % (
        _single(content, part, extended),
        b" " + nstring(said.md5) + _extension(said) if extended else b"",
    )


def _single(content: bytes, part: Part, extended: bool) -> bytes:
    said = part.said
    basic = b"%b %b %b %b %b %b %d" % (
        string(said.type),
        string(said.subtype),
        _parameters(_with_charset(said)),
        nstring(said.identifier),
        nstring(said.description),
        string(said.encoding),
        part.body.end - part.body.start,
    )
    if part.is_message:
        inner = part.children[0]
        envelope = envelope_of_header(content[inner.header.start : inner.header.end])
        return b"%b %b %b %d" % (basic, envelope, render_structure(content, inner, extended), part.lines)
    if said.type.lower() == b"text":
        return b"%b %d" % (basic, part.lines)
    return basic


def _with_charset(said: Description) -> Parameters:
    """The parameters; a text part without a charset is us-ascii. RFC 2045 §5.2."""
    if said.type.lower() != b"text" or find(said.parameters, b"charset") is not None:
        return said.parameters
    return (*said.parameters, _US_ASCII)


def _parameters(parameters: Parameters) -> bytes:
    if not parameters:
        return b"NIL"
    return b"(%b)" % b" ".join([string(text) for pair in parameters for text in pair])


def _extension(said: Description) -> bytes:
    """Disposition, language and location, each with a space before it."""
    languages = b" ".join(map(string, said.language))
    return b" %b %b %b" % (
        _disposition(said.disposition),
        b"(%b)" % languages if languages else b"NIL",
        nstring(said.location),
    )


def _disposition(disposition: Disposition | None) -> bytes:
    if disposition is None:
        return b"NIL"
    return b"(%b %b)" % (string(disposition.kind), _parameters(disposition.parameters))
