"""A session host's guests: so many of each, and their end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.config.read import read_config
from mailserver.guests.frames import receive_frame, send_frame
from mailserver.maillog import ListLog
from mailserver.roles import neighbours
from mailserver.roles.neighbours import MOST_OF_A_GUEST, Guests
from tests.guests.harness import NeighbourServer

DEADLINE = 30.0


class Reactor:
    """Calls at once what other threads want called."""

    def callFromThread(self, function: Callable[[], None]) -> None:
        function()


class Door:
    """Alice's host, and those who came and went."""

    def __init__(self, directory: Path) -> None:
        self.server = NeighbourServer(directory)
        (directory / "main.cf").write_text("")
        self.log = ListLog()
        config, alice = read_config(str(directory), {}), self.server.people["alice"]
        self.guests = Guests(config, alice, self.server.hosts.own["alice"], self.log, Reactor())
        self.gone = threading.Semaphore(0)

    def visit(self, name: str = "bob") -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE)
        self.guests.welcome({"name": name, "groups": []}, theirs.detach(), lambda: self.gone.release())
        return ours


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    door = Door(tmp_path)
    yield door
    door.server.close()


def is_served(visitor: socket.socket) -> bool:
    send_frame(visitor, {"id": 1, "op": "folders"})
    found = receive_frame(visitor)
    return found is not None and found[0]["done"] == []


def test_so_many_of_each(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than a guest may have, or all together, is closed at once, and told; the others stay."""
    visitors = [door.visit() for _ in range(MOST_OF_A_GUEST)]
    refused = door.visit()
    assert refused.recv(1) == b"" and door.gone.acquire(timeout=DEADLINE)
    carol = door.visit("carol")  # who stays, as long as she has a name here
    assert all(map(is_served, visitors)) and is_served(carol)
    assert [text for _, text in door.log.lines] == ["Warning: too many connections of guest bob"]
    monkeypatch.setattr(neighbours, "MOST_GUESTS", MOST_OF_A_GUEST + 1)
    assert door.visit("dave").recv(1) == b""
    door.gone.acquire(timeout=DEADLINE)
    visitors[0].close()
    assert door.gone.acquire(timeout=DEADLINE)
    assert is_served(door.visit()) and is_served(carol)
    door.guests.shut()


def test_the_host_ends(door: Door) -> None:
    """Its guests are told to go, and each is heard of once."""
    visitors = [door.visit(), door.visit("carol")]
    assert all(map(is_served, visitors))
    door.guests.shut()
    assert [visitor.recv(1) for visitor in visitors] == [b"", b""]
    assert door.gone.acquire(timeout=DEADLINE) and door.gone.acquire(timeout=DEADLINE)
    assert not door.gone.acquire(blocking=False)
