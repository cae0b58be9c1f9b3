"""The session host's frame: one account's sessions, in a process that is that user.

Streams arrive over the control channel from the zygote; each begins with a frame
(`handover`) that says which service it is and where the session stands. A stream of a guest, another
account's host that the zygote says the name of, is given to `welcome` as it is. When the last
session or guest has been gone for `linger` seconds the host says that it leaves, serves what arrives
until the zygote has heard it, and ends. SIGTERM ends it too, through the reactor.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.maillog import MailLog
from mailserver.rights.handover import FirstFrame, adopt
from mailserver.rights.messages import BadMessage, Message, close_all
from mailserver.rights.reactor_channel import ReactorChannel

# (account, service, preamble) -> the session's protocol, ready for makeConnection
Welcome = Callable[[Message, int, Callable[[], None]], None]
BuildSession = Callable[[Message, str, Mapping[str, Any]], Any]


@implementer(IHalfCloseableProtocol)
class _Session(Protocol):
    """Waits for the frame, then is the session's protocol but for the end, which it reports."""

    transport: Any

    def __init__(self, build: Callable[[str, Mapping[str, Any]], Any], ended: Callable[[], None]) -> None:
        self._build = build
        self._ended = ended
        self._first = FirstFrame()
        self._session: Any = None

    def dataReceived(self, data: bytes) -> None:
        """The first octets; replaced by the session's own method once it is there."""
        try:
            found = self._first.feed(data)
        except BadMessage:
            self.transport.loseConnection()
            return
        if found is None:
            return
        opening, rest = found
        self.transport.setTcpNoDelay = lambda enabled: None  # a Unix socket has no such option: OSError
        self._session = self._build(opening["service"], opening["preamble"])
        self.dataReceived = self._session.dataReceived  # type: ignore[method-assign]
        self._session.makeConnection(self.transport)
        if rest:
            self._session.dataReceived(rest)

    def readConnectionLost(self) -> None:
        """The client is gone; or the front kicks the session, which takes leave of the client."""
        if self._session is None or _is_closed(self.transport.fileno()):
            self.transport.abortConnection()
        else:
            self._session.kick()

    def writeConnectionLost(self) -> None:
        """See IHalfCloseableProtocol; nobody shuts down our side alone."""

    def connectionLost(self, reason: Failure = Failure(RuntimeError("connectionLost"))) -> None:  # noqa: B008
        """The session has ended."""
        try:
            if self._session is not None:
                self._session.connectionLost(reason)
        finally:
            self._ended()


def _is_closed(descriptor: int) -> bool:
    """Whether the other end of a stream is closed for both directions: POLLHUP in poll(2)."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


class SessionHost:
    """Serves the account's sessions on `reactor` until none has come for `linger` seconds.

    `stop` is called once at the end (the reactor's `stop`). Construct it before the reactor runs.
    `welcome(guest, stream, ended)` takes a guest's stream over, and calls `ended` in the reactor's thread.
    """

    def __init__(
        self,
        reactor: Any,
        control: socket.socket,
        build: BuildSession,
        log: MailLog,
        stop: Callable[[], None],
        linger: float = 60.0,
        welcome: Welcome | None = None,
    ) -> None:
        self._reactor = reactor
        self._build = build
        self._log = log
        self._stop = stop
        self._linger = linger
        self._welcome = welcome
        self._sessions = 0
        self._is_leaving = False
        self._is_deaf = False
        self._channel = ReactorChannel(reactor, control, self._attached, self._channel_lost)
        self._timer: Any = None
        self._wait_idle()

    def _attached(self, message: Message, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            close_all(descriptors)
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        account, guest = message["account"], message.get("guest")
        self._sessions += 1
        if guest is not None:
            self._admit(guest, descriptors[0])
            return
        session = _Session(
            lambda service, preamble: self._build(account, service, preamble), self._session_ended
        )
        try:
            adopt(self._reactor, descriptors[0], session)
        except OSError as error:  # out of descriptors: this session ends, the others go on
            self._log.write("imap", f"Error: a session could not be taken over: {error}")
            self._session_ended()

    def _admit(self, guest: Message, stream: int) -> None:
        if self._welcome is None:
            close_all((stream,))
            self._session_ended()
        else:
            self._welcome(guest, stream, self._session_ended)

    def _session_ended(self) -> None:
        self._sessions -= 1
        if self._sessions == 0:
            self._wait_idle()

    def _wait_idle(self) -> None:
        if self._is_deaf:
            self._stop()
        elif not self._is_leaving:
            self._timer = self._reactor.callLater(self._linger, self._leave)

    def _leave(self) -> None:
        self._is_leaving = True
        try:
            self._channel.send({"leaving": True})
        except OSError:
            self._channel.close()

    def _channel_lost(self) -> None:
        """The zygote sends nothing more: what is here is served to its end."""
        self._is_deaf = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._sessions == 0:
            self._stop()
