"""Addresses in headers, made what canonical_maps, masquerade_domains or smtp_generic_maps want.

On the way in only for clients of our own (local_header_rewrite_clients): headers from elsewhere, which
may be signed, are never touched. On the way out by smtp_generic_maps. An address that stands in its field
as it is written on the wire is replaced there, between angle brackets where it has them; names, comments
and folds keep their octets. cleanup(8), generic(5).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mailserver.envelope import Address
from mailserver.message.addresses import MISSING_DOMAIN, MISSING_MAILBOX, parse_addresses
from mailserver.message.header import unfold
from mailserver.wire.address import AddressError, parse_lenient

_FIELD: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:([^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))")
_SENDERS: Final = frozenset(
    prefix + name for name in (b"from", b"sender", b"reply-to") for prefix in (b"", b"resent-")
) | {b"errors-to", b"return-receipt-to", b"disposition-notification-to", b"mail-reply-to"}
_RECIPIENTS: Final = frozenset(
    prefix + name for name in (b"to", b"cc", b"bcc") for prefix in (b"", b"resent-")
) | {b"apparently-to", b"mail-followup-to"}
_ATOM: Final = rb"A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-"

Change = Callable[[Address], Address]


@dataclass(frozen=True, slots=True)
class HeaderRewriting:
    """What becomes of addresses of senders and recipients. Both may block, and raise TableError."""

    sender: Change
    recipient: Change

    def __call__(self, header: bytes) -> bytes:
        """The header (whole fields, LF line ends) with its addresses rewritten."""
        return _FIELD.sub(self._field, header)

    def _field(self, found: re.Match[bytes]) -> bytes:
        name = found[1].lower()
        if name in _SENDERS:
            return _rewritten(found[0], found[2], self.sender)
        return _rewritten(found[0], found[2], self.recipient) if name in _RECIPIENTS else found[0]


def _rewritten(field: bytes, value: bytes, change: Change) -> bytes:
    for each in dict.fromkeys(parse_addresses(unfold(value))):
        if each.host in (None, MISSING_DOMAIN) or each.mailbox in (None, b"", MISSING_MAILBOX):
            continue
        try:
            old = parse_lenient(each.spec.decode("utf-8"))
        except (AddressError, UnicodeDecodeError):
            continue
        new = change(old)
        if new != old:
            field = _replaced(field, each.spec, str(new).encode())
    return field


def _replaced(field: bytes, old: bytes, new: bytes) -> bytes:
    """The field with the address replaced where it stands as an address."""
    if b"<" + old + b">" in field:
        return field.replace(b"<" + old + b">", b"<" + new + b">")
    return re.sub(rb"(?<![%b])%b(?![%b])" % (_ATOM, re.escape(old), _ATOM), lambda found: new, field)
