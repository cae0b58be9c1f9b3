"""A channel for every user: one question a connection, the kernel says who asks, others have room."""

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
from mailserver.rights.user_service import MOST_OF_A_USER, UserService


class Running:
    """A service that says who asked; one asked to wait does so for the gate."""

    def __init__(self, path: str) -> None:
        self.path, self.log, self.gate = path, ListLog(), threading.Event()
        self.listener = listen_channel(path, 0o666)
        self.service = UserService(self.listener, self.handle, self.log)
        self.service.start()

    def handle(self, uid: int, question: Message) -> Message:
        if question.get("wait"):
            self.gate.wait(30)
        return {"uid": uid, "text": question["text"]}

    def connect(self) -> socket.socket:
        return connect_channel(self.path, 30)

    def ask(self, question: Message) -> Message | None:
        with self.connect() as connection:
            messages.send(connection, question)
            received = messages.receive(connection)
        return None if received is None else received[0]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    service = Running(str(tmp_path / "channel"))
    yield service
    service.gate.set()
    service.service.stop()
    service.listener.close()


def test_who_asks_is_the_kernels_word(running: Running) -> None:
    """What the question says of it is nothing."""
    assert running.ask({"text": "x", "uid": 12345}) == {"uid": os.geteuid(), "text": "x"}


def test_a_question_that_fails_costs_itself_only(running: Running) -> None:
    """Whoever asked is told, the log knows more, the next one is answered."""
    answer = running.ask({})
    assert answer is not None and "internal error" in answer["error"]
    assert f"request of uid {os.geteuid()} failed: KeyError" in str(running.log.lines)
    with running.connect() as connection:
        connection.send(b"no message")
        assert connection.recv(100) == b""
    assert running.ask({"text": "x"}) is not None


def test_a_user_has_so_many_connections(running: Running) -> None:
    """One more is closed at once; when the others have ended there is room again."""
    held = [running.connect() for _ in range(MOST_OF_A_USER)]
    for connection in held:
        messages.send(connection, {"wait": True, "text": "x"})
    with running.connect() as refused:
        assert refused.recv(100) == b""
    running.gate.set()
    for connection in held:
        assert messages.receive(connection) is not None
        assert connection.recv(100) == b""
        connection.close()
    for _ in range(1000):
        with running.connect() as connection:
            messages.send(connection, {"text": "x"})
            if connection.recv(100):
                return
    pytest.fail("there is no room")


def test_a_retired_service_leaves_the_listener_to_another(running: Running) -> None:
    """Two processes have it during a reload; who comes after `stop` is the other one's."""
    running.service.stop()
    successor = UserService(running.listener, lambda uid, question: {"new": True}, running.log)
    with running.connect() as connection:  # in between: it waits
        messages.send(connection, {"text": "x"})
        successor.start()
        received = messages.receive(connection)
    successor.stop()
    assert received is not None and received[0] == {"new": True}
