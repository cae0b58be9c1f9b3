"""A milter on loopback that answers as it is told, and remembers what it heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from mailserver.wire import milter
from mailserver.wire.milter import PacketReader, packet

ALL_CHANGES = 0x1FF
Answer = bytes | Callable[["TestMilter"], None]  # packets


class TestMilter(Protocol):
    """One connection."""

    __test__ = False
    factory: TestMilters
    transport: Any

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.reader = PacketReader()

    def dataReceived(self, data: bytes) -> None:
        self.reader.feed(data)
        while (found := self.reader.take()) is not None:
            self.heard(*found)

    def heard(self, command: bytes, data: bytes) -> None:
        factory = self.factory
        factory.said.append((command, data))
        if command in (milter.MACRO, milter.ABORT, milter.QUIT):
            return
        if command == milter.OPTNEG:
            words = (factory.version, factory.allowed, factory.steps)
            self.transport.write(
                packet(milter.OPTNEG, b"".join(each.to_bytes(4) for each in words) + factory.macro_lists)
            )
            return
        answer = factory.answers.get(command, packet(milter.CONTINUE))
        if callable(answer):
            answer(self)
        else:
            self.transport.write(answer)


class TestMilters(Factory):
    """What all connections share. `answers` are by command; all others continue."""

    __test__ = False
    protocol = TestMilter
    noisy = False

    def __init__(self, answers: Mapping[bytes, Answer] | None = None, **facts: Any) -> None:
        self.answers = dict(answers or {})
        self.version = facts.get("version", 6)
        self.allowed = facts.get("allowed", ALL_CHANGES)
        self.steps = facts.get("steps", 0)
        self.macro_lists = facts.get("macro_lists", b"")
        self.connections: list[TestMilter] = []
        self.said: list[tuple[bytes, bytes]] = []

    def commands(self) -> str:
        """The commands that were heard, macros left out."""
        return b"".join(command for command, _ in self.said if command != milter.MACRO).decode()

    def texts(self, command: bytes) -> list[list[bytes]]:
        """The strings of each packet of that command."""
        return [data.removesuffix(b"\0").split(b"\0") for each, data in self.said if each == command]

    def macros(self, command: bytes) -> dict[str, str]:
        """What was said with the last of that command."""
        found = [data[1:] for each, data in self.said if each == milter.MACRO and data[:1] == command]
        words = found[-1].decode().split("\0")[:-1] if found else []
        return dict(zip(words[::2], words[1::2], strict=True))


def drop(server: TestMilter) -> None:
    """Closes the connection."""
    server.transport.abortConnection()


def hang(server: TestMilter) -> None:
    """Says nothing."""


def texts(command: bytes, *words: bytes, index: int | None = None) -> bytes:
    """A packet with strings, and an index in front where one is given."""
    return packet(command, (b"" if index is None else index.to_bytes(4)) + milter.strings(*words))
