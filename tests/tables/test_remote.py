"""tcp: and socketmap: tables: tcp_table(5), socketmap_table(5), against servers on loopback."""

from __future__ import annotations

import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailserver.tables import remote
from mailserver.tables.open import TableOpener, open_table
from mailserver.tables.table import TableError

TCP = {
    b"get a%20b%25": b"200 two%20words%0a%c3%bc\n",
    b"get none": b"500 no\n",
    b"get later": b"400 database%20down\n",
    b"get odd": b"hello\n",
    b"get long": b"200 " + b"x" * 5000 + b"\n",
    b"get mute": b"",
}
SOCKETMAP = {
    b"dir a b": b"OK two words",
    b"dir none": b"NOTFOUND ",
    b"dir later": b"TEMP database down",
    b"dir never": b"PERM",
    b"dir odd": b"HELLO",
    b"dir big": b"OK " + b"x" * 90_000,
}


class Server(socketserver.ThreadingTCPServer):
    """Answers in threads; `connections` counts."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: Callable[[socketserver.StreamRequestHandler], bool]) -> None:
        self.connections = 0
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                server.connections += 1
                while answer(self):
                    pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


def answer_tcp(handler: socketserver.StreamRequestHandler) -> bool:
    line = handler.rfile.readline()
    reply = TCP.get(line.rstrip(b"\n"), b"500 no\n")
    handler.wfile.write(reply)
    return bool(line and reply)


def answer_socketmap(handler: socketserver.StreamRequestHandler) -> bool:
    length = b""
    while (octet := handler.rfile.read(1)) not in (b":", b""):
        length += octet
    if not length:
        return False
    request = handler.rfile.read(int(length) + 1)
    reply = SOCKETMAP.get(request[:-1])
    if reply is None:
        handler.wfile.write(b"999999999999:x")
        return False
    handler.wfile.write(b"%d:%s," % (len(reply), reply))
    return True


@pytest.fixture
def tcp() -> Iterator[Server]:
    with Server(answer_tcp) as server:
        yield server
        server.shutdown()


@pytest.fixture
def socketmap() -> Iterator[Server]:
    with Server(answer_socketmap) as server:
        yield server
        server.shutdown()


def test_tcp(tcp: Server) -> None:
    """Keys and values are encoded; 500 is none, 400 and nonsense are errors; one connection serves all."""
    table = open_table(f"tcp:127.0.0.1:{tcp.port}")
    found = table.find("a b%")
    assert found is not None and (found.value, found.source) == ("two words\n\u00fc", table.name)
    assert table.find("none") is None
    with pytest.raises(TableError, match="lookup error: database down"):
        table.find("later")
    with pytest.raises(TableError, match="bad reply"):
        table.find("odd")
    assert table.find("none") is None and tcp.connections == 1
    with pytest.raises(TableError, match="too long"):
        table.find("long")
    with pytest.raises(TableError, match="closed by the server"):
        table.find("mute")


def test_socketmap(socketmap: Server) -> None:
    """OK, NOTFOUND, TEMP, PERM, and what is no netstring."""
    table = open_table(f"socketmap:inet:127.0.0.1:{socketmap.port}:dir")
    found = table.find("a b")
    assert found is not None and found.value == "two words"
    assert table.find("none") is None
    big = table.find("big")
    assert big is not None and len(big.value) == 90_000
    for key, reason in (("later", "TEMP database down"), ("never", "PERM"), ("odd", "bad reply")):
        with pytest.raises(TableError, match=reason):
            table.find(key)
    with pytest.raises(TableError, match="bad netstring"):
        table.find("unknown")


def test_a_connection_that_was_closed_is_made_again(tcp: Server) -> None:
    """The server restarted meanwhile: no lookup fails for it."""
    table = open_table(f"tcp:127.0.0.1:{tcp.port}")
    assert table.find("none") is None
    assert isinstance(table, remote.RemoteTable)
    table._idle[0].shutdown(2)
    assert table.find("none") is None
    tcp.shutdown()
    tcp.server_close()
    table._idle[0].shutdown(2)
    with pytest.raises(TableError, match="Connection refused"):
        table.find("none")


def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    """socketmap:unix:PATH:NAME; where nobody listens that is an error."""
    with pytest.raises(TableError, match="No such file"):
        open_table(f"socketmap:unix:{tmp_path}/s:dir").find("a b")


def test_nobody_waits_for_ever(tcp: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing is an error."""
    monkeypatch.setattr(remote, "SECONDS", 0.05)
    monkeypatch.setitem(TCP, b"get slow", b"2")
    with pytest.raises(TableError, match="timed out"):
        open_table(f"tcp:127.0.0.1:{tcp.port}").find("slow")


@pytest.mark.parametrize(
    "name", ["tcp:host", "tcp::1", "tcp:h:99999", "socketmap:h:1:n", "socketmap:inet:h:n"]
)
def test_bad_names(name: str) -> None:
    """Said where the table is opened."""
    with pytest.raises(TableError, match="write"):
        open_table(name)


def test_no_alias_table() -> None:
    """What anybody may answer is nothing to run commands by."""
    with pytest.raises(TableError, match="not allowed for security sensitive data"):
        TableOpener().aliases("tcp:127.0.0.1:1")


@pytest.mark.needs("postfix")
def test_as_postfix_asks(tcp: Server, socketmap: Server) -> None:
    """Debian's postmap gets the same answers from the same servers."""
    names = (f"tcp:127.0.0.1:{tcp.port}", f"socketmap:inet:127.0.0.1:{socketmap.port}:dir")
    for name, key in ((names[0], "a b%"), (names[0], "none"), (names[1], "a b"), (names[1], "none")):
        found = open_table(name).find(key)
        done = subprocess.run(
            ["/usr/sbin/postmap", "-q", key, name], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.stdout, done.returncode) == (f"{found.value}\n" if found else "", 0 if found else 1)
