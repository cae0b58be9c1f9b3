"""An IMAP session over a transport in memory, and transcripts played on it.

A transcript is a text file. `C: ` lines go to the server, CR LF added; `S: ` lines are what
it must say next, `{re}` standing for a regular expression. Lines that begin with another
session's name before the colon (`C2:`, `S2:`) belong to that session. `L: ` gives a literal's
octets without a line end (`\\r\\n` escapes allowed), and so does `{{…}}` within a command; `M: ` plays
another program that delivers a message with that subject into INBOX; `T: ` lets so many seconds
pass; `# ` is a comment. `S: ...` stands for any lines up to the one that the next `S:` describes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.accounts.account import Account
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.imapd.factory import ImapFactory
from mailserver.imapd.protocol import ImapServer
from mailserver.imapd.settings import ImapSettings
from mailserver.maillog import ListLog
from mailserver.store.contract import StoreRegistry
from mailserver.threads import Inline, Threads
from tests.accounts.scram_client import SECRET, answer_to_proof
from tests.store_memory import MemoryRegistry

ALICE = Account("alice", 1000, 1000, "/home/alice")
TRANSCRIPTS = Path(__file__).parent.parent / "transcripts" / "imap"


class TestReactor(Clock):
    """Time stands still; calls from threads come at once."""

    __test__ = False

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        function(*arguments)


@implementer(ITCPTransport)
class Transport:
    """A connection whose client reads at once, or not at all while `is_reading` is false."""

    disconnecting = False
    LIMIT = 65_536

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.said = bytearray()
        self.unread = bytearray()
        self.is_reading = True
        self.is_open = True
        self.reads_input = True
        self.no_delay = False
        self.peer = IPv4Address("TCP", address, 4000)
        self.producer: Any = None
        self.protocol: Any = None
        self.tls: object = None
        self.was_aborted = False

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if self.is_reading:
            self.said += data
            return
        self.unread += data
        if self.producer is not None and len(self.unread) > self.LIMIT:
            self.producer.pauseProducing()

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def read_on(self) -> None:
        """The client reads what was held up, and all that follows."""
        self.is_reading = True
        self.said += self.unread
        self.unread.clear()
        if self.producer is not None:
            self.producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert IPushProducer.providedBy(producer) and streaming and self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def startTLS(self, context: object) -> None:
        self.tls = context

    def loseConnection(self) -> None:
        assert self.producer is None, "a registered producer would keep the connection open"
        self.disconnecting = True
        self.close()

    def abortConnection(self) -> None:
        self.was_aborted = True
        self.close()

    def close(self) -> None:
        """The connection is gone, as the protocol learns once."""
        if self.is_open:
            self.is_open = False
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def pauseProducing(self) -> None:
        self.reads_input = False

    def resumeProducing(self) -> None:
        self.reads_input = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getPeer(self) -> IPv4Address:
        return self.peer

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 143)


class PasswordIsSecret:
    """`Logins` where the password is `secret`; `answer` replaces the next answer.

    Everybody is alice but for those in `accounts`.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.attempts: list[Attempt] = []
        self.answer: Deferred[Granted | Refused] | None = None

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        self.attempts.append(attempt)
        if self.answer is not None:
            return self.answer
        if attempt.proof is not None:
            return succeed(answer_to_proof(attempt, ALICE))
        if attempt.password == b"secret":
            return succeed(Granted(self.accounts.get(attempt.name, ALICE)))
        return succeed(Refused(reason="wrong password"))

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        """See `Logins.challenge`."""
        return succeed(SECRET.challenge)


class Server:
    """A listener without a port: settings, store, log, and a clock to be advanced."""

    def __init__(
        self,
        settings: ImapSettings | None = None,
        registry: StoreRegistry | None = None,
        threads: Threads | None = None,
        **options: Any,
    ) -> None:
        self.clock = TestReactor()
        self.log = ListLog()
        self.logins = PasswordIsSecret()
        self.registry = registry or MemoryRegistry()
        self.settings = settings or ImapSettings()
        self.factory = ImapFactory(
            self.settings, self.logins, self.registry, threads or Inline(), self.clock, self.log, **options
        )

    def connect(self, address: str = "127.0.0.1") -> Client:
        """A client whose connection was just accepted."""
        return Client(self, self.factory.buildProtocol(None), Transport(address))

    def log_in(self, name: str = "alice") -> Client:
        """A client that is logged in, its answers so far read."""
        client = self.connect()
        client.send(b"a LOGIN %b secret" % name.encode())
        assert b"a OK [CAPABILITY " in client.read()
        return client

    @property
    def store(self) -> Any:
        """Alice's store."""
        return self.registry.open(ALICE)

    def select(self, mailbox: bytes = b"INBOX") -> Client:
        """A client that is logged in and has selected the mailbox."""
        client = self.log_in()
        client.send(b"b SELECT " + mailbox)
        assert b"b OK [READ-WRITE]" in client.read()
        return client


class Client:
    """One connection's client side."""

    def __init__(self, server: Server, protocol: ImapServer, transport: Transport) -> None:
        self.server = server
        self.protocol = protocol
        self.transport = transport
        transport.protocol = protocol
        protocol.makeConnection(transport)

    def send(self, line: bytes) -> None:
        """A line arrives, its end added."""
        self.feed(line + b"\r\n")

    def feed(self, data: bytes) -> None:
        """The octets arrive in one piece."""
        if self.transport.is_open:
            self.protocol.dataReceived(data)

    def read(self) -> bytes:
        """All that was said since the last read."""
        said = bytes(self.transport.said)
        self.transport.said.clear()
        return said

    def ask(self, line: bytes) -> bytes:
        """What is said when the line arrives."""
        self.read()
        self.send(line)
        return self.read()

    @property
    def is_open(self) -> bool:
        """Whether the connection stands."""
        return self.transport.is_open


def message(subject: str = "hello", body: str = "Hi.\r\n") -> bytes:
    """A small message."""
    return (
        f"From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nSubject: {subject}\r\n"
        "Date: Mon, 7 Feb 1994 21:52:25 -0800\r\n"
        f"Message-ID: <{subject.replace(' ', '')}@example.org>\r\n\r\n{body}"
    ).encode()


def pattern(line: str) -> re.Pattern[bytes]:
    """The `S:` line as a regular expression: `{…}` is one, the rest stands for itself."""
    pieces = re.split(r"\{([^{}]*[^{}0-9][^{}]*)\}", line)
    text = "".join(piece if index % 2 else re.escape(piece) for index, piece in enumerate(pieces))
    return re.compile(text.encode(), re.DOTALL)


def with_literals(line: str) -> bytes:
    """The line with each `{{…}}` as a literal that does not wait."""

    def literal(found: re.Match[bytes]) -> bytes:
        content = found[1].decode("unicode_escape").encode("latin-1")
        return b"{%d+}\r\n%b" % (len(content), content)

    return re.sub(rb"\{\{(.*?)\}\}", literal, line.encode())


def play(text: str, server: Server) -> None:
    """The transcript comes true, line by line; AssertionError with its line number where not."""
    clients: dict[str, Client] = {}
    skipping: set[str] = set()
    unread: dict[str, bytes] = {}

    def session(name: str) -> Client:
        if name not in clients:
            clients[name] = server.connect()
            unread[name] = b""
        return clients[name]

    for number, line in enumerate(text.splitlines(), 1):
        kind, _, rest = line.partition(" ")
        if not line.strip() or kind.startswith("#"):
            continue
        role, name = kind[0], kind[1:].rstrip(":")
        if role == "C":
            session(name).send(with_literals(rest))
        elif role == "L":
            session(name).feed(rest.encode().decode("unicode_escape").encode("latin-1"))
        elif role == "T":
            server.clock.advance(float(rest))
        elif role == "M":
            server.store.open("INBOX").append([_new(rest)])
        else:
            assert role == "S", f"line {number}: {line}"
            client = session(name)
            unread[name] += client.read()
            if rest == "...":
                skipping.add(name)
                continue
            said, _, unread[name] = unread[name].partition(b"\r\n")
            while name in skipping and said and not pattern(rest).fullmatch(said):
                said, _, unread[name] = unread[name].partition(b"\r\n")
            skipping.discard(name)
            assert pattern(rest).fullmatch(said), f"line {number}: expected {rest!r}, got {said!r}"
    for name, client in clients.items():
        rest_said = unread[name] + client.read()
        assert not rest_said, f"session {name!r} said more: {rest_said!r}"


def _new(subject: str) -> Any:
    from mailserver.store.contract import NewMessage

    return NewMessage(message(subject))
