"""The queue's `Transport` over SMTP and LMTP: queue files to `Relay`, answers to outcomes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.delivery.header_rewriting import HeaderRewriting
from mailserver.delivery.relay import Relay
from mailserver.delivery.smtp_client import Mail, RemoteRecipient
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Address, Outcome, Recipient
from mailserver.tables.table import TableError
from mailserver.threads import Threads

_LARGEST_HEADER: Final = 1 << 20  # octets of header that generic maps see


class RemoteTransport:
    """Hands mail to other servers. `find` gives a transport's relay, None where there is none."""

    def __init__(self, find: Callable[[str], Relay | None], threads: Threads) -> None:
        self._find = find
        self._threads = threads

    async def deliver(self, mail: Outgoing) -> Sequence[Outcome]:
        """See `Transport.deliver`."""
        relay = self._find(mail.transport)
        if relay is None:
            text = f"mail transport unavailable: {mail.transport} is none that this server has"
            return [Outcome.deferred(text, "4.3.5", "none")] * len(mail.recipients)
        try:
            if relay.generic is None:
                wire = self._on_the_wire(mail, None)
            else:
                wire = await self._threads.run(self._on_the_wire, mail, relay.generic)
            if relay.sends_xforward:
                wire = replace(wire, client=_client(mail))
            return await relay.deliver(mail.nexthop, wire)
        except (TableError, TemporaryAccountFailure) as error:
            return [Outcome.deferred(str(error), "4.3.5", "none")] * len(mail.recipients)
        except OSError as error:
            text = f"queue file read error: {error.strerror}"
            return [Outcome.deferred(text, "4.3.0", "none")] * len(mail.recipients)

    def service(self, transport: str) -> str:
        """See `Transport.service`."""
        relay = self._find(transport)
        if relay is None:
            return "error"
        return "lmtp" if relay.is_lmtp else "smtp"

    def _on_the_wire(self, mail: Outgoing, generic: Callable[[Address], Address] | None) -> Mail:
        """*Blocking* where there are generic maps. Raises TableError, OSError."""
        envelope = mail.envelope
        change = generic or _as_it_is
        rewrite = HeaderRewriting(change, change)
        start, old_start = _rewritten_header(mail, rewrite) if generic else (b"", 0)

        async def read(offset: int, length: int) -> bytes:
            head = start[offset : offset + length]
            position = mail.content_offset + old_start + max(offset - len(start), 0)
            missing = length - len(head)
            return head + await self._threads.run(os.pread, mail.descriptor, missing, position)

        return Mail(
            sender=str(change(envelope.sender)) if envelope.sender is not None else "",
            recipients=tuple(_remote(each, change) for each in mail.recipients),
            octets=len(start) + mail.content_length - old_start,
            read=read,
            is_8bit=envelope.body == "8BITMIME",
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
        )


def _rewritten_header(mail: Outgoing, rewrite: HeaderRewriting) -> tuple[bytes, int]:
    """The header as it goes out, and how many octets of the content it replaces."""
    head = os.pread(mail.descriptor, min(_LARGEST_HEADER, mail.content_length), mail.content_offset)
    end = head.find(b"\n\n") + 1
    return (rewrite(head[:end]), end) if end else (b"", 0)


def _as_it_is(address: Address) -> Address:
    return address


def _remote(recipient: Recipient, change: Callable[[Address], Address]) -> RemoteRecipient:
    return RemoteRecipient(str(change(recipient.address)), recipient.notify, recipient.orcpt)


def _client(mail: Outgoing) -> tuple[tuple[str, str], ...]:
    """Whose mail it is, as XFORWARD says it."""
    client = mail.envelope.client
    known = {"NAME": client.name, "ADDR": client.address, "PROTO": client.protocol, "HELO": client.helo}
    source = "REMOTE" if client.protocol else "LOCAL"
    return (*known.items(), ("IDENT", mail.queue_id), ("SOURCE", source))
