"""One POP3 connection: octets in, one command at a time, answers out under back-pressure.

`Pop3Server` keeps Twisted's `POP3` as its base and owns framing, dispatch and output wholly.
A command that waits for a thread holds back those pipelined behind it; so does a client that
does not read. RFC 1939, 2449 (CAPA, response codes), 2595 (STLS), 3206, 5034 (AUTH), 6856 (UTF8).

Without UTF8 a client is sent ASCII headers: those of internationalized mail are rewritten for it
(`message.downgrade`). LANG knows English alone (RFC 6856 §3).

Where a login is granted with a stream, `handover` takes the connection over; at the host's
end `resume` starts the protocol where the front stopped. A connection that ends without
QUIT deletes nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.mail.pop3 import POP3
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.accounts.account import Account
from mailserver.accounts.logged_in import Login
from mailserver.accounts.login import Granted, Peer, peer_of
from mailserver.open_sessions import OpenSessions
from mailserver.pop3d.authentication import challenge_line
from mailserver.pop3d.entrance import Entrance, LoginRefused, Preamble, preamble_of, read_preamble
from mailserver.pop3d.lines import LineQueue, LineTooLong
from mailserver.pop3d.maildrop import Maildrop, MaildropInUse, open_maildrop
from mailserver.pop3d.record import LOGGED_OUT_EARLY, ConnectionRecord
from mailserver.pop3d.service import Service
from mailserver.pop3d.transaction import BadCommand, Transaction
from mailserver.rawlog import Transcript
from mailserver.store.contract import MailboxBusy, MailboxReplaced, MessageGone, StoreError

HELD: Final = 65_536  # octets of input held while a command runs, before reading pauses
_FAREWELL: Final = 30  # seconds in which a client may still read our last line
_log = Logger()
_IN_USE: Final = b"-ERR [IN-USE] Mailbox is locked by another POP3 session."
_TROUBLE: Final = b"-ERR [SYS/TEMP] Internal error, please try again later."


class _Closed(Exception):
    """The connection ended while the client was being waited for."""


@implementer(IPushProducer)
class Pop3Server(POP3):
    """One connection. Built by `factory.Pop3Factory`."""

    transport: Any
    factory: Any

    def __init__(self, service: Service, sessions: OpenSessions) -> None:
        settings = service.settings
        self._service = service
        self._settings = settings
        self._threads = service.threads
        self._logged_in = service.logged_in
        self._sessions = sessions
        self._transcript: Transcript | None = None
        self._record = ConnectionRecord(service.log, secrets.token_urlsafe(9), settings.logout_format)
        self._started = service.reactor.seconds()
        self._resumed: tuple[Account, Preamble] | None = None
        self._entrance = Entrance(settings, service.logins, self._record, lambda: self.transport)
        self._takes_utf8 = False
        self._maildrop: Maildrop | None = None
        self._transaction: Transaction | None = None
        self._input = LineQueue()
        self._wanted: Deferred[bytes] | None = None  # AUTH waits for the client's next line
        self._bad_commands = 0
        self._is_busy = self._is_blocked = self._is_closing = self._is_lost = self._is_advancing = False
        self._is_reading_paused = False

    def callLater(self, period: float, function: Callable[[], None]) -> Any:
        """TimeoutMixin's clock."""
        return self._service.reactor.callLater(period, function)

    # The connection's life.

    def resume(self, account: Account, preamble: Preamble) -> None:
        """Once connected, the session begins logged in, with the +OK that the front owes.

        Called before `makeConnection`. `preamble` is what `handover` was given.
        """
        self._resumed = (account, preamble)

    def connectionMade(self) -> None:
        """The client is greeted, or its login answered where the front took it."""
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.setTimeout(self._settings.login_timeout)
        if self._resumed is not None:
            account, preamble = self._resumed
            self._takes_utf8 = read_preamble(self._record, preamble)
            self._start(self._enter(account))
        else:
            self._record.peer = self._peer_of(is_tls=ISSLTransport.providedBy(self.transport))
            self._write(b"+OK %b\r\n" % self._settings.greeting.encode("ascii", "replace"))
        self._sessions.add(self)

    def _peer_of(self, is_tls: bool) -> Peer:
        return peer_of(self.transport, is_tls, self._settings.trusted_networks)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The maildrop is released, once no command uses it any more."""
        self._sessions.discard(self)
        self._logged_in.leave(self)
        self.setTimeout(None)
        self._is_lost = self._is_closing = True
        self._input.take_all()
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted.errback(Failure(_Closed()))  # ends the command, and then lets go
        elif not self._is_busy:
            self._let_go()

    def timeoutConnection(self) -> None:
        """A silent client is told so and dropped, a client that does not read is just dropped."""
        if self._is_closing:
            self.transport.abortConnection()
            return
        if self._is_busy and not self._is_blocked and self._wanted is None:
            self.setTimeout(self.timeOut or self._settings.idle_timeout)
            return
        self._record.reason = "Inactivity"
        if self._is_blocked:
            self._is_closing = True
            self.transport.unregisterProducer()
            self.transport.abortConnection()
        else:
            self._close(b"-ERR Disconnected for inactivity.\r\n")

    def shut_down(self) -> None:
        """The server stops: the connection closes without QUIT, so that nothing is deleted. RFC 1939 §6."""
        self._break_off("Server shutting down")

    def kick(self) -> None:
        """An administrator ends the session: as `shut_down`."""
        self._break_off("Kicked by an administrator")

    def _break_off(self, reason: str) -> None:
        if self._is_closing:
            return
        self._record.reason = reason
        self._close(b"" if self._is_busy else b"-ERR [SYS/TEMP] %b.\r\n" % reason.encode("ascii"))

    def _close(self, last_words: bytes = b"") -> None:
        """The connection ends when what was written is sent."""
        if self._is_closing:
            return
        self._is_closing = True
        self._write(last_words)
        self.setTimeout(_FAREWELL)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _write(self, octets: bytes, is_content: bool = False) -> None:
        if octets and not self._is_lost:
            if self._transcript is not None:
                (self._transcript.content if is_content else self._transcript.server)(octets)
            self._record.octets_out += len(octets)
            self.transport.write(octets)

    # Back-pressure: see IPushProducer.

    def pauseProducing(self) -> None:
        """The transport's buffer is full: no further command runs."""
        self._is_blocked = True

    def resumeProducing(self) -> None:
        """The buffer is sent: on with the next command."""
        self._is_blocked = False
        self.resetTimeout()
        self._advance()

    def stopProducing(self) -> None:
        """The connection is gone; `connectionLost` follows."""
        self._is_closing = True

    # Input: lines, one at a time.

    def dataReceived(self, data: bytes) -> None:
        """Commands run in order, each after the one before has been answered."""
        if self._is_closing:
            return
        self._record.octets_in += len(data)
        self._input.add(data)
        self._advance()
        if self._input.held > HELD and not self._is_closing:
            self._is_reading_paused = True
            self.transport.pauseProducing()

    def _advance(self) -> None:
        """Runs commands for as long as there are lines and nothing to wait for."""
        if self._is_advancing:
            return
        self._is_advancing = True
        try:
            while not self._is_closing and self._may_take_line():
                line = self._take_line()
                if line is None:
                    break
                self._take(line)
        finally:
            self._is_advancing = False
        if self._is_reading_paused and self._input.held < HELD and not self._is_lost:
            self._is_reading_paused = False
            self.transport.resumeProducing()

    def _may_take_line(self) -> bool:
        return self._wanted is not None or not (self._is_busy or self._is_blocked)

    def _take_line(self) -> bytes | None:
        """The next whole line; too long a one ends the connection."""
        limit = self._settings.line_limit if self._wanted is None else self._settings.response_line_limit
        try:
            return self._input.take(limit)
        except LineTooLong:
            self._record.reason = "Too long line"
            self._close(b"-ERR Line too long.\r\n")
            return None

    def _take(self, line: bytes) -> None:
        self.resetTimeout()
        if self._transcript is not None:
            self._transcript.client(line + b"\r\n")
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted.callback(line)
        elif self._transaction is not None and (answer := self._transaction.at_hand(line)) is not None:
            self._write(answer, is_content=True)
        else:
            self._start(self._command(line))

    def _start(self, work: Any) -> None:
        """One command's work begins; the next one waits for its end."""
        self._is_busy = True
        Deferred.fromCoroutine(work).addErrback(self._failed).addCallback(lambda _: self._done())

    def _failed(self, failure: Failure) -> None:
        """The client learns that it was our fault, the log learns why."""
        if failure.check(_Closed):
            return
        problem = failure.value
        if isinstance(problem, StoreError):
            self._record.trouble(str(problem))
            self._write(_refusal(problem))
            return
        _log.failure("A POP3 command failed", failure)
        self._write(_TROUBLE + b"\r\n")

    def _done(self) -> None:
        self._is_busy = False
        if self._is_lost:
            self._let_go()
        else:
            self._advance()

    # Commands.

    async def _command(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        name = verb.upper()
        try:
            if name in _ANY_STATE:
                await _ANY_STATE[name](self, argument)
            elif self._transaction is not None:
                answer = await self._transaction.answer(name, argument)
                self._write(answer, is_content=name in (b"RETR", b"TOP"))
            elif name in _BEFORE_LOGIN:
                await _BEFORE_LOGIN[name](self, argument)
            else:
                raise BadCommand("Unknown command.")
        except BadCommand as problem:
            self._refuse_command(str(problem))

    def _refuse_command(self, text: str) -> None:
        self._bad_commands += 1
        is_logged_in = self._transaction is not None
        settings = self._settings
        most = settings.most_bad_commands if is_logged_in else settings.most_bad_commands_before_login
        self._write(b"-ERR %b\r\n" % text.encode("ascii", "replace"))
        if self._bad_commands >= most:
            self._record.reason = "Too many invalid commands"
            self._close(b"-ERR Too many invalid commands.\r\n")

    async def _capa(self, argument: bytes) -> None:
        self._write(b"+OK\r\n" + b"\r\n".join(self.capabilities()) + b"\r\n.\r\n")

    def capabilities(self) -> list[bytes]:
        """CAPA's lines in this state. RFC 2449 §6."""
        lines = [b"CAPA", b"TOP", b"UIDL", b"RESP-CODES", b"PIPELINING", b"AUTH-RESP-CODE", b"EXPIRE NEVER"]
        if self._transaction is None:
            if self._offers_tls:
                lines.append(b"STLS")
            lines += self._entrance.capabilities()
        else:
            lines.append(b"IMPLEMENTATION mailserver")
        return [*lines, b"UTF8 USER", b"LANG"]

    @property
    def _offers_tls(self) -> bool:
        return self._service.tls is not None and not self._record.peer.is_tls

    async def _quit(self, argument: bytes) -> None:
        self._record.reason = "Logged out"
        if self._maildrop is None or self._transaction is None:
            self._record.reason = LOGGED_OUT_EARLY
            self._close(b"+OK Logging out.\r\n")
            return
        done = b", messages deleted" if self._maildrop.deleted else b""
        last_words = b"+OK Logging out%b.\r\n" % done
        try:
            await self._threads.run(self._maildrop.update)
            self._transaction.is_updated = True
        except StoreError as problem:
            self._record.reason = f"Mailbox not updated: {problem}"
            last_words = b"-ERR [SYS/TEMP] Some deleted messages were not removed.\r\n"
        await self._let_go()
        self._close(last_words)

    async def _stls(self, argument: bytes) -> None:
        """RFC 2595 §4. Octets sent behind STLS in clear are an attack: the connection ends."""
        if argument or not self._offers_tls:
            raise BadCommand("TLS is not available.")
        if self._input.held:
            self._record.reason = "Command pipelined behind STLS"
            self._close(b"-ERR Nothing may follow STLS.\r\n")
            return
        self._write(b"+OK Begin TLS negotiation now.\r\n")
        self.transport.startTLS(self._service.tls)
        self._entrance.forget()
        self._record.peer = self._peer_of(is_tls=True)

    async def _utf8(self, argument: bytes) -> None:
        """RFC 6856 §2.1: from now on the client reads UTF-8 headers."""
        if argument:
            raise BadCommand("UTF8 has no argument.")
        self._takes_utf8 = True
        self._write(b"+OK UTF8 enabled.\r\n")

    async def _lang(self, argument: bytes) -> None:
        """RFC 6856 §3: the languages of our texts, or the choice of one of them."""
        if not argument:
            self._write(b"+OK Languages follow.\r\n" + _LANGUAGES + b".\r\n")
        elif argument.lower() in (b"en", b"*", b"i-default"):
            self._write(b"+OK en English it is.\r\n")
        else:
            raise BadCommand("That language is not known here.")

    async def _name_user(self, argument: bytes) -> None:
        with self._refusals():
            self._write(self._entrance.name_user(argument))

    async def _pass(self, argument: bytes) -> None:
        await self._log_in(self._entrance.password(argument))

    async def _authenticate(self, argument: bytes) -> None:
        if argument:
            await self._log_in(self._entrance.authenticate(argument, self._ask))
        else:
            self._write(self._entrance.mechanism_list())

    def _ask(self, challenge: bytes) -> Deferred[bytes]:
        self._write(challenge_line(challenge))
        self._wanted = Deferred()
        return self._wanted

    # Login.

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Whoever is not let in is told so."""
        try:
            yield
        except LoginRefused as refused:
            self._write(refused.reply)
            if refused.is_final:
                self._close()

    async def _log_in(self, login: Coroutine[Any, Any, Granted]) -> None:
        with self._refusals():
            granted = await login
            if self._is_lost or not self._is_admitted(granted):
                if granted.stream >= 0:
                    os.close(granted.stream)
            elif granted.stream >= 0:
                self._hand_over(granted)
            else:
                await self._enter(granted.account)

    def _is_admitted(self, granted: Granted) -> bool:
        """Whether one more session is taken; else the client is told and sent away."""
        record, name = self._record, granted.account.name
        if self._logged_in.enter(self, Login(name, "pop3", record.peer.address, granted.pid, record.session)):
            return True
        record.reason = record.turned_away = (
            f"Maximum number of connections from user+IP exceeded "
            f"(mail_max_userip_connections={self._logged_in.most})"
        )
        self._close(b"-ERR [IN-USE] %b\r\n" % record.reason.encode("ascii"))
        return False

    def _hand_over(self, granted: Granted) -> None:
        """The connection is the account's session host's from now on."""
        if self._service.handover is None:
            os.close(granted.stream)
            raise RuntimeError("a stream was granted, but there is no handover")
        self._record.account = granted.account.name
        self._record.login(granted.pid)
        preamble = preamble_of(self._record, self._takes_utf8)
        pending = self._input.take_all()
        self._is_closing = True
        self.setTimeout(None)
        self.transport.unregisterProducer()
        self._service.handover(self, granted, preamble, pending)

    async def _enter(self, account: Account) -> None:
        """The session is in the TRANSACTION state, or ends."""
        self._record.account = account.name
        try:
            maildrop = await self._threads.run(self._open, account)
        except MaildropInUse:
            self._end_login("Mailbox in use", _IN_USE + b"\r\n")
            return
        except StoreError as problem:
            self._end_login(f"Mailbox not available: {problem}", _refusal(problem))
            return
        maildrop.takes_utf8 = self._takes_utf8
        self._maildrop = maildrop
        settings = self._settings
        self._transaction = Transaction(
            maildrop, self._threads, settings.uidl_format, settings.reuses_old_ids
        )
        self._bad_commands = 0
        if self._resumed is None:
            self._record.login()
        self.setTimeout(None if self._is_lost else self._settings.idle_timeout)
        self._write(b"+OK Logged in.\r\n")

    def _open(self, account: Account) -> Maildrop:
        """*Blocking.*"""
        if self._service.rawlog is not None:
            record = self._record
            address = record.peer.address
            self._transcript = self._service.rawlog.begin(account.name, "pop3", record.session, address)
        return open_maildrop(self._service.registry, account, self._settings.marks_seen)

    def _end_login(self, reason: str, last_words: bytes) -> None:
        self._record.no_maildrop(reason)
        self._close(last_words)

    def _let_go(self) -> Deferred[None]:
        """The maildrop goes back to the store, and the log has the session's line."""
        maildrop, self._maildrop = self._maildrop, None
        if self._is_lost and self._transcript is not None:
            self._transcript.close()
        if maildrop is None or self._transaction is None:
            if not self._record.account:
                self._record.no_login(int(self._service.reactor.seconds() - self._started))
            return succeed(None)
        self._record.session_ended(maildrop, self._transaction.is_updated)
        released = self._threads.run(maildrop.release)
        return released.addErrback(lambda failure: _log.failure("A maildrop was not released", failure))


def _refusal(problem: StoreError) -> bytes:
    """What the client is told of a store's trouble. RFC 3206 §4."""
    if isinstance(problem, MailboxBusy):
        return b"-ERR [IN-USE] Mailbox is locked by another program.\r\n"
    if isinstance(problem, MessageGone):
        return b"-ERR Message was removed by another program.\r\n"
    if isinstance(problem, MailboxReplaced):
        return b"-ERR [SYS/TEMP] Mailbox was replaced by another program, please log in again.\r\n"
    return b"-ERR [SYS/TEMP] Mailbox is not available for now.\r\n"


_Handler = Callable[[Pop3Server, bytes], Any]
_LANGUAGES: Final = b"en English\r\n"
_ANY_STATE: Final[Mapping[bytes, _Handler]] = {
    b"CAPA": Pop3Server._capa,
    b"QUIT": Pop3Server._quit,
    b"LANG": Pop3Server._lang,
}
_BEFORE_LOGIN: Final[Mapping[bytes, _Handler]] = {
    b"USER": Pop3Server._name_user,
    b"PASS": Pop3Server._pass,
    b"AUTH": Pop3Server._authenticate,
    b"STLS": Pop3Server._stls,
    b"UTF8": Pop3Server._utf8,
}
