"""A TCP transport that sends at once, and a reactor that does not ask for names.

Twisted's own transport waits for the next turn of the reactor with every write: two system calls and
one turn more for each reply. Here octets go to the socket in `write`, where nothing waits
before them; what the socket does not take goes the usual way. So it is under TLS (`prompt_tls`), which
STARTTLS puts on top. Everything else is unchanged.

Twisted's reactor asks whoever it calls for the name that `twisted.python.log` writes before a line, and sets
up a context for that: a tenth of what a short command costs. Our lines bear the names of `maillog`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from types import MethodType
from typing import Any, Final

from twisted.internet import tcp
from twisted.internet._newtls import _BypassTLS
from twisted.internet.abstract import FileDescriptor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import ISSLTransport
from zope.interface import directlyProvides

from mailserver.prompt_tls import PromptTls, PromptTlsFactory

_MOST_PIECES: Final = 1024  # IOV_MAX of Linux


class PromptServer(tcp.Server):  # type: ignore[misc,unused-ignore]
    """A server's end of a TCP connection; see the module's description."""

    def write(self, data: bytes) -> None:
        """See ITransport.write."""
        if not self.TLS:
            data = self._left_of(data)
        if data:
            super().write(data)

    def _left_of(self, data: bytes) -> bytes:
        """What the socket did not take of the octets, which go to it as they are."""
        if not self._may_send_now():
            return data
        try:
            return data[self.socket.send(data) :]
        except OSError:
            return data  # the reactor's next turn meets and reports it

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """See ITransport.writeSequence: large pieces go to the socket without being joined."""
        pieces = list(iovec)
        if len(pieces) == 1:
            self.write(pieces[0])
            return
        sent = self._send_pieces(pieces[:_MOST_PIECES]) if self._may_send_now() and not self.TLS else 0
        rest = b"".join(pieces)[sent:] if sent < sum(map(len, pieces)) else b""
        if rest:
            super().write(rest)

    def _send_pieces(self, pieces: Sequence[bytes]) -> int:
        """How many octets the socket took; none after an error, which the reactor's next turn meets."""
        try:
            return self.socket.sendmsg(pieces)
        except OSError:
            return 0

    def _may_send_now(self) -> bool:
        is_writable = self.connected and not self._writeDisconnected
        return bool(is_writable and not self.dataBuffer and not self._tempDataBuffer)

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """See ITLSTransport.startTLS, and Twisted's own; for the server's part of TLS, which is `normal`."""
        producer, is_streaming = self.producer, self.streamingProducer
        if producer is not None:
            self.unregisterProducer()
        nobody: Any = None
        layer: Any = PromptTls(PromptTlsFactory(contextFactory, False, nobody), self.protocol, False)
        self.protocol = layer
        self.getHandle = layer.getHandle  # type: ignore[method-assign]
        self.getPeerCertificate = layer.getPeerCertificate
        directlyProvides(self, ISSLTransport)
        self.TLS = True
        layer.makeConnection(_BypassTLS(_Beneath, self))
        if producer is not None:
            self.registerProducer(producer, is_streaming)


class _Beneath(FileDescriptor):  # type: ignore[misc,unused-ignore]
    """The methods by which TLS reaches the PromptServer under it. Never made."""

    def write(self: Any, data: bytes) -> None:
        """The octets are sent as they are."""
        data = self._left_of(data)
        if data:
            FileDescriptor.write(self, data)


def make_prompt(port: Any) -> None:
    """Connections accepted by the listening TCP port from now on send at once."""
    port.transport = PromptServer


def hasten(reactor: Any) -> None:
    """The reactor calls whoever has news without asking for a name; see the module. For any reactor."""
    if isinstance(reactor, EPollReactor):
        reactor.doIteration = MethodType(_iterate, reactor)  # type: ignore[method-assign]


def _iterate(reactor: Any, timeout: float | None) -> None:
    """As `EPollReactor.doPoll`. What is raised by those that are called, `_doReadOrWrite` logs."""
    try:
        events = reactor._poller.poll(-1 if timeout is None else timeout, len(reactor._selectables))
    except OSError as error:
        if error.errno == errno.EINTR:
            return
        raise
    selectables, act = reactor._selectables, reactor._doReadOrWrite
    for descriptor, event in events:
        selectable = selectables.get(descriptor)  # gone, where an earlier one closed it
        if selectable is not None:
            act(selectable, descriptor, event)
