"""A mail exchanger on loopback, or an LMTP server, that behaves, or misbehaves at a chosen stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

Deed = str | Callable[["MailExchanger"], None]

STAGES = ("greeting", "EHLO", "STARTTLS", "MAIL", "RCPT", "DATA", "dot", "QUIT")


def hang(exchanger: MailExchanger) -> None:
    """Says nothing, for ever."""


def drop(exchanger: MailExchanger) -> None:
    """Closes the connection."""
    exchanger.transport.loseConnection()


def reset(exchanger: MailExchanger) -> None:
    """Resets the connection."""
    exchanger.transport.abortConnection()


def babble(exchanger: MailExchanger) -> None:
    """Says what is not SMTP."""
    exchanger.transport.write(b"\x00\xff mail? what mail\r\n")


def endless(exchanger: MailExchanger) -> None:
    """A reply of lines without end."""
    exchanger.transport.write(b"250-and another one\r\n" * 5000)


def flood(exchanger: MailExchanger) -> None:
    """A line of a megabyte."""
    exchanger.transport.write(b"250 " + b"x" * (1 << 20))


class MailExchanger(LineReceiver):
    """Speaks SMTP; `factory.deeds` replaces its answer at a stage by a reply or a deed."""

    delimiter = b"\r\n"
    transport: Any
    factory: ExchangerFactory
    MAX_LENGTH = 1 << 20

    def connectionMade(self) -> None:
        self.factory.connections.append(self)
        self.content: list[bytes] | None = None
        self.recipients: list[bytes] = []
        self.sender = b""
        self.is_tls = False
        self.answer("greeting", "220 mx.test ESMTP")

    def answer(self, stage: str, reply: str) -> None:
        deed = self.factory.deeds.get(stage, reply)
        if callable(deed):
            deed(self)
        else:
            self.sendLine(deed.encode())

    def lineReceived(self, line: bytes) -> None:
        if self.content is not None:
            if line != b".":
                self.content.append(line.removeprefix(b"."))
                return
            self.factory.messages.append(
                (self.sender, list(self.recipients), b"\r\n".join(self.content) + b"\r\n")
            )
            self.content = None
            if not self.factory.is_lmtp:
                self.answer("dot", "250 2.0.0 Ok: queued as TEST")
            for recipient in self.recipients if self.factory.is_lmtp else ():
                self.answer(address_of(recipient), f"250 2.0.0 <{address_of(recipient)}> Saved")
                if callable(self.factory.deeds.get(address_of(recipient))):
                    break
            return
        self.factory.commands.append(line)
        verb = line.split(b" ")[0].upper().decode("latin-1")
        getattr(self, f"do_{verb}", self.do_other)(line)

    def do_EHLO(self, line: bytes) -> None:
        offered = self.factory.extensions
        lines = [f"250-{word}" for word in ("mx.test", *offered)]
        lines[-1] = lines[-1].replace("250-", "250 ")
        self.answer("EHLO", "\r\n".join(lines))

    def do_LHLO(self, line: bytes) -> None:
        self.do_EHLO(line)

    def do_HELO(self, line: bytes) -> None:
        self.answer("HELO", "250 mx.test")

    def do_STARTTLS(self, line: bytes) -> None:
        self.answer("STARTTLS", "220 2.0.0 Ready")
        if "STARTTLS" not in self.factory.deeds:
            self.transport.startTLS(self.factory.tls)
            self.is_tls = True

    def do_AUTH(self, line: bytes) -> None:
        self.answer("AUTH", "235 2.7.0 Authentication successful")

    def do_MAIL(self, line: bytes) -> None:
        self.sender, self.recipients = line, []
        self.answer("MAIL", "250 2.1.0 Ok")

    def do_RCPT(self, line: bytes) -> None:
        deed = self.factory.recipients.get(address_of(line))
        if deed is None:
            self.recipients.append(line)
            self.answer("RCPT", "250 2.1.5 Ok")
        else:
            self.sendLine(deed.encode())

    def do_DATA(self, line: bytes) -> None:
        if "DATA" not in self.factory.deeds:
            self.content = []
        self.answer("DATA", "354 go on")

    def do_RSET(self, line: bytes) -> None:
        self.sendLine(b"250 2.0.0 Ok")

    def do_QUIT(self, line: bytes) -> None:
        self.answer("QUIT", "221 2.0.0 Bye")
        self.transport.loseConnection()

    def do_other(self, line: bytes) -> None:
        self.sendLine(b"502 5.5.2 what?")


def address_of(line: bytes) -> str:
    """The address in angle brackets."""
    return line.split(b"<")[1].split(b">")[0].decode()


class ExchangerFactory(Factory):
    """What all sessions of one exchanger share, and what they were told.

    Where it `is_lmtp`, the deeds after the dot have the recipients' addresses as stages.
    """

    protocol = MailExchanger
    noisy = False

    def __init__(self, tls: Any = None, **deeds: Deed) -> None:
        self.tls = tls
        self.deeds: Mapping[str, Deed] = deeds
        self.recipients: dict[str, str] = {}
        self.is_lmtp = False
        self.extensions = [
            "PIPELINING",
            "SIZE 10240000",
            "8BITMIME",
            "SMTPUTF8",
            "DSN",
            "ENHANCEDSTATUSCODES",
        ]
        if tls is not None:
            self.extensions.append("STARTTLS")
        self.connections: list[MailExchanger] = []
        self.commands: list[bytes] = []
        self.messages: list[tuple[bytes, list[bytes], bytes]] = []
