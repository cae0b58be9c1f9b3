"""One SMTP or LMTP session to one server: greeting, STARTTLS, login, then message after message.

`SmtpClient` is a dialogue in coroutines over Twisted's ESMTPClient, of which it keeps only the
place in the framework: reading, writing, dispatch and stuffing are its own (the inherited ones
can emit an end of data that the content does not have).

Every failure is a `SessionFailed` with the stage in its text, in Postfix's words; whether the
mail was taken is known but in one case: a connection lost after the final dot is deferred, since a
second copy is better than none (P3). An LMTP server answers for each recipient after the dot (RFC 2033
§4.2): what it had answered by then counts. Replies received in clear before TLS are discarded, and
plaintext behind the STARTTLS reply ends the session (RELIABILITY B2).
RFC 5321 §4.5.3.2 for the time limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.mail.smtp import ESMTPClient
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.delivery.certificate_names import CertificateMismatch
from mailserver.delivery.smtp_login import Login
from mailserver.delivery.smtp_mail import Mail
from mailserver.wire.smtp_reply import Reply, ReplyError, ReplyReader, parse_extensions
from mailserver.wire.smtp_stuffing import Stuffing

PIECE: Final = 1 << 16  # octets of content read at a time


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds for each stage, under Postfix's names (`smtp_*_timeout`)."""

    connect: float = 30
    helo: float = 300
    starttls: float = 300
    mail: float = 300
    rcpt: float = 300
    data_init: float = 120
    data_xfer: float = 180
    data_done: float = 600
    quit: float = 5  # nothing depends on the answer
    xforward: float = 300


class SessionFailed(Exception):
    """The session is of no more use; everything not answered is deferred, or refused if `is_permanent`.

    `may_be_sent`: the final dot was out, so trying the next host at once would risk a second copy.
    `answered` has, by index, the recipients that were answered all the same (LMTP).
    """

    def __init__(
        self,
        text: str,
        dsn: str = "4.4.2",
        remote: str = "",
        is_permanent: bool = False,
        may_be_sent: bool = False,
    ) -> None:
        super().__init__(text)
        self.dsn = dsn
        self.remote = remote
        self.is_permanent = is_permanent
        self.may_be_sent = may_be_sent
        self.answered: Mapping[int, Answer] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one recipient: the deciding reply and the command it answered."""

    reply: Reply
    command: str


@dataclass(slots=True)
class Session:
    """How to greet, and what the server offers. `line_length_limit` 0 sends lines as they are."""

    helo_name: str
    limits: TimeLimits = field(default_factory=TimeLimits)
    extensions: dict[str, str] = field(default_factory=dict)
    tls_was_tried: bool = False
    is_tls: bool = False
    line_length_limit: int = 998
    is_lmtp: bool = False


@implementer(IPushProducer)
class SmtpClient(ESMTPClient):
    """A dialogue with `host` ("name[address]"), `relay` with its port. One coroutine at a time may use it."""

    transport: Any

    def __init__(self, host: str, relay: str, session: Session, clock: Any) -> None:
        super().__init__(b"", None, session.helo_name.encode())
        self.peer = host
        self.relay = relay
        self.session = session
        self._clock = clock
        self._reader = ReplyReader()
        self._waiting: Deferred[Reply] | None = None
        self._lost: SessionFailed | None = None
        self._stage = "receiving the initial server greeting"
        self._dot_is_out = False
        self._room: Deferred[None] | None = None
        self._is_closed = False
        self._is_shaking_hands = False
        self._stuffing = Stuffing()

    # What Twisted calls.

    def callLater(self, period: float, func: Any) -> Any:
        """Time-outs run on the clock that was given."""
        return self._clock.callLater(period, func)

    def connectionMade(self) -> None:
        """Connected; the greeting is awaited by `open`."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        """Replies, handed to whoever waits."""
        self._is_shaking_hands = False
        self._reader.feed(data)
        self._hand_over()

    def _hand_over(self) -> None:
        if self._waiting is None:
            if len(self._reader) > PIECE:
                self._fail(SessionFailed(f"{self.peer} talks without being asked", "4.5.0"))
            return
        try:
            reply = self._reader.take()
        except ReplyError as error:
            self._fail(SessionFailed(f"host {self.peer}: {error} while {self._stage}", "4.5.0"))
            return
        if reply is not None:
            self.setTimeout(None)
            waiting, self._waiting = self._waiting, None
            waiting.callback(reply)

    def timeoutConnection(self) -> None:
        """The stage took too long."""
        self._fail(SessionFailed(f"conversation with {self.peer} timed out while {self._stage}"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The peer, or we, closed; whoever waits is told at which stage."""
        self.setTimeout(None)
        self._is_closed = True
        why = SessionFailed(f"lost connection with {self.peer} while {self._stage}")
        if reason is not None and self._is_shaking_hands:
            why = _handshake_failed(reason.value) or why
        self._fail(why)

    def pauseProducing(self) -> None:
        """The send buffer is full."""
        if self._room is None:
            self._room = Deferred()

    def resumeProducing(self) -> None:
        """The send buffer has room."""
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """The connection is gone; `connectionLost` tells."""
        self.resumeProducing()

    def _fail(self, why: SessionFailed) -> None:
        if self._lost is None:
            why.may_be_sent = self._dot_is_out
            self._lost = why
        if not self._is_closed:
            self._is_closed = True
            self.transport.abortConnection()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(Failure(self._lost))
        self.resumeProducing()

    # The dialogue.

    @property
    def is_usable(self) -> bool:
        """Whether another message can be sent."""
        return self._lost is None and not self._is_closed

    def _send(self, *lines: str) -> None:
        self.transport.write("".join(f"{line}\r\n" for line in lines).encode("utf-8"))

    async def _reply(self, limit: float, stage: str) -> Reply:
        if self._lost is not None:
            raise self._lost
        self._stage = stage
        waiting: Deferred[Reply] = Deferred()
        self._waiting = waiting
        self._hand_over()
        if self._waiting is not None:  # where it came with the one before, nobody waits
            self.setTimeout(limit)
        return await waiting

    async def _ask(self, line: str, limit: float, stage: str) -> Reply:
        self._send(line)
        return await self._reply(limit, stage)

    async def open(self) -> None:
        """The server greeted us and knows us. Raises SessionFailed."""
        limits = self.session.limits
        greeting = await self._reply(limits.helo, "receiving the initial server greeting")
        if greeting.code // 100 != 2:
            raise self._refused(greeting)
        await self._greet()

    async def _greet(self) -> None:
        session = self.session
        verb = "LHLO" if session.is_lmtp else "EHLO"
        reply = await self._ask(
            f"{verb} {session.helo_name}", session.limits.helo, f"performing the {verb} handshake"
        )
        if reply.is_positive:
            session.extensions = parse_extensions(reply)
            return
        if session.is_lmtp:
            raise self._refused(reply)
        reply = await self._ask(
            f"HELO {session.helo_name}", session.limits.helo, "performing the HELO handshake"
        )
        session.extensions = {}
        if not reply.is_positive:
            raise self._refused(reply)

    def _refused(self, reply: Reply) -> SessionFailed:
        # Another host, or this one later, may be friendlier: never a bounce by itself.
        return SessionFailed(
            f"host {self.peer} refused to talk to me: {reply}", f"4{reply.dsn[1:]}", str(reply)
        )

    async def start_tls(self, context: Any) -> None:
        """The session goes on under TLS, with everything learnt in clear forgotten. RFC 3207 §4.2."""
        session = self.session
        session.tls_was_tried = True
        reply = await self._ask("STARTTLS", session.limits.starttls, "performing the STARTTLS handshake")
        if reply.code != 220:
            raise SessionFailed(f"host {self.peer} refused to start TLS: {reply}", "4.7.4", str(reply))
        if len(self._reader):
            self._fail(SessionFailed(f"host {self.peer} sent plaintext after STARTTLS", "4.7.4"))
        self._stage = "performing the TLS handshake"
        self.wrap(context)
        await self._greet()

    def wrap(self, context: Any) -> None:
        """The connection is under TLS from here on, as it is from the start on port 465. RFC 8314 §3.3."""
        self.session.is_tls = True
        self._is_shaking_hands = True
        self.transport.startTLS(context)

    @property
    def tls_session(self) -> SSL.Connection | None:
        """The connection's TLS, None where there is none."""
        handle = self.transport.getHandle() if ISSLTransport.providedBy(self.transport) else None
        return handle if isinstance(handle, SSL.Connection) else None

    async def login(self, login: Login) -> None:
        """Logged in. Raises SessionFailed, temporary: a relay's password may be mended."""
        offered = self.session.extensions.get("AUTH", "").upper().split()
        mechanism = login.mechanism(offered, self.session.is_tls)
        if mechanism is None:
            why = "no mechanism available" if offered else f"host {self.peer} offers no login"
            text = f"SASL authentication failed; {why}: server offers {' '.join(offered)}"
            raise SessionFailed(text, "4.7.0")
        limit = self.session.limits.mail
        ask = partial(self._ask, limit=limit, stage="performing the AUTH handshake")
        reply = await login.say(mechanism, ask)
        if reply.code != 235:
            raise SessionFailed(
                f"SASL authentication failed; server {self.peer} said: {reply}", "4.7.8", str(reply)
            )

    async def deliver(self, mail: Mail) -> Sequence[Answer]:
        """The answer for each recipient, in order. Raises SessionFailed where none is known."""
        self._check_needs(mail)
        for line in mail.xforward_commands(self.session.extensions):  # no answer matters
            await self._ask(line, self.session.limits.xforward, "sending XFORWARD")
        answers = await self._envelope(mail)
        if mail.is_probe:
            if answers and answers[0].command == "RCPT TO":
                await self._reset()
            return answers
        accepted = [index for index, answer in enumerate(answers) if answer.reply.code // 100 == 2]
        await self._content(mail, answers, accepted)
        return answers

    def _check_needs(self, mail: Mail) -> None:
        if mail.smtputf8 and "SMTPUTF8" not in self.session.extensions:
            raise SessionFailed(
                f"SMTPUTF8 is required, but was not offered by host {self.peer}", "5.6.7", is_permanent=True
            )
        size = self.session.extensions.get("SIZE", "")
        if size.isdecimal() and 0 < int(size) < mail.octets:
            raise SessionFailed(
                f"message size {mail.octets} exceeds size limit {size} of server {self.peer}",
                "5.3.4",
                is_permanent=True,
            )

    async def _envelope(self, mail: Mail) -> list[Answer]:
        """MAIL and RCPT, all at once where the server can; the answer for each recipient."""
        limits = self.session.limits
        mail_line = mail.mail_command(self.session.extensions)
        rcpt_lines = mail.rcpt_commands(self.session.extensions)
        pipelined = "PIPELINING" in self.session.extensions
        if pipelined:
            self._send(mail_line, *rcpt_lines)
        else:
            self._send(mail_line)
        first = Answer(await self._reply(limits.mail, "sending MAIL FROM"), "MAIL FROM")
        answers: list[Answer] = []
        for line in rcpt_lines:
            if not pipelined:
                if not first.reply.is_positive:
                    break
                self._send(line)
            answers.append(Answer(await self._reply(limits.rcpt, "sending RCPT TO"), "RCPT TO"))
        if not first.reply.is_positive:
            await self._reset()
            return [first] * len(rcpt_lines)
        # RFC 5321 §4.5.3.1.10: 552 for too many recipients is to be taken as 452.
        return [Answer(_as_temporary(a.reply), a.command) if a.reply.code == 552 else a for a in answers]

    async def _content(self, mail: Mail, answers: list[Answer], accepted: Sequence[int]) -> None:
        """DATA and the content; the replies to them decide for the accepted recipients."""
        if not accepted:
            if answers and answers[0].command == "RCPT TO":
                await self._reset()
            return
        reply = await self._ask("DATA", self.session.limits.data_init, "sending DATA command")
        if reply.code != 354:
            await self._reset()
            final = Answer(reply if not reply.is_positive else _as_temporary(reply), "DATA")
        else:
            await self._send_content(mail)
            if self.session.is_lmtp:
                await self._final_answers(answers, accepted)
                return
            final = await self._final_answer()
            self._dot_is_out = False
        for index in accepted:
            answers[index] = final

    async def _final_answer(self) -> Answer:
        stage = "sending end of data -- message may be sent more than once"
        return Answer(await self._reply(self.session.limits.data_done, stage), "end of DATA")

    async def _final_answers(self, answers: list[Answer], accepted: Sequence[int]) -> None:
        """One reply for each accepted recipient, in their order. RFC 2033 §4.2."""
        known = {index: answer for index, answer in enumerate(answers) if index not in accepted}
        try:
            for index in accepted:
                answers[index] = known[index] = await self._final_answer()
        except SessionFailed as failure:
            failure.answered = known
            raise
        self._dot_is_out = False

    async def _send_content(self, mail: Mail) -> None:
        self.begin_content()
        try:
            for offset in range(0, mail.octets, PIECE):
                await self.send_piece(await mail.read(offset, min(PIECE, mail.octets - offset)))
            self._finish_content()
        finally:
            self.transport.unregisterProducer()

    def begin_content(self) -> None:
        """The server has said 354: `send_piece` may be called, and nothing else but `end_content`."""
        self._stage = "sending message body"
        self._stuffing = Stuffing(self.session.line_length_limit)
        self.transport.registerProducer(self, True)

    async def send_piece(self, piece: bytes) -> None:
        """The piece (LF line ends) is on its way, and there is room for another. Raises SessionFailed."""
        self.setTimeout(self.session.limits.data_xfer)
        self.transport.write(self._stuffing.feed(piece))
        if self._room is not None:
            await self._room
        self.setTimeout(None)
        if self._lost is not None:
            raise self._lost

    def _finish_content(self) -> None:
        self._dot_is_out = True
        self.transport.write(self._stuffing.finish())

    async def end_content(self) -> Reply:
        """The reply to the final dot, which is out. Raises SessionFailed."""
        self._finish_content()
        self.transport.unregisterProducer()
        reply = (await self._final_answer()).reply
        self._dot_is_out = False
        return reply

    async def command(self, line: str) -> Reply:
        """The reply to a command. Raises SessionFailed."""
        return await self._ask(line, self.session.limits.mail, f"sending {line.split(':')[0]}")

    async def _reset(self) -> None:
        reply = await self._ask("RSET", self.session.limits.mail, "sending RSET")
        if not reply.is_positive:
            self.close()

    def abort(self) -> None:
        """The connection is cut, whatever was under way."""
        self._fail(SessionFailed(f"lost connection with {self.peer} while {self._stage}"))

    def close(self) -> None:
        """QUIT is sent; the connection closes whatever the answer."""
        if self._is_closed:
            return
        self._stage = "sending QUIT"
        self._send("QUIT")
        self.transport.loseConnection()
        self._is_closed = True


def _handshake_failed(cause: BaseException | None) -> SessionFailed | None:
    """What ended a handshake, in Postfix's words; None where it was not TLS that failed."""
    failed = None
    if isinstance(cause, CertificateMismatch):
        failed = SessionFailed(
            f"Server certificate not {'verified' if cause.is_trusted else 'trusted'}", "4.7.5"
        )
    elif isinstance(cause, SSL.Error):
        is_about_trust = "certificate verify failed" in str(cause)
        text = "Server certificate not trusted" if is_about_trust else "Cannot start TLS: handshake failure"
        failed = SessionFailed(text, "4.7.5")
    if failed is not None:
        failed.__cause__ = cause
    return failed


def _as_temporary(reply: Reply) -> Reply:
    return Reply(452 if reply.code == 552 else 451, reply.lines)
