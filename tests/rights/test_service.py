"""A channel service: many requests, answers held back, crashes of one request."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.maillog import ListLog
from mailserver.rights import messages
from mailserver.rights.listeners import connect_channel, listen_channel
from mailserver.rights.messages import Message
from mailserver.rights.service import Answer, ChannelService


class Running:
    """A service in a thread, whose requests say what to do."""

    def __init__(self, path: str, allowed: set[int]) -> None:
        self.path, self.log = path, ListLog()
        self.gate = threading.Event()
        self._listener = listen_channel(path)
        self.service = ChannelService(self._listener, self.handle, allowed, self.log, workers=2)
        self.thread = threading.Thread(target=self.service.run)
        self.thread.start()

    def handle(self, message: Message, descriptors: list[int]) -> Answer:
        messages.close_all(descriptors)
        if message.get("wait"):
            self.gate.wait(20)
        if message.get("fail"):
            raise ZeroDivisionError("oops")
        if message.get("pipe"):
            reading, writing = os.pipe()
            os.write(writing, b"content")
            os.close(writing)
            return Answer({}, (reading,))
        return Answer({"echo": message.get("text")}, delay=message.get("delay", 0))

    def connect(self) -> socket.socket:
        return connect_channel(self.path, 20)

    def end(self) -> None:
        self.gate.set()
        self.service.stop()
        self.thread.join(20)
        self._listener.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    service = Running(str(tmp_path / "channel"), {os.geteuid()})
    yield service
    service.end()


def receive(connection: socket.socket) -> Message:
    received = messages.receive(connection)
    assert received is not None
    return received[0]


def test_a_held_answer_holds_up_nobody(running: Running) -> None:
    """P9: more answers are held back than there are threads, and the next request is served."""
    with running.connect() as connection:
        for number in range(20):
            messages.send(connection, {"id": number, "delay": 3600})
        messages.send(connection, {"id": 99, "text": "quick"})
        assert receive(connection) == {"id": 99, "echo": "quick"}


def test_answers_come_by_their_delay(running: Running) -> None:
    """And carry the id of their request."""
    with running.connect() as connection:
        messages.send(connection, {"id": 1, "delay": 0.2})
        messages.send(connection, {"id": 2, "delay": 0.1})
        assert [receive(connection)["id"] for _ in range(2)] == [2, 1]


def test_a_request_that_fails_costs_itself_only(running: Running) -> None:
    """P5: the asker learns that it failed, the log why."""
    with running.connect() as connection:
        messages.send(connection, {"id": 1, "fail": True})
        assert receive(connection) == {"id": 1, "error": "internal error"}
        messages.send(connection, {"id": 2, "text": "on"})
        assert receive(connection)["echo"] == "on"
    assert "ZeroDivisionError" in running.log.lines[0][1]


def test_descriptors_are_given_away(running: Running) -> None:
    """None stays open here; neither does one for a connection that is gone."""
    before = len(os.listdir("/proc/self/fd"))
    with running.connect() as connection:
        messages.send(connection, {"id": 1, "pipe": True})
        received = messages.receive(connection)
        assert received is not None
        with open(received[1][0], "rb") as file:
            assert file.read() == b"content"
    with running.connect() as gone:
        messages.send(gone, {"id": 1, "wait": True, "pipe": True})
    running.gate.set()
    with running.connect() as connection:
        messages.send(connection, {"id": 1, "text": "after"})
        receive(connection)
    running.end()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_flood_closes_its_own_connection(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded: no more requests of one connection than may wait."""
    monkeypatch.setattr("mailserver.rights.service.MOST_PENDING", 5)
    with running.connect() as flood, running.connect() as other:
        for number in range(6):
            messages.send(flood, {"id": number, "delay": 3600})
        assert messages.receive(flood) is None
        messages.send(other, {"id": 1, "text": "here"})
        assert receive(other)["echo"] == "here"


def test_strangers_are_not_heard(tmp_path: Path) -> None:
    """Whoever connects is checked by the kernel's word, not by the file's mode alone."""
    service = Running(str(tmp_path / "channel"), {os.geteuid() + 1})
    try:
        with service.connect() as connection:
            assert messages.receive(connection) is None
    finally:
        service.end()
