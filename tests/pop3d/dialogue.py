"""A POP3 server on an in-memory connection, and a client that speaks to it in whole lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mailserver.accounts.account import Account
from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.maillog import ListLog
from mailserver.pop3d.factory import Pop3Factory
from mailserver.pop3d.service import Service
from mailserver.pop3d.settings import Pop3Settings
from mailserver.threads import Inline
from tests.accounts.scram_client import SECRET, answer_to_proof
from tests.store_memory import MemoryAccountStore, MemoryRegistry

ALICE = Account("alice", 1000, 1000, "/home/alice")
ELSEWHERE = "192.0.2.9"
ONE = b"From: a@example.org\r\nSubject: one\r\n\r\nfirst\r\n"
TWO = b"Subject: two\r\n\r\n.leading dot\r\n..two\r\n.\r\nlast\r\n"


class FixedLogins:
    """Knows alice's password, `secret`; remembers every attempt. `held` answers when it is fired."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.answer: Granted | Refused | None = None
        self.held: Deferred[None] | None = None

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        """See `Logins.login`."""
        self.attempts.append(attempt)
        if attempt.proof is not None:
            return succeed(answer_to_proof(attempt, ALICE))
        is_right = attempt.name == "alice" and attempt.password == b"secret"
        answer = self.answer or (Granted(ALICE) if is_right else Refused())
        if self.held is not None:
            return self.held.addCallback(lambda _: answer)
        return succeed(answer)

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        """See `Logins.challenge`."""
        return succeed(SECRET.challenge)


class HeldThreads:
    """Threads whose work is done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """See `Threads.run`."""
        outer: Deferred[Any] = Deferred()
        self.waiting.append(lambda: Inline().run(function, *args, **kwargs).chainDeferred(outer))
        return outer

    def work(self) -> None:
        """All waiting work is done."""
        while self.waiting:
            self.waiting.pop(0)()


class Wire(StringTransport):
    """Remembers how the connection was ended."""

    aborted = False
    unread = b""

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self.aborted = True
        super().abortConnection()

    def loseConnection(self) -> None:
        """As a real transport: not before the producer is unregistered."""
        assert self.producer is None
        super().loseConnection()


class Dialogue:
    """One connection to a fresh server. `messages` are in alice's INBOX."""

    def __init__(
        self,
        messages: Sequence[bytes] = (ONE, TWO),
        settings: Pop3Settings | None = None,
        address: str = "127.0.0.1",
        tls: Any = None,
        threads: Any = None,
        handover: Any = None,
        registry: Any = None,
        logged_in: Any = None,
        rawlog: Any = None,
    ) -> None:
        self.clock = Clock()
        self.log = ListLog()
        self.logins = FixedLogins()
        self.store = MemoryAccountStore()
        self.store.inbox.deliver(*messages)
        self.store.inbox.refresh()
        self.registry = registry or MemoryRegistry(alice=self.store)
        self.factory = Pop3Factory(
            Service(
                settings or Pop3Settings(),
                self.logins,
                self.registry,
                threads or Inline(),
                self.clock,
                self.log,
                tls,
                handover,
                logged_in or LoggedIn(),
                rawlog,
            )
        )
        self.address = address
        self.wire = Wire()
        self.server: Any = None

    def connect(self) -> bytes:
        """The greeting of a new connection."""
        here, there = IPv4Address("TCP", "192.0.2.1", 110), IPv4Address("TCP", self.address, 50000)
        self.wire = Wire(hostAddress=here, peerAddress=there)
        self.server = self.factory.buildProtocol(None)
        self.server.makeConnection(self.wire)
        return self.answers()

    def answers(self) -> bytes:
        """What the server sent since the last question."""
        said = self.wire.value()
        self.wire.clear()
        return said

    def say(self, octets: bytes) -> bytes:
        """The answer to octets as they stand."""
        self.server.dataReceived(octets)
        return self.answers()

    def ask(self, line: bytes) -> bytes:
        """The answer to a line."""
        return self.say(line + b"\r\n")

    def log_in(self) -> None:
        """A connection in the TRANSACTION state."""
        self.connect()
        assert self.ask(b"USER alice") == b"+OK\r\n"
        assert self.ask(b"PASS secret") == b"+OK Logged in.\r\n"

    def hang_up(self) -> None:
        """The connection is gone."""
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        self.server.connectionLost(Failure(ConnectionDone()))


def unstuffed(answer: bytes) -> bytes:
    """The message in a multi-line answer, as a client reads it. RFC 1939 §3."""
    first, _, rest = answer.partition(b"\r\n")
    assert first.startswith(b"+OK"), first
    assert rest.endswith(b"\r\n.\r\n") or rest == b".\r\n"
    lines = rest[:-3].split(b"\r\n")
    assert b"." not in lines, "the answer ends early"
    return b"\r\n".join([line[1:] if line.startswith(b".") else line for line in lines])
