"""How mail leaves for other hosts: the interface between the queue and whoever speaks to them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailserver.envelope import Envelope, Outcome, Recipient


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for one next hop.

    `envelope` has the sender to use and only the recipients that go this way. The content is
    `content_length` octets at `content_offset` of `descriptor`, LF line ends; the descriptor
    stays open until the delivery is answered and must be read with pread. Where it is a probe nothing is
    delivered: what is asked is whether it would be taken.
    """

    queue_id: str
    transport: str
    nexthop: str
    envelope: Envelope
    descriptor: int
    content_offset: int
    content_length: int
    is_probe: bool = False

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """Those whose outcomes `Transport.deliver` gives, in this order."""
        return self.envelope.recipients


class Transport(Protocol):
    """Hands messages to next hops."""

    def deliver(self, mail: Outgoing) -> Awaitable[Sequence[Outcome]]:
        """One outcome for each of `mail.recipients`, in order. Never fails."""

    def service(self, transport: str) -> str:
        """The word for the transport in the log: that of Postfix's daemon for such a delivery."""


class NamedTransport(Transport, Protocol):
    """A transport that says which names it has."""

    def __contains__(self, transport: str) -> bool: ...


class Transports:
    """Two as one: the first has the names that it contains, the last one all others."""

    def __init__(self, first: NamedTransport, last: Transport) -> None:
        self._first = first
        self._last = last

    def deliver(self, mail: Outgoing) -> Awaitable[Sequence[Outcome]]:
        """See `Transport.deliver`."""
        return self._of(mail.transport).deliver(mail)

    def service(self, transport: str) -> str:
        """See `Transport.service`."""
        return self._of(transport).service(transport)

    def _of(self, transport: str) -> Transport:
        return self._first if transport in self._first else self._last


class NoRelay:
    """Stands where no transport is configured: everything waits, with the reason."""

    async def deliver(self, mail: Outgoing) -> Sequence[Outcome]:
        """See `Transport.deliver`."""
        text = f"relaying to {mail.nexthop} is not configured yet"
        return [Outcome.deferred(text, "4.4.1", relay="none")] * len(mail.recipients)

    def service(self, transport: str) -> str:
        """See `Transport.service`."""
        return "smtp"
