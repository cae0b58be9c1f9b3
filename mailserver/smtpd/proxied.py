"""Messages that pass through a proxy filter: the client's transaction as the filter hears it.

Nothing is queued here: what the client hears of the message is what the filter says of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from mailserver.delivery.smtp_client import PIECE
from mailserver.smtpd.proxy import Dialogue, ProxyFilter
from mailserver.smtpd.session_facts import session_facts
from mailserver.smtpd.verdict import Verdict
from mailserver.wire.smtp import SmtpError

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session
    from mailserver.smtpd.transaction import Transaction


class ProxiedReception:
    """A message on its way through the filter, in place of a `Reception`. It has no queue id."""

    queue_id: Final = ""

    def __init__(self, dialogue: Dialogue, size_limit: int, own: bytes) -> None:
        """`own` are the fields that we put before it."""
        self._dialogue = dialogue
        self._limit = size_limit
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._failure: SmtpError | None = None
        self._is_sending = False
        self._is_discarded = False
        self.octets = 0
        if own:
            self.add(own)

    def add(self, content: bytes) -> None:
        """See `Reception.add`."""
        self.octets += len(content)
        if self._failure is None and self._limit and self.octets > self._limit:
            self._failure = SmtpError(552, "5.3.4", "Error: message file too big")
            self._pieces.clear()
        if self._failure is None:
            self._pieces.append(content)
            self._waiting += len(content)

    @property
    def wants_flush(self) -> bool:
        """See `Reception.wants_flush`."""
        return self._failure is None and self._waiting >= PIECE

    async def flush(self) -> None:
        """What waited is on its way to the filter. A failure is kept to the content's end."""
        content = b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        self._is_sending = True
        try:
            await self._dialogue.send(content)
        except SmtpError as error:
            self._failure = self._failure or error
        self._is_sending = False
        if self._is_discarded:
            self._dialogue.close()

    async def finish(self) -> Verdict:
        """What the client hears: the filter's own reply, or that something failed. The dialogue is over."""
        if self._failure is None:
            await self.flush()
        try:
            if self._failure is not None:
                raise self._failure
            return await self._dialogue.end()
        except SmtpError as error:
            return Verdict(error.code, error.dsn, error.text)
        finally:
            self._dialogue.close()

    def discard(self) -> None:
        """Nothing comes of the message."""
        self._is_discarded = True
        if not self._is_sending:
            self._dialogue.close()


async def ask_filter(session: Session, proxy: ProxyFilter, transaction: Transaction, argument: bytes) -> None:
    """The filter takes the recipient, and before the first one the sender. Raises SmtpError."""
    if transaction.filter is None:
        client = _client_attributes(session)
        transaction.filter = proxy.new_dialogue(session.services.threads, transaction.command, client)
        try:
            await transaction.filter.begin()
        except SmtpError:
            if transaction.filter is not None:
                transaction.filter.close()
            transaction.filter = None
            raise
        session.log(f"NOQUEUE: client={session.origin}")
    await transaction.filter.rcpt(f"RCPT {argument.decode('utf-8', 'replace')}")


async def pass_on(session: Session, transaction: Transaction, reception: ProxiedReception) -> Verdict:
    """What the filter says to the whole message; it is in the log, in smtpd(8)'s form."""
    transaction.filter = None  # the reception ends the dialogue, whether or not the client stays
    if transaction.effects.bcc:
        session.log("warning: with smtpd_proxy_filter specified, action BCC is unavailable")
    verdict = await reception.finish()
    words = f"from=<{transaction.mail.sender or ''}> to=<{transaction.recipients[0].address}>"
    words += f" proto={'ESMTP' if session.is_esmtp else 'SMTP'}"
    words += f" helo=<{session.helo}>" if session.helo else ""
    said = " ".join(filter(None, (str(verdict.code), verdict.dsn, verdict.text)))
    outcome = "accept" if verdict.code < 400 else "reject"
    session.log(f"proxy-{outcome}: END-OF-MESSAGE: {said}; {words}")
    return verdict


def _client_attributes(session: Session) -> Mapping[str, str]:
    """Whose mail it is: what XFORWARD said to us, or what we see. "" is what is not known."""
    source = "LOCAL" if session.is_local else "REMOTE"
    if session.forwarded.values:
        return {**session.forwarded.values, "SOURCE": source}
    request = session.request
    address = f"IPV6:{request.address}" if ":" in request.address else request.address
    return {
        "NAME": request.client_name if request.client_name != "unknown" else "",
        "ADDR": address,
        "PORT": session_facts(session)["client_port"],
        "HELO": session.helo,
        "PROTO": "ESMTP" if session.is_esmtp else "SMTP",
        "SOURCE": source,
    }
