"""The queue's `Transport` over SMTP and LMTP: queue files to `Relay`, answers to outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.delivery.content_checks import Findings
from mailserver.delivery.outgoing_content import OutgoingContent, OutgoingRules
from mailserver.delivery.relay import Relay
from mailserver.delivery.smtp_mail import Mail, RemoteRecipient
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Outcome, Recipient
from mailserver.tables.table import TableError
from mailserver.threads import Threads


class RemoteTransport:
    """Hands mail to other servers. `find` gives a transport's relay, None where there is none.

    `log` gets a service's name, and a line.
    """

    def __init__(
        self,
        find: Callable[[str], Relay | None],
        threads: Threads,
        log: Callable[[str, str], None] = lambda service, text: None,
    ) -> None:
        self._find = find
        self._threads = threads
        self._log = log

    async def deliver(self, mail: Outgoing) -> Sequence[Outcome]:
        """See `Transport.deliver`."""
        relay = self._find(mail.transport)
        if relay is None:
            text = f"mail transport unavailable: {mail.transport} is none that this server has"
            return [Outcome.deferred(text, "4.3.5", "none")] * len(mail.recipients)
        try:
            if relay.rules:
                content, wire = await self._threads.run(self._on_the_wire, mail, relay.rules)
            else:
                content, wire = self._on_the_wire(mail, relay.rules)
        except (TableError, TemporaryAccountFailure) as error:
            return [Outcome.deferred(str(error), "4.3.5", "none")] * len(mail.recipients)
        except OSError as error:
            return _unreadable(mail, error)
        try:
            self._log_findings(mail, content.findings)
            if relay.sends_xforward:
                wire = replace(wire, client=_client(mail))
            return await relay.deliver(mail.nexthop, wire)
        except (TableError, TemporaryAccountFailure) as error:
            return [Outcome.deferred(str(error), "4.3.5", "none")] * len(mail.recipients)
        except OSError as error:
            return _unreadable(mail, error)
        finally:
            content.close()

    def service(self, transport: str) -> str:
        """See `Transport.service`."""
        relay = self._find(transport)
        if relay is None:
            return "error"
        return "lmtp" if relay.is_lmtp else "smtp"

    def _on_the_wire(self, mail: Outgoing, rules: OutgoingRules) -> tuple[OutgoingContent, Mail]:
        """*Blocking* where there are rules. Raises TableError, OSError."""
        envelope = mail.envelope
        sender = str(rules.change(envelope.sender)) if envelope.sender is not None else ""
        recipients = tuple(_remote(each, rules) for each in mail.recipients)
        content = OutgoingContent(mail, rules)

        async def read(offset: int, length: int) -> bytes:
            return await self._threads.run(content.read, offset, length)

        return content, Mail(
            sender=sender,
            recipients=recipients,
            octets=content.octets,
            read=read,
            is_8bit=envelope.body == "8BITMIME",
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            is_probe=mail.is_probe,
        )

    def _log_findings(self, mail: Outgoing, findings: Findings) -> None:
        """What smtp_header_checks and their like found, in smtp(8)'s form."""
        service = self.service(mail.transport)
        for action, word, content, text in findings.notes:
            kind = word.rpartition(" ")[2]
            if action == "unsupported":
                self._log(service, f"warning: unsupported command in {service}_{kind}_checks map: {text}")
            else:
                line = f"{mail.queue_id}: {action}: {kind} {content}"
                self._log(service, f"{line}: {text}" if text else line)


def _unreadable(mail: Outgoing, error: OSError) -> Sequence[Outcome]:
    text = f"queue file read error: {error.strerror}"
    return [Outcome.deferred(text, "4.3.0", "none")] * len(mail.recipients)


def _remote(recipient: Recipient, rules: OutgoingRules) -> RemoteRecipient:
    return RemoteRecipient(str(rules.change(recipient.address)), recipient.notify, recipient.orcpt)


def _client(mail: Outgoing) -> tuple[tuple[str, str], ...]:
    """Whose mail it is, as XFORWARD says it."""
    client = mail.envelope.client
    known = {"NAME": client.name, "ADDR": client.address, "PROTO": client.protocol, "HELO": client.helo}
    source = "REMOTE" if client.protocol else "LOCAL"
    return (*known.items(), ("IDENT", mail.queue_id), ("SOURCE", source))
