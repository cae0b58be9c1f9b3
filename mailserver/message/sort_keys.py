"""What SORT and THREAD compare: base subjects, addresses, message ids. RFC 5256 §2."""

from __future__ import annotations

import re
from typing import Final

from mailserver.message.addresses import MISSING_MAILBOX, parse_addresses
from mailserver.message.text import decode_words, fold, from_raw

_SPACES: Final = re.compile(r"[ \t\r\n]+")
_TRAILER: Final = re.compile(r"(?:\(fwd\)|[ ])\Z", re.IGNORECASE)
_REFWD: Final = re.compile(r"(?:re|fwd?)[ ]*+(?:\[[^\[\]]*+\][ ]*+)?:", re.IGNORECASE)
_BLOB: Final = re.compile(r"\[[^\[\]]*+\][ ]*+")
_FORWARD: Final = re.compile(r"\[fwd:(.*)\]\Z", re.IGNORECASE | re.DOTALL)
_MESSAGE_ID: Final = re.compile(rb'<((?>(?:"[^"<>]*+"|[^<>"\s])+))>')
_LONGEST: Final = 2000  # characters of a subject that are looked at


def base_subject(subject: bytes) -> tuple[str, bool]:
    """The folded base subject of an unfolded Subject, and whether it marks a reply or forward.

    RFC 5256 §2.1.
    """
    text = _SPACES.sub(" ", decode_words(subject))[:_LONGEST]
    is_reply = False
    while True:
        text, trimmed = _without_trailers(text)
        text, led = _without_leaders(text)
        is_reply = is_reply or trimmed or led
        forward = _FORWARD.fullmatch(text)
        if forward is None:
            return fold(text), is_reply
        text, is_reply = forward[1], True


def _without_trailers(text: str) -> tuple[str, bool]:
    is_forward = False
    while found := _TRAILER.search(text):
        is_forward = is_forward or found[0] != " "
        text = text[: found.start()]
    return text, is_forward


def _without_leaders(text: str) -> tuple[str, bool]:
    """Steps 3 to 5; a blob goes only where something is left, or a `Re:` follows."""
    is_reply = False
    while True:
        text = text.lstrip(" ")
        position = 0
        while blob := _BLOB.match(text, position):
            position = blob.end()
        if found := _REFWD.match(text, position):
            text, is_reply = text[found.end() :], True
        elif (blob := _BLOB.match(text)) and blob.end() < len(text):
            text = text[blob.end() :]
        else:
            return text, is_reply


def capitals(text: str) -> str:
    """The folded text in capital letters: `[` and `_` come after them. RFC 5051 §2 (i;unicode-casemap)."""
    return text.upper()


def mailbox_key(value: bytes) -> str:
    """The folded mailbox of the first address: SORT FROM, TO, CC. RFC 5256 §3."""
    for address in parse_addresses(value):
        if address.mailbox and address.mailbox != MISSING_MAILBOX:
            return fold(from_raw(address.mailbox))
    return ""


def display_key(value: bytes) -> str:
    """The folded display name of the first address, or the address: DISPLAYFROM, DISPLAYTO. RFC 5957 §3."""
    for address in parse_addresses(value):
        if address.is_group_mark:
            return fold(decode_words(address.mailbox or b""))
        return fold(decode_words(address.name)) if address.name else fold(from_raw(address.spec))
    return ""


def message_ids(value: bytes) -> tuple[bytes, ...]:
    """The message ids in a References, In-Reply-To or Message-ID field, without angle brackets.

    Quoted local parts lose their quotes, so that equal ids are equal. RFC 5256 §3 (REFERENCES).
    """
    return tuple([found.replace(b'"', b"") for found in _MESSAGE_ID.findall(value)])


def references(references_value: bytes, in_reply_to: bytes) -> tuple[bytes, ...]:
    """The ancestors, oldest first: References, or the first id of In-Reply-To where that has none."""
    return message_ids(references_value) or message_ids(in_reply_to)[:1]
