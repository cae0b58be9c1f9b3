"""A policy server on loopback that says what it is told to, or misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol

Answer = str | Callable[["PolicyServer"], None]


class PolicyServer(Protocol):
    """One connection."""

    factory: PolicyServers
    transport: Any

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.buffer = b""

    def dataReceived(self, data: bytes) -> None:
        self.buffer += data
        while b"\n\n" in self.buffer:
            text, _, self.buffer = self.buffer.partition(b"\n\n")
            self.factory.requests.append(dict(line.split("=", 1) for line in text.decode().splitlines()))
            answer = self.factory.answers.pop(0) if len(self.factory.answers) > 1 else self.factory.answers[0]
            if callable(answer):
                answer(self)
            else:
                self.transport.write(f"action={answer}\n\n".encode())


class PolicyServers(Factory):
    """What all connections share: the answers to come, of which the last one stays, and what was asked."""

    protocol = PolicyServer
    noisy = False

    def __init__(self, *answers: Answer) -> None:
        self.answers: list[Answer] = list(answers or ("DUNNO",))
        self.connections: list[PolicyServer] = []
        self.requests: list[dict[str, str]] = []


def drop(server: PolicyServer) -> None:
    """Closes the connection without an answer."""
    server.transport.abortConnection()


def hang(server: PolicyServer) -> None:
    """Says nothing."""


def babble(server: PolicyServer) -> None:
    """Says what is no answer."""
    server.transport.write(b"250 Ok\n\n")


def endless(server: PolicyServer) -> None:
    """An answer without an end."""
    server.transport.write(b"action=" + b"x" * (1 << 17))


def answer_and_close(server: PolicyServer) -> None:
    """DUNNO, and no further question."""
    server.transport.write(b"action=DUNNO\n\n")
    server.transport.loseConnection()
