"""IMAP's ENVELOPE, and the strings that IMAP answers are made of, as wire bytes.

Strings are quoted where the grammar allows it and literals where it does not (8-bit, line
ends); NUL, which neither may hold, becomes U+FFFD. Encoded words stay encoded.
RFC 3501 §7.4.2, §9; RFC 9051 §7.5.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from mailserver.message.addresses import MailAddress, parse_addresses
from mailserver.message.header import header_end, scan, verbatim

ENVELOPE_KIND: Final = "envelope.2"  # for Mailbox.facts; raise it whenever the octets change

_QUOTABLE: Final = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]*")
_TO_ESCAPE: Final = re.compile(rb'(["\\])')
_NOT_QUOTABLE: Final = re.compile(rb"[\x00\r\n\x80-\xff]")
_TEXTS: Final = (b"date", b"subject", b"in-reply-to", b"message-id")
_ADDRESSES: Final = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
_LONGEST_NAME: Final = 30  # octets of a field's name that is worth remembering
_SHORT: Final = 500  # octets of a list of addresses that is worth remembering
_VERBATIM: Final = frozenset(_TEXTS) - {b"subject"}
_WANTED: Final = frozenset(_TEXTS + _ADDRESSES)


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
    field the last counts, repeated address fields are one list, and runs of white space in a Subject
    and in names are one space, as Dovecot has it.
    """
    texts: dict[bytes, bytes] = {}
    people: dict[bytes, bytes] = {}
    for name, body in scan(header):
        key = _key(name) if len(name) <= _LONGEST_NAME else _key.__wrapped__(name)
        if not key:
            continue
        if key in _VERBATIM:
            texts[key] = verbatim(body)
            continue
        value = b" ".join(body[1:].split())
        if key == b"subject":
            texts[key] = value
        else:
            people[key] = people[key] + b"," + value if key in people else value
    lists = {key: _people(value) for key, value in people.items()}
    author = lists.get(b"from", b"NIL")
    for key in (b"sender", b"reply-to"):
        if lists.get(key, b"NIL") == b"NIL":
            lists[key] = author
    date, subject, in_reply_to, message_id = [
        string(texts[key]) if key in texts else b"NIL" for key in _TEXTS
    ]
    addresses = b" ".join([lists.get(key, b"NIL") for key in _ADDRESSES])
    return b"(%b %b %b %b %b)" % (date, subject, addresses, in_reply_to, message_id)


@lru_cache(maxsize=1024)
def _key(spelt: bytes) -> bytes:
    """The name of a field of interest in lower case, b"" for another's."""
    key = spelt.lower().rstrip()
    return key if key in _WANTED else b""


def _people(value: bytes) -> bytes:
    """The addresses of an unfolded field value: the same few fill whole mailboxes."""
    return _remembered_people(value) if len(value) <= _SHORT else address_list(parse_addresses(value))


@lru_cache(maxsize=4096)
def _remembered_people(value: bytes) -> bytes:
    return address_list(parse_addresses(value))


def render_envelope(content: bytes) -> bytes:
    """The ENVELOPE of a message as wire bytes, parentheses included; for `Mailbox.facts`."""
    return envelope_of_header(content[: header_end(content)])
