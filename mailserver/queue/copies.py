"""Recipients that the administrator adds to new mail: always_bcc, sender_bcc_maps, recipient_bcc_maps.

They are added when a message from outside is committed, whoever took it, and never to what this server
makes itself (bounces, forwards), so no copy begets another one. An address that the message goes to
anyway is not added. cleanup(8).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from mailserver.delivery.routing import Routing
from mailserver.envelope import Address, Envelope, Recipient
from mailserver.tables.table import Table, TableError
from mailserver.wire.address import AddressError, parse_lenient


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Each field under its main.cf name; `warn` hears of table values that are no address."""

    routing: Routing
    always_bcc: str = ""
    sender_bcc_maps: Sequence[Table] = ()
    recipient_bcc_maps: Sequence[Table] = ()
    warn: Callable[[str], None] = lambda text: None

    def added_to(self, envelope: Envelope) -> Envelope:
        """The envelope with its copies. *Blocking.* Raises OSError where a table cannot be read."""
        try:
            wanted = list(self._wanted(envelope))
        except TableError as error:
            raise OSError(errno.EAGAIN, str(error)) from error
        known = {str(each.address).lower() for each in envelope.recipients}
        new = {str(address).lower(): address for address in wanted if str(address).lower() not in known}
        added = tuple(Recipient(address, str(address)) for address in new.values())
        return replace(envelope, recipients=envelope.recipients + added) if added else envelope

    def _wanted(self, envelope: Envelope) -> Iterator[Address]:
        if self.always_bcc:
            yield from self._parsed(self.always_bcc, "always_bcc")
        if self.sender_bcc_maps and envelope.sender is not None:
            sender = self.routing.canonical_sender(envelope.sender)
            yield from self._found(self.sender_bcc_maps, sender)
        if self.recipient_bcc_maps:
            for recipient in envelope.recipients:
                address = self.routing.canonical_recipient(recipient.address)
                yield from self._found(self.recipient_bcc_maps, address)

    def _found(self, tables: Sequence[Table], address: Address) -> Iterator[Address]:
        entry = self.routing.find_by_address(tables, address)
        if entry is not None:
            yield from self._parsed(entry.value, entry.source)

    def _parsed(self, text: str, source: str) -> Iterator[Address]:
        try:
            yield self.routing.complete(parse_lenient(text.strip()))
        except AddressError as error:
            self.warn(f"{source}: no copy is sent: {text!r}: {error}")


def affected(
    envelope: Envelope, redirect: Address | None, bcc: Sequence[Address], content_filter: str = ""
) -> Envelope:
    """The envelope with REDIRECT, BCC and FILTER carried out."""
    if content_filter:
        envelope = replace(envelope, content_filter=content_filter)
    recipients = envelope.recipients
    if redirect is not None:
        recipients = (Recipient(redirect, str(redirect)),)
    quiet = frozenset(("NEVER",))
    recipients += tuple(Recipient(address, str(address), quiet) for address in bcc)
    return replace(envelope, recipients=recipients) if recipients != envelope.recipients else envelope
