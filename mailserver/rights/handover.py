"""A session handed over after login: the front relays, the session host serves.

TLS stays in the front. Over the stream to the host goes one frame, four octets of length
(big-endian) and a JSON object `{"service", "preamble", "pending"}`, and then the session's
octets in both directions, with back-pressure both ways. Whichever side ends, the other is
told after what is on its way has arrived. A front that kicks a session shuts down its sending side only: the
host then takes leave of the client and ends.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from mailserver.rights.messages import BadMessage, to_octets, to_text

LENGTH_OCTETS: Final = 4
LARGEST_FRAME: Final = 1024 * 1024  # octets; what a client may have pipelined behind its login


class HasStream(Interface):
    """A granted login whose stream leads to a session host."""

    @property
    def stream(self) -> int:
        """A connected stream socket, ours from now on."""


def frame(service: str, preamble: Mapping[str, Any], pending: bytes) -> bytes:
    """What the host reads first. Raises ValueError where too much is pending."""
    content = json.dumps({"service": service, "preamble": preamble, "pending": to_text(pending)}).encode()
    if len(content) > LARGEST_FRAME:
        raise ValueError("too much is pending to hand the session over")
    return len(content).to_bytes(LENGTH_OCTETS, "big") + content


class FirstFrame:
    """Collects the frame from a stream's first octets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[Mapping[str, Any], bytes] | None:
        """The frame's object and the octets to serve (pending ones first), once it is whole.

        Raises BadMessage.
        """
        self._buffer += data
        length = int.from_bytes(self._buffer[:LENGTH_OCTETS], "big")
        if length > LARGEST_FRAME and len(self._buffer) >= LENGTH_OCTETS:
            raise BadMessage("the first frame is too large")
        if len(self._buffer) < LENGTH_OCTETS or len(self._buffer) < LENGTH_OCTETS + length:
            return None
        try:
            found = json.loads(self._buffer[LENGTH_OCTETS : LENGTH_OCTETS + length])
            pending = to_octets(found["pending"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadMessage("the first frame is malformed") from error
        return found, pending + bytes(self._buffer[LENGTH_OCTETS + length :])


class _HostSide(Protocol):
    """The front's connection to the session host."""

    transport: Any

    def __init__(self, client: Any, first: bytes) -> None:
        self._client = client
        self._first = first
        self._is_open = False
        self._is_kicked = False

    def connectionMade(self) -> None:
        """The frame is sent, and each side waits for the other where it is slower."""
        self._is_open = True
        self.transport.write(self._first)
        self._client.registerProducer(self.transport, True)
        self.transport.registerProducer(self._client, True)
        self._client.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        """The host's octets go to the client."""
        self._client.write(data)

    def forward(self, data: bytes) -> None:
        """The client's octets go to the host."""
        if self._is_open and not self._is_kicked:
            self.transport.write(data)

    def kick(self) -> None:
        """The host is to end the session, after what the client has said so far."""
        if self._is_open and not self._is_kicked:
            self._is_kicked = True
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def client_lost(self) -> None:
        """The host sees the end of the session."""
        if self._is_open:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = Failure(RuntimeError("connectionLost"))) -> None:  # noqa: B008
        """The host ended the session: the client is disconnected, after what was written."""
        self._is_open = False
        self._client.unregisterProducer()
        self._client.loseConnection()


class _OneProtocol(Factory):
    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


def adopt(reactor: Any, stream: int, protocol: Protocol) -> None:
    """The protocol is connected over that stream socket, which is the reactor's from now on."""
    os.set_blocking(stream, False)
    try:
        with socket.socket(fileno=os.dup(stream)) as same:
            family = same.family
        reactor.adoptStreamConnection(stream, family, _OneProtocol(protocol))
    finally:
        os.close(stream)  # the reactor has a duplicate


class Handover:
    """What the front's factories call: `handover(protocol, granted, preamble, pending)`.

    The protocol gets no further octet; its `connectionLost` is still called at the end. It has
    unregistered its own producer. Its `kick` is the host's from now on.
    """

    def __init__(self, reactor: Any, service: str) -> None:
        self._reactor = reactor
        self._service = service

    def __call__(
        self, protocol: Any, granted: HasStream, preamble: Mapping[str, Any], pending: bytes
    ) -> None:
        """The session is the host's; nothing is lost between the two."""
        client = protocol.transport
        try:
            host = _HostSide(client, frame(self._service, preamble, pending))
        except ValueError:
            os.close(granted.stream)
            client.loseConnection()
            return
        ended = protocol.connectionLost

        def connection_lost(reason: Failure) -> None:
            host.client_lost()
            ended(reason)

        protocol.dataReceived = host.forward
        protocol.connectionLost = connection_lost
        protocol.kick = host.kick
        adopt(self._reactor, granted.stream, host)
