"""Mail transactions: MAIL, RCPT, and the content by DATA, or by BDAT and BURL, up to the queue.

A transaction is one value, made by MAIL and dropped by RSET, by the end of its content however that
ended, and whenever the session is introduced anew: there is nothing else to reset (RELIABILITY
§6, rule 2). Invariant: content is taken only with an accepted MAIL and at least one accepted RCPT
of this transaction.

The answer to the end of content is a 250 after the queue's fsync, 5xx for a fact about the message,
and 451 for every fault of ours (RELIABILITY P1, P5).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from mailserver.envelope import Address, Client, Envelope, Recipient
from mailserver.queue.cleanup import ContentRefused
from mailserver.queue.direct import Delivered
from mailserver.queue.file import QueueFile
from mailserver.smtpd.connection import Work
from mailserver.smtpd.proxied import ProxiedReception, ask_filter, pass_on
from mailserver.smtpd.proxy import Dialogue
from mailserver.smtpd.received import missing_fields, received_field
from mailserver.smtpd.reception import Reception
from mailserver.smtpd.verdict import Effects, Stage, Verdict
from mailserver.wire.address import is_numeric
from mailserver.wire.lines import ChunkDecoder, DataDecoder
from mailserver.wire.smtp import MailCommand, SmtpError, parse_bdat, parse_burl, parse_mail, parse_rcpt

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session

_log: Final = Logger()
_GO_ON: Final = "End data with <CR><LF>.<CR><LF>"
_MOST_DISCARDED: Final = (
    2**30
)  # octets of a refused chunk that are waited for: a larger one ends the connection


@dataclass(slots=True)
class Transaction:
    """One mail transaction. `chunks` is the decoder of BDAT, None before the first chunk."""

    mail: MailCommand
    recipients: list[Recipient] = field(default_factory=list)
    effects: Effects = field(default_factory=Effects)
    command: str = ""  # as the client wrote it
    filter: Dialogue | None = None  # of smtpd_proxy_filter, once a recipient was accepted
    reception: Reception | ProxiedReception | None = None
    chunks: ChunkDecoder | None = None
    has_failed: bool = False  # a chunk was refused: the rest of them is swallowed
    number: int = field(default_factory=count(1).__next__)
    queue_id: str = ""  # once content may come


class MailTransactions:
    """The mail transactions of one session, one after the other."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._current: Transaction | None = None
        self._overshoot = 0
        self._data: DataDecoder | None = None
        self._chunk_left = 0
        self._chunk_size = 0
        self._chunk_is_last = False
        self.is_receiving = False  # content is expected: the command that announced it goes on
        self._asked: Address | None = None  # the sender or recipient being decided, for the log
        self._opening: Transaction | None = None  # whose MAIL is being decided

    @property
    def is_open(self) -> bool:
        """Whether MAIL was accepted."""
        return self._current is not None

    def where(self) -> str:
        """What of the content was under way, for the log; "" where none was."""
        transaction = self._current
        if transaction is None or transaction.reception is None:
            return ""
        if self._data is not None and self._data.is_finished:
            return "END-OF-MESSAGE"
        return f"{'DATA' if self._data is not None else 'BDAT'} ({transaction.reception.octets} bytes)"

    def log_words(self) -> list[str]:
        """`from=<…> to=<…>`, as far as they are known."""
        words = []
        if self._current is not None:
            words.append(f"from=<{_text(self._current.mail.sender)}>")
            if self._asked is not None:
                words.append(f"to=<{self._asked}>")
        elif self._asked is not None:
            words.append(f"from=<{self._asked}>")
        return words

    def facts(self) -> Mapping[str, str]:
        """What a policy server is told of the transaction; `instance` is the same in all its questions."""
        transaction = self._current
        reception = transaction.reception if transaction is not None else None
        if transaction is None:
            return {"instance": f"{os.getpid():x}.{id(self):x}", "size": "0"}
        return {
            "instance": f"{os.getpid():x}.{id(self):x}.{transaction.number:x}",
            "queue_id": transaction.queue_id,
            "size": str(reception.octets if reception is not None else transaction.mail.size),
        }

    def forget(self) -> None:
        """There is no transaction; what was received of its content is thrown away."""
        transaction, self._current = self._current, None
        self._data = None
        self.is_receiving = False
        if transaction is not None and transaction.reception is not None:
            transaction.reception.discard()
        elif transaction is not None and transaction.filter is not None:
            transaction.filter.close()
        if self._session.milters is not None:
            self._session.milters.forget_message()
        self._session.forwarded.forget()

    def asked(self) -> tuple[Address | None, Address | None]:
        """Sender and recipient that are being decided, or known."""
        if self._current is None:
            return self._asked, None
        return self._current.mail.sender, self._asked

    def discard(self, why: str) -> None:
        """The message will be taken, and go nowhere."""
        transaction = self._current or self._opening
        if transaction is not None:
            transaction.effects.discard = why

    # ------------------------------------------------------------ MAIL

    def mail(self, argument: bytes) -> Work:
        """The MAIL command."""
        session, settings = self._session, self._session.settings
        if settings.helo_required and not session.helo:
            raise SmtpError(503, "5.5.1", "Error: send HELO/EHLO first")
        if settings.tls_required and not session.wire.is_tls:
            raise SmtpError(530, "5.7.0", "Must issue a STARTTLS command first")
        if self._current is not None:
            what = "MAIL after BDAT" if self._current.chunks is not None else "nested MAIL command"
            raise SmtpError(503, "5.5.1", f"Error: {what}")
        command = parse_mail(argument)
        if command.sender is not None:
            error = SmtpError(501, "5.1.7", "Bad sender address syntax")
            self._require_plausible(command.sender, argument, error)
        self._require_room(command.size)
        if session.rates.must_look_up:
            return self._look_up_rates(command, argument)
        return self._begin(command, argument)

    async def _look_up_rates(self, command: MailCommand, argument: bytes) -> None:
        await self._session.rates.look_up()
        work = self._begin(command, argument)
        if work is not None:
            await work

    def _begin(self, command: MailCommand, argument: bytes) -> Work:
        session = self._session
        session.rates.count("message")
        transaction = Transaction(command, command=f"MAIL {argument.decode('utf-8', 'replace')}")
        if session.services.policy.decides("sender") or session.milters is not None:
            return self._ask_sender(transaction, argument)
        self._open(transaction)
        return None

    async def _ask_sender(self, transaction: Transaction, argument: bytes) -> None:
        session, sender = self._session, transaction.mail.sender
        self._asked, self._opening = sender, transaction
        request = session.request_at(Stage.MAIL, sender)
        decision = await session.services.policy.sender(request, transaction.effects)
        refused = session.apply(decision, "MAIL")
        if session.milters is not None and not refused:
            parameters = argument.rpartition(b">")[2]
            refused = session.refused_by_milter(await session.milters.mail(_text(sender), parameters))
        self._asked = self._opening = None
        if not refused:
            self._open(transaction)

    def _open(self, transaction: Transaction) -> None:
        self._current = transaction
        self._overshoot = 0
        self._session.reply(250, "2.1.0", "Ok")

    def _require_plausible(self, address: Address, argument: bytes, error: SmtpError) -> None:
        """Raises the error at what trivial-rewrite(8) refuses: a name that programs take for an option."""
        settings = self._session.settings
        is_option = address.local.startswith("-") and not settings.allow_min_user
        is_number = is_numeric(address.domain) and not settings.resolve_numeric_domain
        has_brackets = argument.partition(b":")[2].lstrip(b" ").startswith(b"<")
        if is_option or is_number or (settings.strict_rfc821_envelopes and not has_brackets):
            raise error

    def _require_room(self, size: int) -> None:
        session, limit = self._session, self._session.settings.message_size_limit
        if limit and size > limit:
            raise self._rejected(552, "5.3.4", "Message size exceeds fixed limit")
        try:
            has_room = session.services.queue.has_room(size)
        except OSError as error:
            session.log(f"warning: cannot tell the free space of the queue: {error}")
            raise SmtpError(451, "4.3.0", "Error: queue file write error") from None
        if not has_room:
            raise self._rejected(452, "4.3.1", "Insufficient system storage")

    def _rejected(self, code: int, dsn: str, text: str) -> SmtpError:
        """The refusal of a MAIL command, already in the log."""
        self._session.log_reject("reject", "MAIL", Verdict(code, dsn, text))
        return SmtpError(code, dsn, text)

    # ------------------------------------------------------------ RCPT

    def rcpt(self, argument: bytes) -> Work:
        """The RCPT command."""
        transaction, settings = self._current, self._session.settings
        if transaction is None:
            raise SmtpError(503, "5.5.1", "Error: need MAIL command")
        if transaction.chunks is not None:
            raise SmtpError(503, "5.5.1", "Error: RCPT after BDAT")
        recipient = parse_rcpt(argument, transaction.mail.smtputf8)
        error = SmtpError(501, "5.1.3", "Bad recipient address syntax")
        self._require_plausible(recipient.address, argument, error)
        if settings.recipient_limit and len(transaction.recipients) >= settings.recipient_limit:
            self._too_many()
            return None
        self._session.rates.count("recipient")
        return self._ask_recipient(transaction, recipient, argument)

    def _too_many(self) -> None:
        """The recipient may come again; that counts as an error only for a client that does not stop."""
        self._overshoot += 1
        error = SmtpError(452, "4.5.3", "Error: too many recipients")
        if self._overshoot > self._session.settings.recipient_overshoot_limit:
            raise error
        self._session.wire.reply(error.code, error.dsn, error.text)

    async def _ask_recipient(self, transaction: Transaction, recipient: Recipient, argument: bytes) -> None:
        session = self._session
        self._asked = recipient.address
        count = len(transaction.recipients) + 1
        request = session.request_at(Stage.RCPT, transaction.mail.sender, recipient.address, count)
        decision = await session.services.policy.recipient(request, transaction.effects)
        refused = session.apply(decision, "RCPT")
        if session.milters is not None and not refused:
            parameters = argument.rpartition(b">")[2]
            refusal = await session.milters.rcpt(str(recipient.address), parameters)
            refused = session.refused_by_milter(refusal)
        try:
            if session.services.proxy is not None and not refused:
                await ask_filter(session, session.services.proxy, transaction, argument)
        finally:
            self._asked = None
        if not refused:
            transaction.recipients.append(recipient)
            session.reply(250, "2.1.5", "Ok")

    # ------------------------------------------------------------ DATA

    def data(self, argument: bytes) -> Work:
        """The DATA command, up to the invitation."""
        if argument:
            raise SmtpError(501, "5.5.4", "Syntax: DATA")
        transaction = self._require_recipients()
        if transaction.chunks is not None:
            raise SmtpError(503, "5.5.1", "Error: DATA after BDAT")
        session = self._session
        if session.settings.forbid_unauth_pipelining and session.wire.has_waiting_input:
            session.refuse_pipelining()
            return None
        if session.services.policy.decides("data") or session.milters or transaction.filter:
            return self._ask_data(transaction)
        self._invite(transaction)
        return None

    async def _ask_data(self, transaction: Transaction) -> None:
        if await self._may_send_content(transaction, "DATA"):
            self._invite(transaction)

    def _require_recipients(self) -> Transaction:
        if self._current is None:
            raise SmtpError(503, "5.5.1", "Error: need RCPT command")
        if not self._current.recipients:
            raise SmtpError(554, "5.5.1", "Error: no valid recipients")
        return self._current

    def _invite(self, transaction: Transaction) -> None:
        session = self._session
        transaction.reception = transaction.reception or self._receive(transaction)
        self._data = DataDecoder(session.bare_newline)
        self.is_receiving = True
        session.wire.reply(354, "", _GO_ON)
        session.wire.consume(self._data_arrived)

    async def _may_send_content(self, transaction: Transaction, command: str) -> bool:
        session = self._session
        count = len(transaction.recipients)
        request = session.request_at(Stage.DATA, transaction.mail.sender, None, count)
        decision = await session.services.policy.data(request, transaction.effects)
        if session.apply(decision, command):
            return False
        if session.milters and not await self._milters_let_content_come(transaction, command):
            return False
        if transaction.filter is not None:
            await transaction.filter.data()
        return True

    async def _milters_let_content_come(self, transaction: Transaction, command: str) -> bool:
        session = self._session
        assert session.milters is not None
        if transaction.filter is None:
            transaction.reception = self._receive(transaction)  # they are told the queue id
        if not session.refused_by_milter(await session.milters.data(command)):
            return True
        reception, transaction.reception = transaction.reception, None
        if reception is not None:
            reception.discard()
        return False

    def _receive(self, transaction: Transaction) -> Reception | ProxiedReception:
        """The message has its Received: field; unless it is proxied, its queue id and a line in the log."""
        session, services = self._session, self._session.services
        is_local = session.is_local
        envelope = self._envelope(transaction)
        arrival = services.now()
        fields = _prepended(transaction)
        if transaction.filter is not None:
            # Where the client is a filter itself (XFORWARD), its own Received: field is enough.
            received = b"" if session.forwarded.values else self._received(envelope, "", arrival)
            limit = session.settings.message_size_limit
            return ProxiedReception(transaction.filter, limit, fields + received)
        adds_copies = session.settings.adds_copies
        reception = Reception(services.queue, envelope, arrival, services.threads, adds_copies, services.take)
        host, queue_id = session.settings.myhostname, reception.queue_id
        transaction.queue_id = queue_id
        received = self._received(envelope, queue_id, arrival)
        adds_fields = is_local or session.settings.always_add_missing_headers
        missing = missing_fields(envelope, queue_id, host, arrival) if adds_fields else {}
        reception.begin(services.make_filter(fields + received, missing, is_local), received)
        session.log(f"{queue_id}: client={session.origin}")
        return reception

    def _received(self, envelope: Envelope, queue_id: str, arrival: float) -> bytes:
        session = self._session
        return received_field(
            envelope,
            queue_id,
            session.settings.myhostname,
            session.settings.mail_name,
            arrival,
            session.settings.sasl_authenticated_header,
            session.certificate.comment
            if envelope.client.tls and session.settings.tls_received_header
            else None,
        )

    def _envelope(self, transaction: Transaction) -> Envelope:
        session, mail = self._session, transaction.mail
        client = Client(
            session.request.client_name,
            session.request.address,
            session.helo,
            session.protocol,
            session.login,
            session.sasl_method,
            session.wire.tls_description(),
        )
        recipients = tuple(transaction.recipients)
        return Envelope(
            mail.sender,
            recipients,
            client,
            mail.body,
            mail.smtputf8,
            mail.ret,
            mail.envid,
            session.settings.content_filter,
        )

    def _data_arrived(self, data: bytes) -> Work:
        """The octets are content, up to its end."""
        decoder, transaction = self._data, self._current
        assert decoder is not None and transaction is not None and transaction.reception is not None
        content = decoder.feed(data)
        if content:
            transaction.reception.add(content)
        if decoder.is_finished:
            return self._content_ends(decoder.rest, self._end_of_data(transaction, decoder))
        return transaction.reception.flush() if transaction.reception.wants_flush else None

    def _content_ends(self, rest: bytes, work: Work) -> Work:
        self.is_receiving = False
        self._session.wire.resume_commands(rest)
        return self._session.finishing(work)

    async def _end_of_data(self, transaction: Transaction, decoder: DataDecoder) -> None:
        if decoder.saw_bare_newline:
            self.forget()
            self._session.refuse_bare_newline()
            return
        queue_id = await self._take(transaction)
        if queue_id:
            self._session.reply(250, "2.0.0", f"Ok: queued as {queue_id}")

    # ------------------------------------------------------------ BDAT

    def bdat(self, argument: bytes) -> Work:
        """The BDAT command: so many octets follow, whatever we think of them. RFC 3030 §2."""
        size, is_last = parse_bdat(argument)
        self._chunk_size, self._chunk_left, self._chunk_is_last = size, size, is_last
        return self._open_chunk()

    async def _open_chunk(self) -> None:
        """The chunk is expected; where it may not come, it is swallowed before the refusal is sent.

        A refused chunk that is too large for that ends the connection at once: its octets are not commands.
        """
        session = self._session
        limit = session.settings.message_size_limit
        refusal = await self._refusal_of_chunk("BDAT")
        if refusal is not None and self._chunk_size > max(limit, _MOST_DISCARDED):
            if not isinstance(refusal, _Answered):
                session.reply_error(SmtpError(521, "5.3.4", "Chunk is too large to be discarded"))
            session.close()
            return
        if self._chunk_left:
            self.is_receiving = True
            session.wire.consume(lambda data: self._chunk_arrived(data, refusal))
        else:
            await self._end_of_chunk(refusal)

    async def _refusal_of_chunk(self, command: str) -> SmtpError | None:
        """Why the chunk may not come, and no other of its message; None where it may."""
        session = self._session
        limit = session.settings.message_size_limit
        try:
            transaction = self._require_recipients()
            if transaction.has_failed:
                raise SmtpError(551, "5.0.0", f"Discarded {self._chunk_size} bytes after earlier error")
            octets = transaction.reception.octets if transaction.reception is not None else 0
            if limit and octets + self._chunk_size > limit:
                raise SmtpError(552, "5.3.4", "Chunk exceeds message size limit")
            if transaction.chunks is None:
                if not await self._may_send_content(transaction, command):
                    raise _Answered
                transaction.chunks = ChunkDecoder(session.bare_newline)
                transaction.reception = transaction.reception or self._receive(transaction)
        except SmtpError as error:
            if self._current is not None:
                self._fail_chunks(self._current)
            return error
        return None

    def _fail_chunks(self, transaction: Transaction) -> None:
        reception, transaction.reception = transaction.reception, None
        transaction.has_failed = True
        if reception is not None:
            reception.discard()

    def _chunk_arrived(self, data: bytes, refusal: SmtpError | None) -> Work:
        chunk, rest = data[: self._chunk_left], data[self._chunk_left :]
        self._chunk_left -= len(chunk)
        transaction = self._current
        reception = transaction.reception if transaction is not None else None
        if (
            refusal is None
            and reception is not None
            and transaction is not None
            and transaction.chunks is not None
        ):
            reception.add(transaction.chunks.feed(chunk))
        if not self._chunk_left:
            return self._content_ends(rest, self._end_of_chunk(refusal))
        return reception.flush() if reception is not None and reception.wants_flush else None

    async def _end_of_chunk(self, refusal: SmtpError | None, dsn: str = "2.0.0") -> None:
        session, transaction, size = self._session, self._current, self._chunk_size
        if refusal is not None:
            if self._chunk_is_last:
                self.forget()
            if not isinstance(refusal, _Answered):
                session.reply_error(refusal)
            return
        assert (
            transaction is not None and transaction.chunks is not None and transaction.reception is not None
        )
        if not self._chunk_is_last:
            session.reply(250, dsn, f"Ok: {size} bytes")
            return
        transaction.reception.add(transaction.chunks.finish())
        if transaction.chunks.saw_bare_newline:
            self.forget()
            session.refuse_bare_newline()
            return
        queue_id = await self._take(transaction)
        if queue_id:
            session.reply(250, dsn, f"Ok: {size} bytes queued as {queue_id}")

    # ------------------------------------------------------------ BURL

    def burl(self, argument: bytes) -> Work:
        """The BURL command: what the URL names is the next chunk, or the message fails. RFC 4468 §3.2."""
        if not self._session.login:
            raise SmtpError(530, "5.7.0", "Authentication required")
        url, self._chunk_is_last = parse_burl(argument)
        self._chunk_size = self._chunk_left = 0
        return self._fetch_chunk(url)

    async def _fetch_chunk(self, url: bytes) -> None:
        refusal = await self._refusal_of_chunk("BURL")
        if refusal is None and self._current is not None:
            refusal = await self._add_chunk(self._current, url)
        if refusal is not None or self._current is not None:  # else the client left meanwhile
            await self._end_of_chunk(refusal, "2.5.0")

    async def _add_chunk(self, transaction: Transaction, url: bytes) -> SmtpError | None:
        """Why what the URL names cannot be the next chunk, and no other can; None where it is."""
        session = self._session
        limit, urls = session.settings.message_size_limit, session.services.urls
        assert urls is not None
        try:
            content = await urls.fetch(session.login, url)
            if self._current is not transaction:
                return None  # the client left, and its transaction with it
            reception = transaction.reception
            assert reception is not None and transaction.chunks is not None
            if limit and reception.octets + len(content) > limit:
                raise SmtpError(554, "5.3.4", "Message too big for system")
        except SmtpError as error:
            session.log_reject("reject", "BURL", Verdict(error.code, error.dsn, error.text))
            if self._current is transaction:
                self._fail_chunks(transaction)
            return error
        self._chunk_size = len(content)
        reception.add(transaction.chunks.feed(content))
        if reception.wants_flush:
            await reception.flush()
        return None

    # ------------------------------------------------------------ the end

    async def _take(self, transaction: Transaction) -> str:
        """The message is in the queue, durably; its id, or "" where it was refused and the client told so.

        The transaction is over either way, before anything is waited for.
        """
        session, services = self._session, self._session.services
        reception = transaction.reception
        assert reception is not None
        if services.policy.decides("end_of_data"):
            count = len(transaction.recipients)
            request = session.request_at(Stage.END_OF_MESSAGE, transaction.mail.sender, None, count)
            decision = await services.policy.end_of_data(request, transaction.effects)
            if session.apply(decision, "END-OF-MESSAGE"):
                self.forget()
                return ""
        transaction.reception = None  # from here on it is ours, whether or not the client stays
        if isinstance(reception, ProxiedReception):
            verdict = await pass_on(session, transaction, reception)
            if self._current is transaction:
                self.forget()
            session.answer_for_filter(verdict)
            return ""
        try:
            if session.milters is not None and not await session.milters.let_in(transaction, reception):
                return ""
            taken = await reception.commit(transaction.effects)
        except ContentRefused as refused:
            if not any(action == "reject" for action, *_ in reception.findings.notes):
                verdict = Verdict(refused.code, refused.dsn, refused.text)
                session.log_reject("reject", "END-OF-MESSAGE", verdict)
            session.reply(refused.code, refused.dsn, refused.text)
            return ""
        except OSError as error:
            reception.discard()
            session.log(f"warning: {reception.queue_id}: queue file write error: {error}")
            session.reply(451, "4.3.0", "Error: queue file write error")
            return ""
        finally:
            self._log_findings(reception, transaction)
            if self._current is transaction:
                self.forget()
        lines = [("cleanup", f"{reception.queue_id}: message-id={reception.message_id}")]
        if isinstance(taken, Delivered):
            lines += taken.lines
        services.log.write_all(lines)
        if taken is not None:
            self._hand_over(taken)
        session.forgive()
        return reception.queue_id

    def _log_findings(self, reception: Reception, transaction: Transaction) -> None:
        """What header_checks and their like found, in cleanup(8)'s form."""
        session = self._session
        to = transaction.recipients[0].address
        for action, kind, content, text in reception.findings.notes:
            words = f"from=<{_text(transaction.mail.sender)}> to=<{to}> proto={session.protocol}"
            words += f" helo=<{session.helo}>" if session.helo else ""
            line = f"{reception.queue_id}: {action}: {kind} {content} from {session.client}; {words}"
            session.services.log.write("cleanup", f"{line}: {text}" if text else line)

    def _hand_over(self, taken: QueueFile | Delivered) -> None:
        """Whoever delivers, or has the mailbox open, knows. Should that fail, the message is ours all
        the same: the queue's next scan finds it, and a 451 would only bring it a second time.
        """
        try:
            if isinstance(taken, Delivered):
                taken.tell()
            else:
                self._session.services.accepted(taken)
        except Exception:
            _log.failure("handing {queue_id} over to delivery", queue_id=taken.queue_id)
            if isinstance(taken, QueueFile):
                taken.close()


class _Answered(SmtpError):
    """The client was already told."""

    def __init__(self) -> None:
        super().__init__(554, "5.5.1", "Error: refused")


def _prepended(transaction: Transaction) -> bytes:
    """The fields that access rules put before the message."""
    return "".join(f"{text}\n" for text in transaction.effects.prepend).encode("utf-8", "replace")


def _text(address: Address | None) -> str:
    return "" if address is None else str(address)
