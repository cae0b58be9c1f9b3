"""TLS that sends at once, for the server's end of a connection.

Twisted gathers what is written under TLS until the reactor's next turn. Our protocols write whole answers,
so here an answer is encrypted and sent in `write`, as `prompt` does without TLS. A server also has nothing
to say before the client's hello, and its transport always is one of TCP: what Twisted tries out and asks
with each connection is known here.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp
from twisted.internet.protocol import Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementedBy, implementer


@implementer(*implementedBy(tcp.Server))
class PromptTls(TLSMemoryBIOProtocol):  # type: ignore[misc,unused-ignore]
    """The TLS of one connection; see the module's description."""

    def makeConnection(self, transport: Any) -> None:
        """The wrapped protocol is connected, and the client's hello may come."""
        self._tlsConnection = self.factory._creatorCallable(self)
        self._appSendBuffer: list[bytes] = []
        Protocol.makeConnection(self, transport)
        self.factory.registerProtocol(self)
        if self._connectWrapped:
            wrapped: Any = self.wrappedProtocol
            wrapped.makeConnection(self)

    def _write(self, data: bytes) -> None:
        if self._handshakeDone or self._lostTLSConnection:
            super()._write(data)
        else:
            self._bufferedWrite(data)


class PromptTlsFactory(TLSMemoryBIOFactory):  # type: ignore[misc,unused-ignore]
    """Wraps the factory of a listener whose connections begin with TLS."""

    protocol = PromptTls
