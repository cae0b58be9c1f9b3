"""tcp: and socketmap:: tables that another program answers for. tcp_table(5), socketmap_table(5).

A connection is kept for the next lookup, as many as there are threads that ask at once; one that the other
side has closed meanwhile is made again. Whatever goes wrong is a TableError, and so temporary. Neither side
shows who it is, so such a table is no alias table.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from mailserver.tables.table import Entry, TableError

SECONDS: Final = 30.0  # a lookup, from the connection to the answer; Postfix waits for 100
LONGEST_LINE: Final = 4096  # octets of tcp:'s reply
LONGEST_REPLY: Final = 100_000  # octets of socketmap:'s
_MOST_IDLE: Final = 8
_LENGTH: Final = re.compile(rb"[0-9]{1,6}")
_ENCODED: Final = re.compile(rb"[^!-$&-~]")

Endpoint = str | tuple[str, int]  # a socket's path, or host and port


class _Gone(OSError):
    """The other side closed the connection before it answered."""


class RemoteTable(ABC):
    """One table of one server. Safe in threads; *blocking*."""

    whole_key = True

    def __init__(self, name: str, endpoint: Endpoint) -> None:
        self.name = name
        self._endpoint = endpoint
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def find(self, key: str) -> Entry | None:
        """See `Table.find`."""
        deadline = time.monotonic() + SECONDS
        text = key.encode("utf-8", "surrogateescape")
        try:
            kept = self._take()
            if kept is not None:
                with contextlib.suppress(_Gone, ConnectionError):
                    return self._entry(self._ask(kept, text, deadline))
            return self._entry(self._ask(self._connect(deadline), text, deadline))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer"
            raise TableError(f"table {self.name}: lookup error: {reason}") from error

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Not listed: there is no such request."""
        raise TableError(f"table {self.name}: sequence operation is not supported")

    @abstractmethod
    def _exchange(self, connection: socket.socket, key: bytes, deadline: float) -> str | None:
        """The value, None where there is none. Raises TableError, OSError, ValueError for no answer."""

    def _entry(self, value: str | None) -> Entry | None:
        return None if value is None else Entry(value, self.name)

    def _take(self) -> socket.socket | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connect(self, deadline: float) -> socket.socket:
        timeout = _left(deadline)
        if isinstance(self._endpoint, tuple):
            return socket.create_connection(self._endpoint, timeout)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(self._endpoint)
        except BaseException:
            connection.close()
            raise
        return connection

    def _ask(self, connection: socket.socket, key: bytes, deadline: float) -> str | None:
        """The connection is kept where an answer came that was understood, else closed."""
        try:
            value = self._exchange(connection, key, deadline)
        except TableError:
            self._keep(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return value

    def _keep(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _fail(self, reason: str) -> TableError:
        return TableError(f"table {self.name}: lookup error: {reason}")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _receive(connection: socket.socket, most: int, deadline: float) -> bytes:
    connection.settimeout(_left(deadline))
    octets = connection.recv(most)
    if not octets:
        raise _Gone("connection closed by the server")
    return octets


class TcpTable(RemoteTable):
    """`tcp:host:port`: `get KEY` and `200 VALUE`, `500` for none, `400` for later."""

    def __init__(self, name: str, argument: str) -> None:
        """Raises TableError."""
        super().__init__(name, _host_and_port(name, argument, "tcp:host:port"))

    def _exchange(self, connection: socket.socket, key: bytes, deadline: float) -> str | None:
        connection.settimeout(_left(deadline))
        connection.sendall(b"get %s\n" % _ENCODED.sub(lambda found: b"%%%02X" % found[0][0], key))
        line = b""
        while not line.endswith(b"\n"):
            line += _receive(connection, LONGEST_LINE, deadline)
            if len(line) > LONGEST_LINE:
                raise ValueError("reply too long")
        code, _, text = line.rstrip(b"\r\n").partition(b" ")
        value = unquote_to_bytes(text).decode("utf-8", "surrogateescape")
        if code == b"200":
            return value
        if code == b"500":
            return None
        raise self._fail(value or f"bad reply {line[:40]!r}")


class SocketmapTable(RemoteTable):
    """`socketmap:inet:host:port:name` and `socketmap:unix:path:name`: netstrings, `OK VALUE`, `NOTFOUND`."""

    def __init__(self, name: str, argument: str) -> None:
        """Raises TableError."""
        form = "socketmap:inet:host:port:name, or socketmap:unix:path:name"
        kind, _, rest = argument.partition(":")
        place, _, self._map = rest.rpartition(":")
        if kind not in ("inet", "unix") or not place or not self._map:
            raise TableError(f'bad socketmap syntax: "{name}": write {form}')
        super().__init__(name, place if kind == "unix" else _host_and_port(name, place, form))

    def _exchange(self, connection: socket.socket, key: bytes, deadline: float) -> str | None:
        request = b"%s %s" % (self._map.encode(), key)
        connection.settimeout(_left(deadline))
        connection.sendall(b"%d:%s," % (len(request), request))
        word, _, text = self._netstring(connection, deadline).partition(b" ")
        value = text.decode("utf-8", "surrogateescape")
        if word == b"OK":
            return value
        if word == b"NOTFOUND":
            return None
        if word in (b"TEMP", b"TIMEOUT", b"PERM"):
            raise self._fail(f"{word.decode()} {value}".strip())
        raise ValueError(f"bad reply {word[:40]!r}")

    def _netstring(self, connection: socket.socket, deadline: float) -> bytes:
        """What the server says. Raises OSError, ValueError."""
        received = b""
        while True:
            head, colon, rest = received.partition(b":")
            if (head or colon) and not _LENGTH.fullmatch(head):
                raise ValueError("bad netstring")
            if head and int(head) > LONGEST_REPLY:
                raise ValueError("bad netstring")
            if colon and len(rest) > int(head):
                break
            received += _receive(connection, LONGEST_REPLY, deadline)
        if rest[int(head) :] != b",":
            raise ValueError("bad netstring")
        return rest[:-1]


def _host_and_port(name: str, text: str, form: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isdecimal() and 0 < int(port) < 65_536):
        raise TableError(f'"{name}": write {form}')
    return host, int(port)
