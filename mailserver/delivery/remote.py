"""The queue's `Transport` over SMTP: queue files to `Relay`, answers to outcomes."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.delivery.relay import Relay
from mailserver.delivery.smtp_client import Mail, RemoteRecipient
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Outcome, Recipient
from mailserver.tables.table import TableError
from mailserver.threads import Threads


class RemoteTransport:
    """Hands mail to other hosts. `find` gives a transport's relay, None where there is no such transport."""

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
            return await relay.deliver(mail.nexthop, self._on_the_wire(mail))
        except (TableError, TemporaryAccountFailure) as error:
            return [Outcome.deferred(str(error), "4.3.5", "none")] * len(mail.recipients)

    def _on_the_wire(self, mail: Outgoing) -> Mail:
        def read(offset: int, length: int) -> Awaitable[bytes]:
            return self._threads.run(os.pread, mail.descriptor, length, mail.content_offset + offset)

        envelope = mail.envelope
        return Mail(
            sender=str(envelope.sender) if envelope.sender is not None else "",
            recipients=tuple(map(_remote, mail.recipients)),
            octets=mail.content_length,
            read=read,
            is_8bit=envelope.body == "8BITMIME",
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
        )


def _remote(recipient: Recipient) -> RemoteRecipient:
    return RemoteRecipient(str(recipient.address), recipient.notify, recipient.orcpt)
