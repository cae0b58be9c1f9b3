"""The connection to a milter: over the reactor for SMTP sessions, over a blocking socket for pickup.

Both are used by the same coroutines; those of the blocking one never wait, so `run_blocking` can drive them.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.milter.rules import MilterFailure
from mailserver.service_endpoint import ServiceEndpoint
from mailserver.wire.milter import MilterError, PacketReader

T = TypeVar("T")
Packet = tuple[bytes, bytes]  # command, data


class Connection(Protocol):
    """A connection to a milter. All but `close` raise MilterFailure, after which it is closed."""

    async def send(self, octets: bytes, seconds: float) -> None:
        """The packets are on their way."""

    async def receive(self, seconds: float) -> Packet:
        """The milter's next packet."""

    def say(self, octets: bytes) -> None:
        """The packets are on their way, if the connection still is. Never raises."""

    def close(self) -> None:
        """The connection ends, behind what was said."""


class Connect(Protocol):
    """Opens connections."""

    async def __call__(self, endpoint: ServiceEndpoint, seconds: float) -> Connection:
        """Raises MilterFailure."""


class ReactorConnect:
    """`Connect` over the reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    async def __call__(self, endpoint: ServiceEndpoint, seconds: float) -> Connection:
        """See `Connect`."""
        try:
            return await endpoint.connect(self._reactor, _ReactorConnection(self._reactor), seconds)
        except (ConnectError, OSError) as error:
            raise MilterFailure(f"connect: {error}") from error


@implementer(IPushProducer)
class _ReactorConnection(TwistedProtocol):
    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._reader = PacketReader()
        self._packets: deque[Packet] = deque()
        self._waiting: Deferred[None] | None = None
        self._failure: MilterFailure | None = None
        self._is_full = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (found := self._reader.take()) is not None:
                self._packets.append(found)
        except MilterError as error:
            self._fail(str(error))
        if self._packets:
            self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fail("connection closed")

    def pauseProducing(self) -> None:
        self._is_full = True

    def resumeProducing(self) -> None:
        self._is_full = False
        self._wake()

    def stopProducing(self) -> None:
        self.resumeProducing()

    def _fail(self, text: str) -> None:
        if self._failure is None:
            self._failure = MilterFailure(text)
            self.transport.abortConnection()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def send(self, octets: bytes, seconds: float) -> None:
        if self._failure is None:
            self.transport.write(octets)
            while self._is_full and self._failure is None:
                await self._something(seconds)
        if self._failure is not None:
            raise self._failure

    async def receive(self, seconds: float) -> Packet:
        while not self._packets:
            if self._failure is not None:
                raise self._failure
            await self._something(seconds)
        return self._packets.popleft()

    async def _something(self, seconds: float) -> None:
        """Something has happened, if only that time is up."""
        timer = self._reactor.callLater(seconds, self._fail, "timeout")
        self._waiting = Deferred()
        await self._waiting
        if timer.active():
            timer.cancel()

    def say(self, octets: bytes) -> None:
        if self._failure is None:
            self.transport.write(octets)

    def close(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._failure = self._failure or MilterFailure("connection closed")


async def blocking_connect(endpoint: ServiceEndpoint, seconds: float) -> Connection:
    """`Connect` over a blocking socket. *Blocking.*"""
    try:
        if endpoint.path:
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(seconds)
            made.connect(endpoint.path)
        else:
            made = socket.create_connection((endpoint.host, endpoint.port), seconds)
    except OSError as error:
        raise MilterFailure(f"connect: {error}") from error
    return _BlockingConnection(made)


class _BlockingConnection:
    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._reader = PacketReader()

    async def send(self, octets: bytes, seconds: float) -> None:
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(octets)
        except OSError as error:
            raise self._failed(str(error)) from error

    async def receive(self, seconds: float) -> Packet:
        end = time.monotonic() + seconds
        try:
            while (found := self._reader.take()) is None:
                self._socket.settimeout(max(end - time.monotonic(), 0.001))
                data = self._socket.recv(65536)
                if not data:
                    raise self._failed("connection closed")
                self._reader.feed(data)
        except (OSError, MilterError) as error:
            raise self._failed(str(error)) from error
        return found

    def _failed(self, text: str) -> MilterFailure:
        self._socket.close()
        return MilterFailure(text)

    def say(self, octets: bytes) -> None:
        try:
            self._socket.sendall(octets)
        except OSError:
            self._socket.close()

    def close(self) -> None:
        self._socket.close()


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that uses blocking connections and `Inline` threads only. *Blocking.*"""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("it waits for the reactor")
