"""The socket for commands: who may ask what, hostile peers, long paths."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor

from mailserver.maillog import ListLog
from mailserver.queue.directory import QueueDirectory, State
from mailserver.rights import messages
from mailserver.rights.listeners import connect_channel
from mailserver.roles.command_door import PLACE, CommandDoor, Permissions
from mailserver.roles.door import MOST_OF_A_USER
from mailserver.threads import WorkerThreads
from tests.queue.world import envelope


class Told:
    """A runner that notes what it is told."""

    def __init__(self) -> None:
        self.flushes = 0
        self.hurried: list[str] = []

    def flush(self) -> None:
        self.flushes += 1

    def hurry(self, queue_ids: Iterator[str]) -> None:
        self.hurried += queue_ids


class House:
    """A door in a reactor of its own thread."""

    def __init__(self, base: Path) -> None:
        self.path = str(base / "queue")
        self.queue = QueueDirectory(self.path)
        self.queue.prepare()
        self.runner = Told()
        self.log = ListLog()
        self.may: dict[str, bool] = {"list": True, "flush": True}
        self.trusted: set[int] = {os.getuid()}
        self.reactor: Any = EPollReactor()
        self.threads = WorkerThreads(self.reactor, 2)
        self.thread = threading.Thread(target=self._run)
        self.opened = threading.Event()
        self.thread.start()
        self.opened.wait(10)

    def _run(self) -> None:
        self.reactor.callWhenRunning(self._open)
        self.reactor.run(installSignalHandlers=False)

    def _open(self) -> None:
        permissions = Permissions(lambda uid: self.may["list"], lambda uid: self.may["flush"], self.trusted)
        self.door = CommandDoor(
            self.reactor,
            self.threads,
            PLACE.listen(self.path),
            self.queue,
            self.runner,  # type: ignore[arg-type]
            permissions,
            self.log,
        )
        self.opened.set()

    def close(self) -> None:
        def stop() -> None:
            self.door.stop()
            self.threads.stop()
            self.reactor.stop()

        self.reactor.callFromThread(stop)
        self.thread.join(10)
        assert not self.thread.is_alive()

    def ask(self, question: str, value: str = "") -> dict[str, Any]:
        answer, descriptors = PLACE.ask(self.path, question, value, timeout=10)
        messages.close_all(descriptors)
        return dict(answer)

    def put(self, *recipients: str) -> str:
        message = self.queue.create(envelope(*recipients))
        message.write(b"Subject: x\n\nx\n")
        committed = message.commit()
        self.queue.move(committed, State.DEFERRED)
        committed.close()
        return committed.queue_id


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    # Longer than a Unix socket's path may be.
    base = tmp_path / ("x" * 60) / ("y" * 60)
    base.mkdir(parents=True)
    opened = House(base)
    yield opened
    opened.close()


def connected(house: House) -> socket.socket:
    with PLACE.short_path(house.path) as path:
        return connect_channel(path, 10)


def test_anybody_may_connect(house: House) -> None:
    """The socket is open to all, its directory writable by the owner alone."""
    public = Path(house.path) / "public"
    assert stat.S_IMODE(public.stat().st_mode) == 0o755
    assert stat.S_IMODE((public / "commands").stat().st_mode) == 0o666


def test_listing(house: House) -> None:
    """A file of lines, in the form of postqueue -j; several may ask at once."""
    ids = {house.put("a@example.net") for _ in range(3)}
    for _ in range(2):
        answer, descriptors = PLACE.ask(house.path, "list", timeout=10)
        assert answer == {"ok": True}
        with open(descriptors[0], encoding="ascii") as file:
            file.seek(0)
            assert {json.loads(line)["queue_id"] for line in file} == ids


@pytest.mark.parametrize(
    ("question", "value", "done"),
    [
        ("flush", "", lambda runner: runner.flushes == 1),
        ("flush-id", "A395322E2FF", lambda runner: runner.hurried == ["A395322E2FF"]),
        ("released", "A395322E2FF", lambda runner: runner.hurried == ["A395322E2FF"]),
        ("flush-id", "../../x", lambda runner: runner.hurried == []),
    ],
)
def test_what_the_runner_is_told(
    house: House, question: str, value: str, done: Callable[[Told], bool]
) -> None:
    """Ids that are none go nowhere."""
    assert house.ask(question, value) == {"ok": True}
    assert done(house.runner)


def test_a_site(house: House) -> None:
    """Only what waits for that domain, whatever its case."""
    there = house.put("a@example.net")
    house.put("b@example.com")
    assert house.ask("flush-site", "Example.NET") == {"ok": True}
    assert house.runner.hurried == [there]


@pytest.mark.parametrize("question", ["list", "flush", "flush-id", "flush-site"])
def test_who_is_not_allowed(house: House, question: str) -> None:
    """Status 77 and a reason; the runner hears nothing."""
    house.may = {"list": False, "flush": False}
    answer = house.ask(question, "A395322E2FF")
    assert answer["status"] == 77 and "not allowed to" in answer["error"]
    assert house.runner.flushes == 0 and house.runner.hurried == []


def test_what_only_root_and_the_owner_may(house: House) -> None:
    """`released` is postsuper's."""
    house.trusted.clear()
    assert "error" in house.ask("released", "A395322E2FF")


def test_hostile_peers(house: House) -> None:
    """B13: nonsense costs its sender the connection, and nobody else anything."""
    for packet in (b"", b"X", b"J{", b"J[]", b'J{"ask": 1}', b"M", b"J" + b"[" * 60_000):
        peer = connected(house)
        peer.send(packet)
        if packet == b'J{"ask": 1}':
            received = messages.receive(peer)
            assert received is not None and "error" in received[0]
        elif packet:
            assert peer.recv(10) == b""
        peer.close()
    assert house.ask("flush") == {"ok": True}


def test_descriptors_of_strangers_are_closed(house: House) -> None:
    """Whoever sends descriptors does not fill our table."""
    before = len(os.listdir("/proc/self/fd"))
    peer = connected(house)
    read, write = os.pipe()
    for _ in range(20):
        messages.send(peer, {"ask": "flush"}, (read, write))
        assert messages.receive(peer) == ({"ok": True}, [])
    os.close(read)
    os.close(write)
    peer.close()
    assert house.ask("flush") == {"ok": True}
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_many_connections(house: House) -> None:
    """Over a user's limit a connection is closed at once; root and the owner are always heard."""
    house.trusted.clear()
    peers = [connected(house) for _ in range(MOST_OF_A_USER)]
    messages.send(peers[-1], {"ask": "flush"})
    assert messages.receive(peers[-1]) == ({"ok": True}, [])
    late = connected(house)
    assert late.recv(10) == b""
    late.close()
    house.trusted.add(os.getuid())
    assert house.ask("flush") == {"ok": True}
    for peer in peers:
        peer.close()


def test_nobody_listens(tmp_path: Path) -> None:
    """OSError, also where a dead server left its socket."""
    with pytest.raises(OSError):
        PLACE.ask(str(tmp_path), "list")
    listener = PLACE.listen(str(tmp_path))
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        PLACE.ask(str(tmp_path), "list")
    PLACE.listen(str(tmp_path)).close()  # and the next server takes its place
