"""IMAP's ENVELOPE, and the strings that IMAP answers are made of, as wire bytes.

Strings are quoted where the grammar allows it and literals where it does not (8-bit, line
ends); NUL, which neither may hold, becomes U+FFFD. Encoded words stay encoded.
RFC 3501 §7.4.2, §9; RFC 9051 §7.5.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from mailserver.message.addresses import MailAddress, parse_addresses
from mailserver.message.header import header_end, scan, unfold

KIND: Final = "envelope.1"  # for Mailbox.facts; raise it whenever the octets change

_QUOTABLE: Final = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]*")
_TO_ESCAPE: Final = re.compile(rb'(["\\])')
_NOT_QUOTABLE: Final = re.compile(rb"[\x00\r\n\x80-\xff]")
_TEXT: Final = (b"date", b"subject", b"in-reply-to", b"message-id")
_ADDRESSES: Final = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
_WANTED: Final = frozenset(_TEXT + _ADDRESSES)


def string(text: bytes) -> bytes:
    """The text as a quoted string, or as a literal where it must be one."""
    if _QUOTABLE.fullmatch(text):
        return b'"%b"' % text
    if not _NOT_QUOTABLE.search(text):
        return b'"%b"' % _TO_ESCAPE.sub(rb"\\\1", text)
    text = text.replace(b"\0", b"\xef\xbf\xbd")
    return b"{%d}\r\n%b" % (len(text), text)


def nstring(text: bytes | None) -> bytes:
    """The text as a string, NIL for None."""
    return b"NIL" if text is None else string(text)


def address_list(addresses: Iterable[MailAddress]) -> bytes:
    """The addresses in parentheses, NIL where there are none."""
    rendered = [b"(%b %b %b %b)" % tuple(map(nstring, address)) for address in addresses]
    return b"(%b)" % b"".join(rendered) if rendered else b"NIL"


def envelope_of_header(header: bytes) -> bytes:
    """The ENVELOPE of a header.

    Sender and Reply-To default to From where they are missing or empty. Of a repeated text
    field the last counts, repeated address fields are one list, as Dovecot has it.
    """
    said: dict[bytes, list[bytes]] = {}
    for name, body in scan(header):
        key = name.lower()
        if key not in _WANTED:
            key = key.rstrip()
            if key not in _WANTED:
                continue
        said.setdefault(key, []).append(_for_humans(body))
    lists = {name: parse_addresses(b",".join(said[name])) for name in _ADDRESSES if name in said}
    texts = {name: address_list(addresses) for name, addresses in lists.items() if addresses}
    author = texts.get(b"from", b"NIL")
    texts = {b"sender": author, b"reply-to": author, **texts}
    date, subject, in_reply_to, message_id = (
        nstring(said[name][-1] if name in said else None) for name in _TEXT
    )
    people = b" ".join([texts.get(name, b"NIL") for name in _ADDRESSES])
    return b"(%b %b %b %b %b)" % (date, subject, people, in_reply_to, message_id)


def render_envelope(content: bytes) -> bytes:
    """The ENVELOPE of a message as wire bytes, parentheses included; for `Mailbox.facts`."""
    return envelope_of_header(content[: header_end(content)])


def _for_humans(body: bytes) -> bytes:
    """The unfolded value; where it was folded or has tabs, runs of white space are one space."""
    value = unfold(body)
    folded = b"\n" in body[:-2] or b"\t" in value
    return b" ".join(value.split()) if folded else value
