"""Clients that cost little: blocking sockets, no parsing beyond the ends of answers."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence

TIMEOUT = 30.0  # seconds
_PIECE = 1 << 18
_LONGEST_LINE = 4096  # octets of a tagged line


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class _Client:
    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.socket = _connect(port)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)
        self._held = b""

    def close(self) -> None:
        """The connection is closed."""
        self.socket.close()

    def _receive(self) -> bytes:
        data = self.socket.recv(_PIECE)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data

    def line(self) -> bytes:
        """The next line, without its end."""
        while b"\n" not in self._held:
            self._held += self._receive()
        line, _, self._held = self._held.partition(b"\n")
        return line.rstrip(b"\r")


class ImapClient(_Client):
    """IMAP, logged in where an account is given."""

    def __init__(self, port: int, account: str = "", password: str = "", tls: ssl.SSLContext | None = None):
        super().__init__(port, tls)
        self._number = 0
        self.line()
        if account:
            self.command(f"LOGIN {account} {password}")

    def send(self, text: str) -> bytes:
        """The command is sent; its tag."""
        self._number += 1
        tag = b"x%04d" % self._number
        self.socket.sendall(tag + b" " + text.encode() + b"\r\n")
        return tag

    def command(self, text: str) -> bytes:
        """The whole answer; ConnectionError where it is not OK."""
        return self.answer(self.send(text))

    def answer(self, tag: bytes) -> bytes:
        """All up to the tagged line."""
        pieces, tail = [self._held] if self._held else [], self._held
        self._held = b""
        while True:
            start = (b"\r\n" + tail).rfind(b"\r\n" + tag + b" ")
            if start >= 0 and tail.endswith(b"\r\n"):
                if not (b"\r\n" + tail).startswith(tag + b" OK", start + 2):
                    raise ConnectionError(tail[-200:].decode("latin-1"))
                return b"".join(pieces)
            piece = self._receive()
            pieces.append(piece)
            tail = tail[-_LONGEST_LINE:] + piece if len(piece) < _LONGEST_LINE else piece[-_LONGEST_LINE:]

    def append(self, folder: str, content: bytes) -> None:
        """The message is in the folder."""
        tag = self.send(f"APPEND {folder} {{{len(content)}+}}\r\n" + content.decode("latin-1"))
        self.answer(tag)

    def idle(self) -> None:
        """The server tells changes from now on."""
        self.send("IDLE")
        while not self.line().startswith(b"+"):
            pass

    def done(self) -> None:
        """IDLE is over."""
        self.socket.sendall(b"DONE\r\n")
        while not self.line().startswith(b"x"):
            pass


class Pop3Client(_Client):
    """POP3, logged in."""

    def __init__(self, port: int, account: str, password: str) -> None:
        super().__init__(port)
        self.line()
        for text in (f"USER {account}", f"PASS {password}"):
            self.command(text)

    def command(self, text: str) -> bytes:
        """The first line of the answer."""
        self.socket.sendall(text.encode() + b"\r\n")
        line = self.line()
        if not line.startswith(b"+OK"):
            raise ConnectionError(line.decode("latin-1"))
        return line

    def multiline(self, text: str) -> int:
        """The octets of a multi-line answer."""
        self.socket.sendall(text.encode() + b"\r\n")
        while not self._held.endswith(b"\r\n.\r\n"):
            self._held += self._receive()
        octets, self._held = len(self._held), b""
        return octets


class SmtpClient(_Client):
    """SMTP with PIPELINING, as real clients speak it."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._reply()
        self.socket.sendall(b"EHLO client.example.net\r\n")
        self._reply()

    def _reply(self) -> bytes:
        while (line := self.line())[3:4] == b"-":
            pass
        if line[:1] not in b"23":
            raise ConnectionError(line.decode("latin-1"))
        return line

    def send(self, recipients: Sequence[str], content: bytes) -> float:
        """The server has taken the message; seconds from its last dot on. CRLF line ends."""
        lines = [b"MAIL FROM:<sender@example.net>", *(b"RCPT TO:<%s>" % each.encode() for each in recipients)]
        self.socket.sendall(b"\r\n".join((*lines, b"DATA", b"")))
        for _ in range(len(lines) + 1):
            self._reply()
        self.socket.sendall(content + b".\r\n")
        began = time.perf_counter()
        self._reply()
        return time.perf_counter() - began


def trusting_tls() -> ssl.SSLContext:
    """TLS that believes every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
