"""The transport that sends at once, over real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.prompt import PromptServer, hasten, make_prompt

MEGABYTES = 8


class Talker(Protocol):
    """Writes what it is told to, by a script."""

    def connectionMade(self) -> None:
        self.factory.connected.callback(self)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.lost.callback(None)  # type: ignore[union-attr]


class Prompt(TestCase):
    """A listening port made prompt."""

    def setUp(self) -> None:
        self.factory = Factory.forProtocol(Talker)
        self.factory.connected = Deferred()  # type: ignore[attr-defined]
        self.factory.lost = Deferred()  # type: ignore[attr-defined]
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        make_prompt(self.port)
        self.addCleanup(self.port.stopListening)

    async def connect(self) -> tuple[Any, socket.socket]:
        """The server's protocol and the client's socket."""
        client = await deferToThread(socket.create_connection, ("127.0.0.1", self.port.getHost().port), 10)
        server = await self.factory.connected  # type: ignore[attr-defined]
        self.assertIsInstance(server.transport, PromptServer)
        return server, client

    async def test_it_is_sent_before_write_returns(self) -> None:
        """No turn of the reactor is needed."""
        server, client = await self.connect()
        server.transport.write(b"250 Ok\r\n")
        client.setblocking(False)
        self.assertEqual(client.recv(100), b"250 Ok\r\n")
        client.close()
        await self.factory.lost  # type: ignore[attr-defined]

    async def test_pieces_are_sent_before_write_sequence_returns(self) -> None:
        """They need not be joined for that."""
        server, client = await self.connect()
        server.transport.writeSequence([b"250-a\r\n", b"", b"250 b\r\n"])
        client.setblocking(False)
        self.assertEqual(client.recv(100), b"250-a\r\n250 b\r\n")
        client.close()
        await self.factory.lost  # type: ignore[attr-defined]

    async def test_pieces_keep_their_order_past_a_full_socket(self) -> None:
        """More pieces than one system call takes, and more octets than the socket does."""
        server, client = await self.connect()
        for number in range(64):
            server.transport.writeSequence([bytes([number]) * 100 for _ in range(1500)])
            server.transport.write(b"|")
        server.transport.loseConnection()
        received = b""
        while data := await deferToThread(client.recv, 1 << 20):
            received += data
        self.assertEqual(received, b"".join(bytes([number]) * 150_000 + b"|" for number in range(64)))
        client.close()
        await self.factory.lost  # type: ignore[attr-defined]

    async def test_order_and_wholeness_past_a_full_socket(self) -> None:
        """What the socket does not take is sent later, in order, before the connection ends."""
        server, client = await self.connect()
        for number in range(MEGABYTES * 16):
            server.transport.write(bytes([number]) * 65_536)
        server.transport.loseConnection()

        def read() -> bytes:
            pieces = []
            while piece := client.recv(1 << 20):
                pieces.append(piece)
            client.close()
            return b"".join(pieces)

        received = await deferToThread(read)
        self.assertEqual(received, b"".join(bytes([number]) * 65_536 for number in range(MEGABYTES * 16)))
        await self.factory.lost  # type: ignore[attr-defined]

    async def test_a_vanished_client_is_noticed(self) -> None:
        """A write to a reset connection ends it in the usual way."""
        server, client = await self.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        server.transport.write(b"x")
        server.transport.write(b"y")
        await self.factory.lost  # type: ignore[attr-defined]


class Clumsy(Protocol):
    """Fails at the second thing that it hears; answers the first."""

    def connectionMade(self) -> None:
        self.factory.met.append(self)  # type: ignore[union-attr]
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        if self.heard:
            raise RuntimeError("clumsy")
        self.heard = data
        self.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.met.remove(self)  # type: ignore[union-attr]


class Hastened(TestCase):
    """A reactor of its own, hastened and turned by hand."""

    def test_a_fault_ends_its_connection_alone(self) -> None:
        """It is logged, and whoever else is connected is served as before."""
        factory = Factory.forProtocol(Clumsy)
        factory.met = met = []  # type: ignore[attr-defined]
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        make_prompt(port)
        clients = [socket.create_connection(("127.0.0.1", port.getHost().port), 30) for _ in range(2)]
        self.turn_until(lambda: len(met) == 2)
        clients[0].sendall(b"one")
        self.turn_until(lambda: any(each.heard for each in met))
        clients[0].sendall(b"two")
        self.turn_until(lambda: len(met) == 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        clients[1].sendall(b"three")
        self.turn_until(lambda: bool(met[0].heard))
        self.assertEqual(clients[1].recv(100), b"three")
        for client in clients:
            client.close()
        self.turn_until(lambda: not met)
        port.stopListening()

    def setUp(self) -> None:
        self.reactor = EPollReactor()
        hasten(self.reactor)

    def turn_until(self, is_so: Callable[[], bool]) -> None:
        """The reactor has turned until it is so."""
        end = time.monotonic() + 30
        while not is_so() and time.monotonic() < end:
            self.reactor.iterate(0.1)
        self.assertTrue(is_so())
