"""A before-queue content filter, as SMTPD_PROXY_README has it: an SMTP proxy between two SMTP servers."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from tests.end_to_end.server import DEADLINE

OFFERED = ("PIPELINING", "8BITMIME", "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE")


class _Proxy(socketserver.StreamRequestHandler):
    """One session: what is said is said to the second server, and its replies come back."""

    server: Any

    def handle(self) -> None:
        self.server.sessions += 1
        self.server.running += 1
        with contextlib.suppress(OSError):
            self.pass_on()
        self.server.running -= 1

    def pass_on(self) -> None:
        address = ("127.0.0.1", self.server.back)
        with (
            socket.create_connection(address, timeout=DEADLINE) as self.back,
            self.back.makefile("rb") as self.replies,
        ):
            self.replies.readline()
            self.back.sendall(b"EHLO filter.test\r\n")
            self.reply_of_back()
            if self.say(self.server.deeds.get("greeting", "220 filter.test ESMTP")):
                self.talk()

    def talk(self) -> None:
        for line in self.rfile:
            command = line.strip().decode()
            self.server.told.append(command)
            verb = command.split()[0].upper()
            argument = command.partition(" ")[2]
            deed = self.server.deeds.get(verb, self.server.deeds.get(argument))
            reply = self.answer(verb, line) if deed is None else deed
            if not self.say(reply) or verb == "QUIT":
                return

    def answer(self, verb: str, line: bytes) -> str:
        if verb == "EHLO":
            words = ("filter.test", *self.server.offered)
            return "\r\n".join(
                f"250{' ' if at == len(words) else '-'}{word}" for at, word in enumerate(words, 1)
            )
        if verb == "XFORWARD":
            return "250 2.0.0 Ok"
        if verb == "DATA":
            return self.content()
        if verb == "QUIT":
            return "221 2.0.0 Bye"
        self.back.sendall(line)
        return self.reply_of_back()

    def content(self) -> str:
        self.back.sendall(b"DATA\r\n")
        reply = self.reply_of_back()
        if not self.say(reply):
            return ""
        lines: list[bytes] = []
        with contextlib.suppress(ConnectionResetError):
            for line in self.rfile:
                lines.append(line)
                if line == b".\r\n":
                    break
        if lines[-1:] != [b".\r\n"]:
            self.server.told.append("cut off")
            return ""
        self.server.told.append(lines.pop().strip().decode())
        self.server.contents.append(b"".join(lines))
        if "." in self.server.deeds:
            return str(self.server.deeds["."])
        if any(line.startswith(b"Subject: eicar") for line in lines):
            return "550 5.7.1 a virus"
        self.back.sendall(b"X-Filtered: well\r\n" + b"".join(lines) + b".\r\n")
        return self.reply_of_back()

    def reply_of_back(self) -> str:
        while (line := self.replies.readline())[3:4] == b"-":
            pass
        return line.strip().decode()

    def say(self, reply: str) -> bool:
        """Whether the session goes on. "" ends it, without a word."""
        if reply:
            self.wfile.write(reply.encode() + b"\r\n")
        return bool(reply)


class BeforeQueue(socketserver.ThreadingTCPServer):
    """The filter: what it was told, and what it says instead of passing on (`deeds`, by verb or argument)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, back: int) -> None:
        super().__init__(("127.0.0.1", 0), _Proxy)
        self.back = back
        self.port = int(self.server_address[1])
        self.offered = OFFERED
        self.deeds: Mapping[str, str] = {}
        self.told: list[str] = []
        self.contents: list[bytes] = []
        self.sessions = self.running = 0

    def begin(self, deeds: Mapping[str, str]) -> None:
        """Nothing was told yet."""
        self.deeds = deeds
        self.told, self.contents, self.sessions = [], [], 0


@contextlib.contextmanager
def filtering(back: int) -> Iterator[BeforeQueue]:
    """A filter that hands mail to that port of this host."""
    with BeforeQueue(back) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield listener
        listener.shutdown()
