"""The milters of an SMTP session: what they are told, and what their answers mean to the client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailserver.milter.chain import MilterChain
from mailserver.milter.connection import Connect
from mailserver.milter.rules import TEMPFAILED, Discarded, MilterRules, Refusal, Verdict
from mailserver.smtpd import verdict as smtpd_verdict
from mailserver.tables.table import TableError
from mailserver.wire import milter

if TYPE_CHECKING:
    from mailserver.smtpd.reception import Reception
    from mailserver.smtpd.session import Session
    from mailserver.smtpd.transaction import Transaction

_DISCARDED: Final = "milter triggers DISCARD action"


@dataclass(frozen=True, slots=True)
class Milters:
    """What a listener's sessions need to ask milters. `macros` are those that never change.

    `by_client` gives the milters for an address instead of `rules`; it may block, and raise TableError.
    """

    rules: Sequence[MilterRules]
    connect: Connect
    warn: Callable[[str], None]
    macros: Mapping[str, str] = field(default_factory=dict)
    by_client: Callable[[str], Sequence[MilterRules]] | None = None


class SessionMilters:
    """The milters of one session. Each method gives a refusal, already in the log; None: go on."""

    def __init__(self, session: Session, milters: Milters) -> None:
        self._session = session
        self._milters = milters
        self._chain = self._new_chain(())

    def _new_chain(self, rules: Sequence[MilterRules]) -> MilterChain:
        milters = self._milters
        return MilterChain(rules, milters.connect, self._values, milters.warn)

    async def _rules(self) -> Sequence[MilterRules]:
        """The milters of this client. Raises TableError."""
        find, session = self._milters.by_client, self._session
        if find is None:
            return self._milters.rules
        return await session.services.threads.run(find, session.request.address)

    async def connected(self) -> Refusal | None:
        """A client has come, or is somebody else from now on."""
        self._chain.close()
        try:
            self._chain = self._new_chain(await self._rules())
        except TableError as error:
            self._milters.warn(str(error))
            return self._refusal(TEMPFAILED, "CONNECT")
        request, facts = self._session.request, self._facts()
        port = facts["client_port"]
        return self._refusal(
            await self._chain.connected(
                request.client_name, request.address, int(port) if port.isdigit() else 0
            ),
            "CONNECT",
        )

    async def helo(self, name: str, verb: str) -> Refusal | None:
        """HELO or EHLO."""
        return self._refusal(await self._chain.command(milter.HELO, name), verb)

    async def mail(self, address: str, parameters: bytes) -> Refusal | None:
        """MAIL, with its parameters as they were sent."""
        return self._of_message(
            await self._chain.command(milter.MAIL, f"<{address}>", *parameters.split()), "MAIL"
        )

    async def rcpt(self, address: str, parameters: bytes) -> Refusal | None:
        """RCPT, likewise."""
        return self._of_message(
            await self._chain.command(milter.RCPT, f"<{address}>", *parameters.split()), "RCPT"
        )

    async def data(self, verb: str) -> Refusal | None:
        """DATA, or the first BDAT."""
        return self._of_message(await self._chain.command(milter.DATA), verb)

    async def unknown(self, line: bytes) -> Refusal | None:
        """A command that this server does not know."""
        return self._refusal(await self._chain.command(milter.UNKNOWN, line), "UNKNOWN")

    async def let_in(self, transaction: Transaction, reception: Reception) -> bool:
        """Whether the milters take the message, which is as they want it then; else the client was told.

        Raises ContentRefused and OSError: nothing is left of it.
        """
        session = self._session
        content = await reception.for_milters(session.settings.message_size_limit)
        if transaction.effects.discard or reception.findings.discard:
            return True
        verdict = await self._chain.content(content, session.services.threads)
        if isinstance(verdict, Refusal):
            self._log(reception, transaction, "reject", f"{verdict.dsn} {verdict.text}")
            reception.discard()
            session.refused_by_milter(verdict)
            return False
        if isinstance(verdict, Discarded) or not content.envelope.recipients:
            self._log(reception, transaction, "discard", _DISCARDED)
            transaction.effects.discard = _DISCARDED
        elif content.quarantine:
            self._log(reception, transaction, "hold", f"milter triggers HOLD action: {content.quarantine}")
        await reception.change(content)
        return True

    def _log(self, reception: Reception, transaction: Transaction, action: str, text: str) -> None:
        """In cleanup(8)'s form."""
        session, sender = self._session, transaction.mail.sender or ""
        words = f"from=<{sender}> to=<{transaction.recipients[0].address}> proto={session.protocol}"
        words += f" helo=<{session.helo}>" if session.helo else ""
        line = f"milter-{action}: END-OF-MESSAGE from {session.client}: {text}; {words}"
        session.services.log.write("cleanup", f"{reception.queue_id}: {line}")

    def forget_message(self) -> None:
        """The message is over."""
        self._chain.forget_message()

    def close(self) -> None:
        """The session is over."""
        self._chain.close()

    def _of_message(self, verdict: Verdict, command: str) -> Refusal | None:
        if isinstance(verdict, Discarded):
            self._session.mail.discard(_DISCARDED)
            return None
        return self._refusal(verdict, command)

    def _refusal(self, verdict: Verdict, command: str) -> Refusal | None:
        if not isinstance(verdict, Refusal):
            return None
        said = smtpd_verdict.Verdict(verdict.code, verdict.dsn, verdict.text)
        self._session.log_reject("milter-reject", command, said)
        return verdict

    # What macros stand for.

    def _facts(self) -> Mapping[str, str]:
        facts = self._session.request_at(smtpd_verdict.Stage.CONNECT).facts
        return facts() if facts is not None else {}

    def _values(self) -> Mapping[str, str]:
        session, facts = self._session, self._facts()
        request = session.request
        sender, recipient = session.mail.asked()
        return {
            **self._milters.macros,
            "j": session.settings.myhostname,
            "_": f"{request.client_name} [{request.address}]",
            "i": facts.get("queue_id", ""),
            "daemon_addr": facts["server_address"],
            "daemon_port": facts["server_port"],
            "client_addr": request.address,
            "client_name": request.client_name,
            "client_port": facts["client_port"],
            "client_ptr": request.reverse_name,
            "tls_version": facts["encryption_protocol"],
            "cipher": facts["encryption_cipher"],
            "cipher_bits": facts["encryption_keysize"].strip("0") and facts["encryption_keysize"],
            "cert_subject": facts["ccert_subject"],
            "cert_issuer": facts["ccert_issuer"],
            "auth_type": session.sasl_method,
            "auth_authen": session.login,
            "mail_addr": str(sender or ""),
            "mail_host": sender.domain if sender is not None else "",
            "rcpt_addr": str(recipient or ""),
            "rcpt_host": recipient.domain if recipient is not None else "",
        }
