"""SMTP on the wire: octets in, commands to the session, replies out in few writes.

`SmtpServer` owns everything between transport and `Session`: input, dispatch and output of
`ESMTP` are replaced wholly, and nothing of its state is used. One command is worked on at a
time, whatever it waits for; what a client sends meanwhile waits, at most `_MOST_HELD`
octets of it, then reading stops. Replies of commands that arrived together leave together, in
order (RFC 2920). A client that reads no replies is not served further.

With `per_request_deadline` a command must arrive whole within its time limit, however its octets drip in,
and content has to come at `min_data_rate` on average, with the same limit for a pause; without it the limit
holds for each pause alone. A TLS handshake has `starttls_timeout`.

When the connection goes away in the middle, the session is told once (`lost`); nothing that
arrives afterwards is looked at, TLS or not (RELIABILITY B3).
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.logger import Logger
from twisted.mail.smtp import ESMTP
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.open_sessions import PATIENCE, OpenSessions
from mailserver.smtpd.connection import Command, Work
from mailserver.smtpd.services import Services
from mailserver.smtpd.session import Session
from mailserver.wire.lines import CommandLines, LineTooLong

_MOST_HELD: Final = 1 << 18  # octets that wait while a command is worked on
_LONGEST_OVERLONG: Final = 1 << 16  # octets of one command line before the client is given up


@implementer(IPushProducer, IHalfCloseableProtocol, IHandshakeListener)
class SmtpServer(ESMTP):
    """One SMTP connection. See the module's description."""

    _log = Logger()
    transport: Any

    def __init__(self, services: Services, sessions: OpenSessions, *, is_tls: bool = False) -> None:
        """`is_tls` says that the transport is under TLS from the start (port 465)."""
        super().__init__(None, services.tls)
        self._services = services
        self._sessions = sessions
        self._lines = CommandLines(services.settings.line_length_limit)
        self._replies: list[bytes] = []
        self._consumer: Command | None = None
        self._is_busy = False
        self._is_advancing = False
        self._has_begun = False  # a command, since `_advance` was called
        self._is_closing = False
        self._is_lost = False
        self._is_reading = True
        self._may_write = True
        self._has_all_input = False
        self._is_stopping = False
        self._deadline = 0.0
        self._timer: Any = None
        self.is_tls = is_tls
        self._is_shaking_hands = is_tls
        self.session = Session(services, self)

    # ------------------------------------------------------------ called by Twisted

    def connectionMade(self) -> None:
        """The session greets the client."""
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        self.transport.registerProducer(self, True)
        self._sessions.add(self)
        self._restart_deadline()
        self._timer = self._services.clock.callLater(self._time_limit(), self._timer_fired)
        self._start(self.session.connected())
        self._advance()

    def handshakeCompleted(self) -> None:
        """The connection is under TLS."""
        self._is_shaking_hands = False
        self._restart_deadline()

    def dataReceived(self, data: bytes) -> None:
        """The octets are worked on, or wait their turn."""
        if self._is_closing or self._is_lost:
            return
        if self._consumer is not None:
            self._extend_deadline(len(data))
        elif not self._services.patience.per_request_deadline:
            self._restart_deadline()
        self._lines.feed(data)
        self._advance()

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The session is over; what was not committed is gone."""
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.session.lost()
        self._sessions.discard(self)

    def readConnectionLost(self) -> None:
        """The client has said all it wants to say, and still reads. What it said is done first."""
        self._has_all_input = True
        self._advance()

    def writeConnectionLost(self) -> None:
        """The client reads nothing any more."""
        self.transport.abortConnection()

    def shut_down(self) -> None:
        """The client hears 421 as soon as nothing is being committed, and the connection ends.

        One that does not end it in turn, as TLS wants it to, is cut off after a few seconds.
        """
        self._is_stopping = True
        self._advance()
        if self._is_closing and not self._is_lost:
            self._end_within(PATIENCE)

    def pauseProducing(self) -> None:
        """The client does not read its replies."""
        self._may_write = False

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._may_write = True
        self._advance()

    def stopProducing(self) -> None:
        """Nothing can be written any more."""
        self._may_write = False

    # ------------------------------------------------------------ called by the session

    def reply(self, code: int, dsn: str, text: str) -> None:
        """The reply is on its way, behind those before it."""
        line = f"{code} {dsn} {text}\r\n" if dsn else f"{code} {text}\r\n"
        self._replies.append(line.encode("utf-8", "replace"))

    def reply_lines(self, code: int, lines: list[str]) -> None:
        """A reply of several lines is on its way."""
        *before, last = lines
        text = "".join(f"{code}-{line}\r\n" for line in before) + f"{code} {last}\r\n"
        self._replies.append(text.encode("ascii", "replace"))

    def consume(self, consumer: Command) -> None:
        """What follows is content, for the consumer, until it calls `resume_commands`."""
        self._consumer = consumer
        self._restart_deadline()

    def resume_commands(self, rest: bytes) -> None:
        """What follows are commands again; `rest` came behind the content."""
        self._consumer = None
        self._lines.feed(rest + self._lines.take_all())

    @property
    def has_waiting_input(self) -> bool:
        """Whether the client sent more than the command that is worked on."""
        return len(self._lines) > 0

    @property
    def last_line_was_bare(self) -> bool:
        """Whether the command ended in a bare LF."""
        return self._lines.bare_newline

    def start_tls(self) -> None:
        """The connection is under TLS once the client has shaken hands; replies so far went in clear."""
        self._flush()
        self.transport.startTLS(self._services.tls)
        self.is_tls = self._is_shaking_hands = True
        self._restart_deadline()
        if self._timer.active():
            self._timer.reset(min(self._time_limit(), self._timer.getTime() - self._services.clock.seconds()))

    def close(self) -> None:
        """The connection ends once the replies are out. No input is looked at any more."""
        if self._is_closing:
            return
        self._is_closing = True
        self._flush()
        if not self._is_lost:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self._end_within(PATIENCE if self._is_stopping else self._time_limit())

    # ------------------------------------------------------------ the loop

    def _advance(self) -> None:
        """Everything that can be done with the input at hand is done, and replied to."""
        if self._is_advancing:
            return
        self._is_advancing = True
        self._has_begun = False
        try:
            while not self._is_busy and not self._is_closing and self._may_write:
                if self._is_stopping:
                    self.session.shut_down()
                    continue
                try:
                    has_begun = self._one_step()
                except Exception:
                    self._unexpected(Failure())
                    continue
                if not has_begun:
                    if self._has_all_input:
                        self.session.client_left()
                        self.close()
                    break
        finally:
            self._is_advancing = False
            if self._has_begun:
                self._restart_deadline()
            self._flush()
            self._regulate()

    def _one_step(self) -> bool:
        """One command or one piece of content is begun; False where there is none."""
        if self._consumer is not None:
            data = self._lines.take_all()
            if not data:
                return False
            self._start(self._consumer(data))
            return True
        try:
            line = self._lines.next_line()
        except LineTooLong:
            self._has_begun = True
            self._start(self.session.overlong_line())
            return True
        if line is None:
            if self._lines.discarded > _LONGEST_OVERLONG:
                self._start(self.session.endless_line())
            return False
        self._has_begun = True
        self._start(self.session.line(line))
        return True

    def _start(self, work: Work) -> None:
        """The work is done, or under way: then nothing else begins until it is."""
        if work is None:
            return
        self._is_busy = True
        self._go_on(None, work)

    def _go_on(self, result: object, work: Coroutine[Any, Any, None]) -> None:
        """The work, whose Deferred has fired, is carried on until it waits for another one, or is done.

        Most work never waits: `Deferred.fromCoroutine` costs more than all of it.
        """
        awaited: Deferred[Any]
        try:
            if isinstance(result, Failure):
                awaited = result.throwExceptionIntoGenerator(work)
            else:
                awaited = work.send(result)
        except StopIteration:
            self._finished()
        except Exception:
            self._unexpected(Failure())
            self._finished()
        else:
            awaited.addBoth(self._go_on, work)

    def _unexpected(self, failure: Failure) -> None:
        """A fault of ours never is a permanent answer, nor silence. RELIABILITY P5."""
        self._log.failure("in an SMTP session", failure)
        self.session.failed_unexpectedly()

    def _finished(self) -> None:
        self._is_busy = False
        if not self._is_advancing:
            self._restart_deadline()
            self._advance()

    def _flush(self) -> None:
        if self._replies and not self._is_lost:
            replies = self._replies[0] if len(self._replies) == 1 else b"".join(self._replies)
            self._replies.clear()
            self.transport.write(replies)

    def _regulate(self) -> None:
        """Reading goes on exactly while there is room for what is read."""
        if self._is_closing:
            return
        has_room = len(self._lines) < _MOST_HELD or not (self._is_busy or not self._may_write)
        if has_room != self._is_reading:
            self._is_reading = has_room
            if has_room:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    # ------------------------------------------------------------ time

    def _time_limit(self) -> float:
        patience = self._services.patience
        return patience.starttls_timeout if self._is_shaking_hands else patience.timeout

    def _restart_deadline(self) -> None:
        self._deadline = self._services.clock.seconds() + self._time_limit()

    def _end_within(self, seconds: float) -> None:
        """A connection that is being closed is cut off then, at the latest."""
        self._deadline = self._services.clock.seconds() + seconds
        if self._timer.active():
            self._timer.reset(seconds)

    def _extend_deadline(self, octets: int) -> None:
        patience = self._services.patience
        latest = self._services.clock.seconds() + patience.timeout
        rate = patience.min_data_rate if patience.per_request_deadline else 0
        self._deadline = min(self._deadline + octets / rate, latest) if rate else latest

    def _timer_fired(self) -> None:
        """The deadline moves all the time, the timer only when it fires."""
        remaining = self._deadline - self._services.clock.seconds()
        if self._is_busy and not self._is_closing:
            remaining = max(remaining, 1.0)  # that we are slow is not the client's fault
        if remaining > 0:
            self._timer = self._services.clock.callLater(remaining, self._timer_fired)
        elif self._is_closing:
            self.transport.abortConnection()
        else:
            self.session.timed_out()
            self._timer = self._services.clock.callLater(self._time_limit(), self._timer_fired)

    def tls_description(self) -> str:
        """`TLSv1.3 with cipher NAME (256/256 bits)`, "" where the connection is in clear."""
        if not self.is_tls:
            return ""
        for layer in (self.transport, getattr(self.transport, "protocol", None)):
            handle = layer.getHandle() if layer is not None and hasattr(layer, "getHandle") else None
            if hasattr(handle, "get_cipher_name"):
                connection = cast("Any", handle)
                name, bits = connection.get_cipher_name(), connection.get_cipher_bits()
                version = connection.get_protocol_version_name()
                return f"{version} with cipher {name} ({bits}/{bits} bits)" if name else ""
        return ""
