"""IMAP over one connection: octets in, one command at a time, answers out.

Of `IMAP4Server` only the place in Twisted's framework and its time-outs remain: input,
grammar, dispatch and output are ours. The command in front runs to its tagged line before the
next is even cut from the input; meanwhile the connection is not read beyond a bounded buffer.
Whatever a handler raises ends in a tagged line: NO [SERVERBUG], and one traceback in the log,
for what nobody expected.

A login is granted either for this process, or with a stream to the account's session host:
then `handover` takes the connection over. At the host's end `resume` starts the protocol where
the front left off.

RFC 3501, RFC 9051; RFC 3501 §6.2.1 for STARTTLS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.mail.imap4 import IMAP4Server
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.accounts.account import Account
from mailserver.accounts.logged_in import LoggedIn, Login
from mailserver.accounts.login import Granted, Logins, Peer, peer_of
from mailserver.client_certificates import Chain, peer_certificates
from mailserver.imapd import capability, uid_only
from mailserver.imapd.dispatch import HANDLERS, NEEDS_MESSAGES, NEEDS_SELECTED
from mailserver.imapd.entrance import Barred, Entrance, Preamble, preamble_of, read_preamble
from mailserver.imapd.input import Input
from mailserver.imapd.journal import Journal
from mailserver.imapd.output import Output
from mailserver.imapd.replies import ClientGone, Farewell, Refusal, Rejection, Reply, ok, refusal_of
from mailserver.imapd.session import Service, Session
from mailserver.maillog import MailLog
from mailserver.open_sessions import OpenSessions
from mailserver.store.contract import AccountStore, StoreError, StoreRegistry
from mailserver.tls import channel_bindings
from mailserver.wire.imap_commands import BadCommand, Command, parse_command
from mailserver.wire.imap_framing import CommandText, Continue, Event, Fatal, Limits, Refused
from mailserver.wire.imap_mailbox import InvalidMailboxName
from mailserver.wire.imap_responses import public_text, string
from mailserver.wire.imap_search import BadCharset

Handover = Callable[["ImapServer", Granted, Preamble, bytes], None]

_log = Logger()
HELD: Final = 65_536  # octets of input held while a command runs, before reading pauses
_FAREWELL: Final = 30  # seconds in which a client may still read our last lines
LONGEST_ANSWER: Final = 12_288  # octets of a line that answers `+`


@implementer(IHandshakeListener)
class ImapServer(IMAP4Server):
    """One connection. Built by `factory.ImapFactory`."""

    transport: Any

    def __init__(
        self,
        service: Service,
        logins: Logins,
        registry: StoreRegistry,
        log: MailLog,
        sessions: OpenSessions,
        tls: Any = None,
        handover: Handover | None = None,
        logged_in: LoggedIn | None = None,
    ) -> None:
        super().__init__()
        self._service = service
        self._tls = tls
        self._handover = handover
        self._sessions = sessions
        self._logged_in = logged_in or LoggedIn()
        self._journal = Journal(log, service.reactor, service.settings)
        self._entrance = Entrance(
            service, logins, registry, self._journal, self._bindings, self._certificates
        )
        self._session: Session | None = None
        self._resumed: tuple[Account, Preamble] | None = None
        self._bad_commands = 0
        self._is_turn_wanted = False
        self._is_busy = self._is_advancing = self._is_closing = self._is_reading_paused = False
        self._line_wanted: Deferred[bytes] | None = None
        self._output = Output(service.reactor, self._advance)
        self._input = Input(self._limits(is_strict=True))
        self.callLater = service.reactor.callLater  # type: ignore[method-assign]

    def _limits(self, is_strict: bool) -> Limits:
        settings = self._service.settings
        if is_strict:
            return Limits(settings.login_line_limit, settings.login_literal_limit, 0, is_strict=True)
        return Limits(settings.line_limit, settings.line_limit, settings.largest_message)

    # The connection's life.

    def resume(self, account: Account, preamble: Preamble) -> None:
        """Once connected, the session begins logged in, with the tagged OK that the front owes.

        Called before `makeConnection`. `preamble` is what `handover` was given.
        """
        self._resumed = (account, preamble)

    def connectionMade(self) -> None:
        """The client is greeted, or its login answered where the front took it."""
        self._output.attach(self.transport)
        if isinstance(self.transport.getPeer(), IPv4Address | IPv6Address):
            self.transport.setTcpNoDelay(True)
        self._time_out_after(self._service.settings.login_timeout)
        if self._resumed is not None:
            self._start(self._resume(*self._resumed))
        else:
            self._journal.peer = self._peer_of(is_tls=ISSLTransport.providedBy(self.transport))
            if not self._waits_for_certificate:
                self._greet()
        self._sessions.add(self)

    @property
    def _waits_for_certificate(self) -> bool:
        """Whether the capabilities in the greeting depend on what the handshake brings."""
        return self._journal.peer.is_tls and self._service.settings.certificates is not None

    def handshakeCompleted(self) -> None:
        """See `IHandshakeListener`: the client has shown its certificate, if it has one."""
        if self._waits_for_certificate and not self._output.octets:
            self._greet()

    def _greet(self) -> None:
        greeting = public_text(self._service.settings.greeting)
        self._output.line(b"* OK [CAPABILITY %b] %b" % (self._capabilities(), greeting))
        self._output.flush()

    def _peer_of(self, is_tls: bool) -> Peer:
        return peer_of(self.transport, is_tls, self._service.settings.trusted_networks)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Everything that the session held is given back."""
        self._sessions.discard(self)
        self._logged_in.leave(self)
        self._time_out_after(None)
        self._is_closing = True
        self._output.stopProducing()
        waiting, self._line_wanted = self._line_wanted, None
        if waiting is not None:
            waiting.errback(ClientGone())
        if self._entrance.is_open:
            self._journal.ended(self._output.octets)
        self._entrance.is_open = False
        if self._session is not None and not self._is_busy:
            self._start(self._give_back())

    def timeoutConnection(self) -> None:
        """Called when the client was silent for too long; a command that is at work may go on."""
        if self._is_closing:
            self.transport.abortConnection()
            return
        if self._is_busy and self._line_wanted is None and not self._output.is_paused:
            self._time_out_after(self._service.settings.idle_timeout)
            return
        self._journal.reason = "Disconnected for inactivity"
        is_stuck = self._output.is_paused
        self._say_goodbye(self._journal.reason + ".")
        if is_stuck:
            self.transport.abortConnection()

    def shut_down(self) -> None:
        """The server stops: BYE, but where a session host has the connection, which says it itself."""
        self._break_off("Server shutting down")

    def kick(self) -> None:
        """An administrator ends the session: BYE; from here on a session host's, where it was handed over."""
        self._break_off("Kicked by an administrator")

    def _break_off(self, reason: str) -> None:
        if not self._is_closing:
            self._journal.reason = reason
            self._say_goodbye(reason + ".")

    def _time_out_after(self, seconds: float | None) -> None:
        self.setTimeout(seconds)

    def _close(self) -> None:
        self._is_closing = True
        self._output.detach()
        self._time_out_after(_FAREWELL)
        self.transport.loseConnection()

    def _say_goodbye(self, text: str) -> None:
        if not self._is_closing:
            self._output.line(b"* BYE " + public_text(text))
            self._close()

    async def _give_back(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                await session.close()
            finally:
                await self._entrance.close_store(session.store)

    # Input.

    def dataReceived(self, data: bytes) -> None:
        """See `Protocol.dataReceived`."""
        if self._is_closing:
            return
        self.resetTimeout()
        self._journal.octets_in += len(data)
        answer = self._recalled(data)
        if answer is None:
            self._input.feed(data)
            self._advance()
        else:
            self._bad_commands = 0
            self._output.write(answer)
            self._output.flush()

    def _recalled(self, data: bytes) -> bytes | None:
        """The answer to a command that came alone, where it is known; see `recall`."""
        session = self._session
        if session is None or self._is_busy or self._is_turn_wanted or self._output.is_paused:
            return None
        is_free = self._input.is_at_command and session.is_told_all
        return session.recall.answer(data) if is_free else None

    def _advance(self) -> None:
        """As much of the input is acted on as may be now."""
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while not self._is_closing and self._step():
                pass
        finally:
            self._is_advancing = False
        if not self._is_closing:
            self._output.flush()
            self._regulate()

    def _step(self) -> bool:
        """Whether something was taken from the input."""
        if self._line_wanted is not None:
            return self._take_answer(self._line_wanted)
        if self._is_busy or self._output.is_paused:
            return False
        if self._is_turn_wanted and self._session is not None:
            self._is_turn_wanted = False
            self._start(self._tell_between(self._session))
            return True
        event = self._input.next_event()
        if event is None:
            return False
        self._act(event)
        return True

    def _want_turn(self) -> None:
        self._is_turn_wanted = True
        self._advance()

    async def _tell_between(self, session: Session) -> None:
        try:
            await session.tell_between()
        except StoreError as fault:
            self._store_fault(fault)

    def _regulate(self) -> None:
        """Reading pauses while enough is held that cannot be acted on yet."""
        is_waiting = (self._is_busy and self._line_wanted is None) or self._output.is_paused
        wants_pause = is_waiting and self._input.pending > HELD
        if wants_pause != self._is_reading_paused:
            self._is_reading_paused = wants_pause
            if wants_pause:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _take_answer(self, wanted: Deferred[bytes]) -> bool:
        line = self._input.next_line(LONGEST_ANSWER)
        if line is None:
            return False
        self._line_wanted = None
        if isinstance(line, Fatal):
            wanted.errback(Farewell(line.text))
        else:
            wanted.callback(line)
        return True

    def next_line(self) -> Deferred[bytes]:
        """The client's next line, which is no command: a SASL response, DONE."""
        wanted: Deferred[bytes] = Deferred()
        self._line_wanted = wanted
        self._advance()
        return wanted

    def _act(self, event: Event) -> None:
        match event:
            case Continue():
                self._output.line(b"+ OK")
            case Fatal(text):
                self._journal.reason = text
                self._say_goodbye(text)
            case Refused(tag, is_too_big):
                if is_too_big:
                    self._finish(tag, Reply(b"NO", b"Literal size too large.", b"TOOBIG"))
                else:
                    self._finish(tag, Reply(b"BAD", b"Command line too long."))
            case CommandText():
                self._is_busy = True
                self._output.start_slice()
                self._start(self._perform(event))

    def _start(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        self._is_busy = True
        self._proceed(None, work)

    def _proceed(self, result: object, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """The work goes on with what it waited for. Most commands wait for nothing, and need no Deferred."""
        try:
            if isinstance(result, Failure):
                waited = result.throwExceptionIntoGenerator(work)
            else:
                waited = work.send(result)
        except StopIteration:
            self._worked(None)
        except BaseException:
            self._worked(Failure())
        else:
            waited.addBoth(self._proceed, work)

    def _worked(self, result: object) -> None:
        self._is_busy = False
        if isinstance(result, Failure) and not isinstance(result.value, ClientGone):
            _log.failure("IMAP connection failed", failure=result)
            self.transport.abortConnection()
        if self._is_closing and self._session is not None:
            self._start(self._give_back())
        elif not self._is_closing:
            self._advance()

    # Commands.

    def _parse(self, text: CommandText) -> Command:
        session = self._session
        if session is None:
            return parse_command(text)
        return parse_command(text, session.takes_utf8, session.store.namespace)

    async def _perform(self, text: CommandText) -> None:
        try:
            command = self._parse(text)
        except BadCommand as fault:
            self._finish(fault.tag, self._bad(fault))
            return
        if self._session is not None:
            self._session.current_words = b"" if text.literals else text.text[len(command.tag) + 1 :]
        session, handler = self._session, HANDLERS.get(command.name)
        try:
            if session is None or handler is None:
                reply = await self._of_the_connection(command)
            else:
                await self._prepare(session, command)
                reply = await handler(session, command.arguments)
        except Exception as fault:
            reply = self._reply_to(fault, command)
        if reply is not None:
            self._finish(command.tag, reply)

    def _bad(self, fault: BadCommand) -> Reply:
        if isinstance(fault.__cause__, InvalidMailboxName):
            return Reply(b"NO", public_text(str(fault)), b"CANNOT")
        if isinstance(fault.__cause__, BadCharset):
            selected = self._session.selected if self._session is not None else None
            if selected is not None and fault.__cause__.saves:
                selected.saved = []  # RFC 5182 §2.1: NO empties it, BAD does not
            status = b"BAD" if fault.__cause__.is_bad else b"NO"
            return Reply(status, b"Unknown charset", b"BADCHARSET (US-ASCII UTF-8)")
        return Reply(b"BAD", b"Error in IMAP command: " + public_text(str(fault)))

    def _reply_to(self, fault: Exception, command: Command) -> Reply | None:
        """How the command ended that raised; None where the answer is another's to give, or nobody's."""
        match fault:
            case Refusal() | Rejection():
                return fault.reply
            case StoreError():
                return self._store_fault(fault)
            case Barred():
                self._output.line(fault.reply.line(command.tag))
                self._say_goodbye(str(fault))
            case Farewell():
                self._say_goodbye(str(fault))
            case ClientGone():
                pass
            case _:
                _log.failure("IMAP command {name} failed", name=command.name)
                text = b"Internal error occurred. Refer to server log for more information."
                return Reply(b"NO", text, b"SERVERBUG")
        return None

    def _store_fault(self, fault: StoreError) -> Reply | None:
        try:
            return refusal_of(fault).reply
        except Farewell as farewell:
            self._say_goodbye(str(farewell))
            return None

    async def _of_the_connection(self, command: Command) -> Reply | None:
        """What is no session's command."""
        if command.name in ("CAPABILITY", "LOGOUT", "ID"):
            return self._anywhere(command)
        if self._session is None:
            return await self._before_login(command)
        if command.name == "COMPRESS":
            return self._compress(command)
        if command.name == "UNAUTHENTICATE":
            return await self._leave()
        raise Rejection("Command is not valid after login.", b"CLIENTBUG")

    async def _prepare(self, session: Session, command: Command) -> None:
        """The session may begin with the command. Raises what handlers do."""
        if command.name in NEEDS_SELECTED:
            session.mailbox_in_use  # noqa: B018  (a Rejection where there is none)
        if session.is_uid_only:
            uid_only.check(command)
        session.current_tag = command.tag
        await session.check_rights()
        if command.name in NEEDS_MESSAGES:
            await session.wake()

    def _anywhere(self, command: Command) -> Reply:
        if command.name == "CAPABILITY":
            self._output.line(b"* CAPABILITY " + self._capabilities())
            return ok("Capability completed.")
        if command.name == "ID":
            self._journal.identified(command.arguments.fields)
            self._output.line(b"* ID " + self._identity())
            return ok("ID completed.")
        self._output.line(b"* BYE Logging out")
        self._journal.reason = "Logged out"
        return ok("Logout completed.")

    def _capabilities(self) -> bytes:
        configured = self._service.settings.capability
        if self._session is None:
            found = self._entrance.capabilities(self._tls is not None)
        elif configured and not configured.startswith("+"):
            return configured.encode("ascii", "replace")
        else:
            size, urls = self._service.settings.largest_message, self._service.settings.urls
            store, is_compressed = self._session.store, self._input.is_compressed
            found = capability.after_login(
                size, is_compressed, self._may_leave, store.keeps_acls, store.sets_quotas, urls.is_open
            )
        more = configured[1:].split() if configured.startswith("+") else []
        return b" ".join([found, *[word.encode("ascii", "replace") for word in more]])

    def _identity(self) -> bytes:
        """What we say of ourselves. RFC 2971 §3.3."""
        words = [string(word.encode()) for pair in self._service.settings.identity for word in pair]
        return b"(" + b" ".join(words) + b")" if words else b"NIL"

    def _compress(self, command: Command) -> Reply | None:
        """Both streams are compressed from here on. RFC 4978 §3."""
        if command.arguments.mechanism != "DEFLATE":
            raise Refusal("Unknown compression mechanism.")
        if self._input.is_compressed:
            raise Refusal("Compression is active already.", b"COMPRESSIONACTIVE")
        self._output.line(command.tag + b" OK Begin compression.")
        self._output.compress()
        self._input.inflate(allowance=2 * self._service.settings.largest_message)
        return None

    @property
    def _may_leave(self) -> bool:
        """Not from a session host, whose front is gone; nor out of a compressed stream."""
        return self._resumed is None and not self._input.is_compressed

    async def _leave(self) -> Reply:
        """Nobody is logged in, as after the greeting. RFC 8437 §3."""
        if not self._may_leave:
            raise Rejection("UNAUTHENTICATE is not available.")
        await self._give_back()
        self._input.tap(None)
        self._output.tap = None
        self._logged_in.leave(self)
        self._journal.left(self._output.octets)
        self._input.limits = self._limits(is_strict=True)
        self._time_out_after(self._service.settings.login_timeout)
        return ok("Unauthenticated.")

    def _finish(self, tag: bytes, reply: Reply) -> None:
        """The tagged line is said, and what follows from it for the connection."""
        if self._is_closing:
            return
        self._output.line(reply.line(tag))
        if self._journal.reason == "Logged out":
            self._close()
        elif reply.status == b"BAD":
            self._count_bad_command()
        elif self._session is not None:
            self._bad_commands = 0

    def _count_bad_command(self) -> None:
        self._bad_commands += 1
        settings = self._service.settings
        is_in = self._session is not None
        limit = settings.most_bad_commands if is_in else settings.most_bad_commands_before_login
        if self._bad_commands >= limit:
            self._journal.reason = "Too many invalid commands"
            self._say_goodbye("Too many invalid IMAP commands.")

    # Before login.

    async def _before_login(self, command: Command) -> Reply | None:
        if command.name == "NOOP":
            return ok("NOOP completed.")
        if command.name == "STARTTLS":
            return self._start_tls(command.tag)
        if command.name not in ("LOGIN", "AUTHENTICATE"):
            raise Rejection("Please log in first.", b"CLIENTBUG")
        granted = await self._entrance.log_in(command, self._ask)
        self._admit(granted)
        if granted.stream >= 0:
            return self._hand_over(command.tag, granted)
        try:
            store = await self._entrance.open_store(granted.account)
        except Refusal:
            self._logged_in.leave(self)
            raise
        self._journal.logged_in(granted.account)
        return self._begin(granted.account, store)

    def _admit(self, granted: Granted) -> None:
        """The session is counted; Barred where its account has too many from there."""
        journal, name = self._journal, granted.account.name
        if self._logged_in.enter(self, Login(name, "imap", journal.peer.address, granted.pid, journal.id)):
            return
        if granted.stream >= 0:
            os.close(granted.stream)
        text = (
            f"Maximum number of connections from user+IP exceeded "
            f"(mail_max_userip_connections={self._logged_in.most})"
        )
        journal.turned_away(text)
        raise Barred(Reply(b"NO", public_text(text), b"LIMIT"), "Too many connections.")

    def _bindings(self) -> Mapping[str, bytes]:
        return channel_bindings(self.transport)

    def _certificates(self) -> Chain:
        return peer_certificates(self.transport)

    async def _ask(self, challenge: bytes) -> bytes:
        self._output.line(b"+ " + challenge)
        return await self.next_line()

    def _start_tls(self, tag: bytes) -> Reply | None:
        if self._journal.peer.is_tls:
            raise Rejection("TLS is already active.")
        if self._tls is None:
            raise Rejection("TLS support isn't enabled.")
        if self._input.pending:
            self._journal.reason = "Plaintext after STARTTLS"
            self._say_goodbye("Nothing may follow STARTTLS in clear.")
            return None
        self._output.line(tag + b" OK Begin TLS negotiation now.")
        self._output.flush()
        self._journal.peer = self._peer_of(is_tls=True)
        self._input = Input(self._limits(is_strict=True))
        self._bad_commands = 0
        self.transport.startTLS(self._tls)
        return None

    def _hand_over(self, tag: bytes, granted: Granted) -> Reply | None:
        """The connection is the account's session host's from now on."""
        if self._handover is None:
            os.close(granted.stream)
            raise RuntimeError("a stream was granted, but there is no handover")
        self._journal.logged_in(granted.account, granted.pid)
        pending = self._input.take_pending()
        self._journal.octets_in -= len(pending)
        self._is_closing = True
        self._entrance.is_open = False
        self._time_out_after(None)
        self._output.detach()
        self._handover(self, granted, preamble_of(self._journal, tag, self._output.octets), pending)
        return None

    async def _resume(self, account: Account, preamble: Preamble) -> None:
        tag = read_preamble(self._journal, preamble)
        try:
            store = await self._entrance.open_store(account)
        except Refusal as refusal:
            self._finish(tag, refusal.reply)
            self._say_goodbye("The mail is not available.")
            return
        self._finish(tag, self._begin(account, store))

    def _begin(self, account: Account, store: AccountStore) -> Reply:
        self._session = Session(self._service, account, store, self._output, self.next_line)
        self._session.wants_turn = self._want_turn
        self._journal.session = self._session
        self._input.limits = self._limits(is_strict=False)
        if self._entrance.transcript is not None:
            self._input.tap(self._entrance.transcript.client)
            self._output.tap = self._entrance.transcript.server
        self._bad_commands = 0
        self._time_out_after(self._service.settings.idle_timeout)
        return ok("Logged in", b"CAPABILITY " + self._capabilities())
