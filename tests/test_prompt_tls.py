"""TLS that sends at once, over real sockets: where the connection begins with it, and after STARTTLS."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailserver.prompt import make_prompt
from mailserver.prompt_tls import PromptTlsFactory
from mailserver.tls import ServerTls, self_signed

PAIR = self_signed(["mx.example.org"], time.time())
TLS: Any = ServerTls("imap", lambda: 0, lambda: [PAIR])


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@implementer(IHandshakeListener)
class Talker(Protocol):
    """Greets, hears, and writes what it is told to by a script."""

    def connectionMade(self) -> None:
        self.heard = b""
        self.factory.connected.callback(self)  # type: ignore[union-attr]
        self.transport.write(b"hello\r\n")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if data == b"STARTTLS":
            self.transport.write(b"go ahead")  # type: ignore[union-attr]
            self.transport.startTLS(TLS)  # type: ignore[union-attr]

    def handshakeCompleted(self) -> None:
        self.factory.shaken.callback(None)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.lost.callback(None)  # type: ignore[union-attr]


class PromptTlsTests(TestCase):
    """A connection that begins with TLS."""

    is_implicit = True

    def setUp(self) -> None:
        self.factory: Any = Factory.forProtocol(Talker)
        self.factory.connected, self.factory.shaken, self.factory.lost = Deferred(), Deferred(), Deferred()
        served = PromptTlsFactory(TLS, False, self.factory) if self.is_implicit else self.factory
        self.port = reactor.listenTCP(0, served, interface="127.0.0.1")  # type: ignore[attr-defined]
        make_prompt(self.port)
        self.addCleanup(self.port.stopListening)

    def _shake_hands(self) -> ssl.SSLSocket:
        client = socket.create_connection(("127.0.0.1", self.port.getHost().port), 30)
        if not self.is_implicit:
            assert client.recv(100) == b"hello\r\n"
            client.sendall(b"STARTTLS")
            assert client.recv(100) == b"go ahead"
        secured = trusting().wrap_socket(client)
        if self.is_implicit:
            assert secured.recv(100) == b"hello\r\n"
        return secured

    async def connect(self) -> tuple[Any, ssl.SSLSocket]:
        """The server's protocol, and the client, greeted under TLS."""
        client = await deferToThread(self._shake_hands)
        server = await self.factory.connected
        await self.factory.shaken
        return server, client

    async def test_it_is_sent_before_write_returns(self) -> None:
        """The client has it while the reactor waits; the transport tells what it always does."""
        server, client = await self.connect()
        server.transport.write(b"250 Ok\r\n")
        self.assertEqual(client.recv(100), b"250 Ok\r\n")
        self.assertTrue(ISSLTransport.providedBy(server.transport))
        self.assertEqual(server.transport.getPeer().port, client.getsockname()[1])
        server.transport.setTcpNoDelay(True)
        client.close()
        await self.factory.lost

    async def test_order_and_wholeness_past_a_full_socket(self) -> None:
        """What the socket does not take is sent later, in order, before the connection ends properly."""
        server, client = await self.connect()
        for number in range(64):
            server.transport.writeSequence([bytes([number]) * 100_000, b"|"])
        server.transport.write(b"end")
        server.transport.loseConnection()

        def read() -> bytes:
            pieces = []
            while piece := client.recv(1 << 20):  # raises where the connection ends without close_notify
                pieces.append(piece)
            client.close()
            return b"".join(pieces)

        received = await deferToThread(read)
        self.assertEqual(received, b"".join(bytes([n]) * 100_000 + b"|" for n in range(64)) + b"end")
        await self.factory.lost

    async def test_what_is_heard(self) -> None:
        """What the client says arrives, in any pieces, and a reset is noticed at the next write."""
        server, client = await self.connect()

        def talk() -> None:
            for number in range(100):
                client.sendall(bytes([number]) * 1000)
            server_may_answer = client.recv(10)
            assert server_may_answer == b"enough"

        talking = deferToThread(talk)
        end = time.monotonic() + 30
        while len(server.heard.removeprefix(b"STARTTLS")) < 100_000 and time.monotonic() < end:
            await deferToThread(time.sleep, 0.01)
        server.transport.write(b"enough")
        await talking
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        server.transport.write(b"x")
        server.transport.write(b"y")
        await self.factory.lost


class StartTlsTests(PromptTlsTests):
    """A connection that came in clear."""

    is_implicit = False


class NoHandshakeTests(TestCase):
    """A client that never says hello in TLS."""

    async def test_it_is_greeted_by_nothing(self) -> None:
        """Nothing leaves in clear, and the server can end the connection."""
        factory: Any = Factory.forProtocol(Talker)
        factory.connected, factory.lost = Deferred(), Deferred()
        port = reactor.listenTCP(0, PromptTlsFactory(TLS, False, factory), interface="127.0.0.1")  # type: ignore[attr-defined]
        make_prompt(port)
        client = await deferToThread(socket.create_connection, ("127.0.0.1", port.getHost().port), 30)
        server = await factory.connected
        self.assertTrue(ITCPTransport.providedBy(server.transport))
        server.transport.abortConnection()

        def read() -> bytes:
            try:
                return client.recv(100)
            except ConnectionResetError:
                return b""

        received = await deferToThread(read)
        self.assertNotIn(b"hello", received)
        await factory.lost
        client.close()
        await port.stopListening()
