"""A session handed over: in order, whole, both ways, in clear and under TLS."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.trial.unittest import TestCase

from mailserver.rights.handover import LARGEST_FRAME, FirstFrame, Handover, adopt, frame
from mailserver.rights.messages import BadMessage
from mailserver.tls import self_signed


@given(st.binary(max_size=300), st.binary(max_size=50), st.integers(1, 40))
def test_the_first_frame_in_any_pieces(pending: bytes, after: bytes, size: int) -> None:
    """The host serves what was pending first, then what followed."""
    octets = frame("imap", {"tag": "a1"}, pending) + after
    first, found, rest = FirstFrame(), None, b""
    for start in range(0, len(octets), size):
        piece = octets[start : start + size]
        if found is None:
            found = first.feed(piece)
        else:
            rest += piece
    assert found is not None
    assert found[0]["service"] == "imap" and found[0]["preamble"] == {"tag": "a1"}
    assert found[1] + rest == pending + after


@pytest.mark.parametrize(
    "octets", [b"\xff" * 8, b"\0\0\0\2{}", b"\0\0\0\1x", b"\0\0\0\x0e" + b'{"pending": 1}', b"\0\0\0\0"]
)
def test_a_bad_first_frame_is_refused(octets: bytes) -> None:
    """It comes from a front, which strangers may have taken over."""
    with pytest.raises(BadMessage):
        FirstFrame().feed(octets)


def test_too_much_pending_is_refused() -> None:
    """Bounded."""
    with pytest.raises(ValueError, match="too much"):
        frame("imap", {}, b"x" * LARGEST_FRAME)


class Front(Protocol):
    """Hands over at the first octets; keeps the rest as pending."""

    def __init__(self, stream: int, gone: Deferred[None]) -> None:
        self._stream, self._gone = stream, gone

    def dataReceived(self, data: bytes) -> None:
        @dataclass
        class Granted:
            stream: int

        self.dataReceived = self.never  # type: ignore[method-assign]
        Handover(reactor, "toy")(self, Granted(self._stream), {}, data.removeprefix(b"LOGIN"))

    def never(self, data: bytes) -> None:
        raise AssertionError("the front saw octets of the session")

    def connectionLost(self, reason: Any = None) -> None:
        self._gone.callback(None)


class Host(Protocol):
    """Echoes, and ends the session after END."""

    def __init__(self) -> None:
        self.first, self.served, self.gone = FirstFrame(), b"", Deferred[None]()
        self.is_open = False

    def dataReceived(self, data: bytes) -> None:
        if not self.is_open:
            found = self.first.feed(data)
            if found is None:
                return
            self.is_open, data = True, found[1]
        self.served += data
        transport: Any = self.transport
        transport.write(data)
        if self.served.endswith(b"END"):
            transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(None)


class Client(Protocol):
    """Collects."""

    def __init__(self, first: bytes) -> None:
        self.first, self.received, self.gone = first, b"", Deferred[None]()
        self.something: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self.first)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.something.called:
            self.something.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(None)


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")  # Twisted's own use of it
class Relayed(TestCase):
    """Real sockets on the loopback."""

    async def connect(self, first: bytes, tls: bool) -> tuple[Client, Host, Deferred[None]]:
        front_end, host_end = socket.socketpair()
        host, client, front_gone = Host(), Client(first), Deferred[None]()
        adopt(reactor, host_end.detach(), host)
        factory = Factory.forProtocol(lambda: Front(front_end.detach(), front_gone))  # type: ignore[arg-type]
        if tls:
            pair = self_signed(["localhost"], time.time())
            context = ssl.PrivateCertificate.loadPEM(pair.key + pair.chain).options()
            port = reactor.listenSSL(0, factory, context, interface="127.0.0.1")  # type: ignore[attr-defined]
        else:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        if tls:
            trust: Any = ssl.Certificate.loadPEM(pair.chain)
            endpoint = wrapClientTLS(optionsForClientTLS("localhost", trustRoot=trust), endpoint)
        await connectProtocol(endpoint, client)
        return client, host, front_gone

    async def everything_arrives(self, tls: bool) -> None:
        content = os.urandom(3_000_000)
        client, host, front_gone = await self.connect(b"LOGIN" + content + b"END", tls)
        await client.gone
        await front_gone
        self.assertEqual(host.served, content + b"END")
        self.assertEqual(client.received, content + b"END")

    async def the_host_learns_the_end(self, tls: bool) -> None:
        client, host, front_gone = await self.connect(b"LOGIN hello", tls)
        await client.something
        transport: Any = client.transport
        transport.loseConnection()
        await host.gone
        await front_gone
        self.assertEqual(host.served, b" hello")

    def test_all_octets_arrive_and_the_client_sees_the_end(self) -> Deferred[None]:
        """P4: nothing is cut off when the host ends the session."""
        return Deferred.fromCoroutine(self.everything_arrives(tls=False))

    def test_all_octets_arrive_under_tls(self) -> Deferred[None]:
        """TLS stays in the front."""
        return Deferred.fromCoroutine(self.everything_arrives(tls=True))

    def test_the_host_sees_the_client_go(self) -> Deferred[None]:
        """And the front's own connectionLost still runs."""
        return Deferred.fromCoroutine(self.the_host_learns_the_end(tls=False))

    def test_the_host_sees_the_client_go_under_tls(self) -> Deferred[None]:
        """The same with TLS."""
        return Deferred.fromCoroutine(self.the_host_learns_the_end(tls=True))
