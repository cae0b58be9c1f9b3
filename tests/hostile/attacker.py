"""A client without manners: raw octets over real connections, from any address of 127/8."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType

from tests.end_to_end.server import Server
from tests.end_to_end.test_exchange import untrusting

STRANGER = "127.0.0.66"  # a client outside of mynetworks, which are 127.0.0.1 here
PATIENCE = 60.0  # seconds


class Attacker:
    """One connection. Lines are octets without their CR LF."""

    def __init__(self, server: Server, service: str, address: str = STRANGER) -> None:
        where = ("127.0.0.1", server.ports[service])
        self.socket: socket.socket = socket.create_connection(where, PATIENCE, source_address=(address, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self.has_ended = False
        self.greeting = self.line() if not service.endswith("s") else b""

    def __enter__(self) -> Attacker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> None:
        """The octets leave in one segment, if they fit."""
        self.socket.sendall(octets)

    def line(self) -> bytes:
        """The next line; b"" at the end of the connection, however it ends."""
        while b"\n" not in self._unread:
            try:
                more = self.socket.recv(65_536)
            except (ConnectionError, ssl.SSLError):
                more = b""
            if not more:
                self.has_ended = True
                return b""
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.rstrip(b"\r")

    def reply(self) -> bytes:
        """The last line of the next SMTP reply."""
        line = self.line()
        while line[3:4] == b"-":
            line = self.line()
        return line

    def ask(self, command: bytes) -> bytes:
        """The last line of the SMTP reply to the command."""
        self.send(command + b"\r\n")
        return self.reply()

    def tagged(self, command: bytes) -> bytes:
        """The tagged answer to an IMAP command."""
        self.send(b"t " + command + b"\r\n")
        while True:
            line = self.line()
            if line.startswith((b"t ", b"* BYE")) or self.has_ended:
                return line

    def rest(self) -> bytes:
        """Everything until the connection ends."""
        lines = []
        while not self.has_ended:
            lines.append(self.line())
        return b"\n".join(lines)

    def start_tls(self) -> None:
        """The handshake is done; what was read in clear is forgotten. Raises OSError where there is none."""
        self._unread = b""
        self.socket = untrusting().wrap_socket(self.socket)


def logged_in(server: Server, name: str = "alice", address: str = "127.0.0.1") -> Attacker:
    """An IMAP session past its login."""
    client = Attacker(server, "imap", address)
    answer = client.tagged(f'LOGIN {name} "{server.passwords[name]}"'.encode())
    assert answer.startswith(b"t OK"), answer
    return client
