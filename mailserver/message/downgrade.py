"""An internationalized message, for readers that know ASCII headers only. RFC 6858.

It is one where it came by SMTPUTF8, as a Received field says. Others with 8-bit headers are shown as they are
stored: every reader has met them, and their octets stay the same for all.

Free text becomes encoded words, parameters RFC 2231's form, and an address that has no ASCII form one that
is nobody's, with what it was beside it. Fields that can have neither are left out. The body stays as it is.
What is stored is never changed: only what one reader is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from mailserver.message.addresses import MailAddress, parse_addresses
from mailserver.message.fields import encoded, make_field
from mailserver.message.header import header_end, scan, unfold
from mailserver.message.text import decode_words

_BY_SMTPUTF8: Final = re.compile(rb"\swith\s+UTF8[LS]MTP", re.IGNORECASE)  # RFC 6531 §4.3
NOBODY: Final = "invalid@internationalized-address.invalid"  # RFC 6858 §2.1
_ADDRESSES: Final = frozenset(
    {b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"resent-from", b"resent-sender", b"resent-to",
     b"resent-cc", b"resent-bcc", b"return-path", b"disposition-notification-to"}
)  # fmt: skip
_PARAMETERS: Final = frozenset({b"content-type", b"content-disposition"})
_LEFT_OUT: Final = frozenset(
    {b"message-id", b"in-reply-to", b"references", b"received", b"resent-message-id"}
)
_PARAMETER: Final = re.compile(r';\s*([^=;\s*]+)\s*=\s*("(?:[^"\\]|\\.)*"?|[^;\s]*)')
_SPECIAL: Final = re.compile(r"[^\w !#$%&\'*+/=?^`{|}~-]", re.ASCII)


def downgraded(content: bytes) -> bytes:
    """The message, CRLF line ends, with an ASCII header; as it is where it is not internationalized."""
    header = content[: header_end(content)]
    if header.isascii() or not _is_internationalized(header):
        return content
    try:
        header.decode("utf-8")
    except UnicodeDecodeError:
        return content
    fields = b"".join(_fields(header))
    return fields + (b"\r\n" if header.endswith(b"\r\n\r\n") else b"") + content[len(header) :]


def _is_internationalized(header: bytes) -> bool:
    traces = (body for name, body in scan(header) if name.strip().lower() == b"received")
    return any(map(_BY_SMTPUTF8.search, traces))


def _fields(header: bytes) -> Iterator[bytes]:
    for name, body in scan(header):
        if name.isascii() and body.isascii():
            yield name + body
        elif name.isascii() and name.strip().lower() not in _LEFT_OUT:
            value = _value(name.strip().lower(), unfold(body))
            yield make_field(name.decode("ascii").strip(), value).replace(b"\n", b"\r\n")


def _value(name: bytes, value: bytes) -> str:
    if name in _ADDRESSES:
        return "".join(_addresses(parse_addresses(value)))
    text = value.decode("utf-8", "replace")
    if name in _PARAMETERS:
        return encoded(_PARAMETER.sub(_parameter, text))
    return encoded(text)


def _addresses(addresses: Iterable[MailAddress]) -> Iterator[str]:
    """The list in pieces, groups and commas included."""
    comma = ""
    for address in addresses:
        if not address.is_group_mark:
            yield comma + _address(address)
            comma = ", "
        elif address.mailbox is None:
            yield ";"
            comma = ", "
        else:
            yield f"{comma}{_phrase(_text(address.mailbox))}: "
            comma = ""


def _address(address: MailAddress) -> str:
    name, spec = _text(address.name), _text(address.spec)
    if spec.isascii():
        return f"{_phrase(name)} <{spec}>" if name else spec
    shown = f"{name} <{spec}>" if name else spec
    return f"{_phrase(shown)} <{NOBODY}>"


def _text(octets: bytes | None) -> str:
    return decode_words(octets or b"")


def _phrase(text: str) -> str:
    """The text as a display name. RFC 5322 §3.2.5."""
    if not text.isascii():
        return encoded(text)
    if _SPECIAL.search(text):
        return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
    return text


def _parameter(found: re.Match[str]) -> str:
    name, value = found.groups()
    if value.isascii():
        return found[0]
    plain = re.sub(r"\\(.)", r"\1", value.strip('"'))
    return f"; {name}*=utf-8''{quote(plain, safe='')}"
