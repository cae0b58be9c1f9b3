"""A client of a running server that shows what is said, octet for octet."""

from __future__ import annotations

import socket


class PlainClient:
    """One connection, logged in."""

    def __init__(self, port: int, name: str, password: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._file = self._socket.makefile("rb")
        self._file.readline()
        assert b"login OK" in self.ask(f"login LOGIN {name} {password}")

    def ask(self, line: str) -> bytes:
        """All that is said up to the tagged line."""
        self._socket.sendall(line.encode() + b"\r\n")
        tag, said = line.split()[0].encode() + b" ", b""
        while True:
            heard = self._file.readline()
            assert heard, said
            said += heard
            if heard.startswith(tag):
                return said
