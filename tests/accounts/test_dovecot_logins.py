"""Logins that a Dovecot checks, here one that is `authd` at the other end of a socket, or a rude one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import TestCase

from mailserver.accounts.account import Account
from mailserver.accounts.dovecot_logins import DovecotLogins
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.authd.protocol import AuthServer, Services
from mailserver.maillog import ListLog
from mailserver.rights.handover import adopt
from mailserver.threads import Inline
from tests.accounts.sample import attempt


class Logins:
    """Knows alice; keeps what it was asked."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.answer: Granted | Refused | None = None

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        self.attempts.append(attempt)
        is_right = attempt.name.lower() == "alice" and attempt.password == b"secret"
        return succeed(self.answer or (Granted(Account("alice", 1, 1, "/")) if is_right else Refused()))

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        return succeed(Refused(temporary=True))


class Rude(Protocol):
    """Says one thing and hangs up."""

    def __init__(self, said: bytes) -> None:
        self.said = said

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self.said)
        transport.loseConnection()


class Asked(TestCase):
    """Each test has its other end."""

    def setUp(self) -> None:
        self.there, self.log = Logins(), ListLog()
        self.servers: list[Any] = []
        self.mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
        self.make: Callable[[], Any] = lambda: AuthServer(
            Services(self.there, self.mechanisms, self.log, reactor), len(self.servers) + 1
        )
        self.logins = DovecotLogins(reactor, Inline(), self.connect)

    def connect(self) -> int:
        ours, theirs = socket.socketpair()
        self.servers.append(self.make())
        adopt(reactor, theirs.detach(), self.servers[-1])
        return ours.detach()

    def tearDown(self) -> Deferred[Any]:
        if self.logins._client is None or not self.logins._client.is_open:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        ended = self.logins._client.connectionLost

        def connection_lost(reason: Any) -> None:
            ended(reason)
            gone.callback(None)

        self.logins._client.connectionLost = connection_lost  # type: ignore[method-assign,assignment]
        self.logins._client.transport.abortConnection()
        return gone

    async def asked(self, name: str, password: str) -> Granted | Refused:
        return await self.logins.login(attempt(name, password, "192.0.2.7"))

    async def _right_and_wrong(self) -> None:
        granted, refused = await gatherResults(
            [
                self.logins.login(attempt("Alice", "secret", "192.0.2.7")),
                self.logins.login(attempt("alice", "wrong", "192.0.2.7")),
            ]
        )
        self.assertIsInstance(granted, Granted)
        self.assertEqual(granted.account.name, "alice")
        self.assertEqual(granted.stream, -1)
        self.assertIsInstance(refused, Refused)
        self.assertFalse(refused.temporary)
        self.assertEqual(len(self.servers), 1)
        self.assertEqual({each.peer.address for each in self.there.attempts}, {"192.0.2.7"})
        zero = await self.asked("alice\0x", "secret")
        self.assertEqual((len(self.there.attempts), isinstance(zero, Refused)), (2, True))

    def test_right_and_wrong(self) -> Deferred[None]:
        """Over one connection, with the client's address; the name is Dovecot's."""
        return Deferred.fromCoroutine(self._right_and_wrong())

    async def _faults(self) -> None:
        self.there.answer = Refused(temporary=True)
        self.assertTrue((await self.asked("alice", "secret")).temporary)  # type: ignore[union-attr]
        self.there.answer = None
        self.servers[0].transport.abortConnection()
        gone: Deferred[None] = Deferred()
        reactor.callLater(0.05, gone.callback, None)  # type: ignore[attr-defined]
        await gone
        self.assertIsInstance(await self.asked("alice", "secret"), Granted)
        self.assertEqual(len(self.servers), 2)

    def test_a_restarted_dovecot_is_asked_again(self) -> Deferred[None]:
        """A fault of its own is temporary, a lost connection is made anew."""
        return Deferred.fromCoroutine(self._faults())

    async def _no_answer(self) -> None:
        for said in (b"", b"VERSION\t2\t0\nDONE\n", b"220 hello\r\n", b"OK\tx\n"):
            self.make = lambda said=said: Rude(said)  # type: ignore[misc]
            answer = await self.asked("alice", "secret")
            self.assertTrue(isinstance(answer, Refused) and answer.temporary, answer)

        def fail() -> int:
            raise FileNotFoundError(2, os.strerror(2), "/no/such")

        self.logins = DovecotLogins(reactor, Inline(), fail)
        answer = await self.asked("alice", "secret")
        self.assertTrue(isinstance(answer, Refused) and answer.temporary and "/no/such" in answer.reason)

    def test_no_dovecot_is_a_temporary_refusal(self) -> Deferred[None]:
        """P5: whatever is at the socket, or nothing."""
        return Deferred.fromCoroutine(self._no_answer())

    async def _no_plain(self) -> None:
        self.mechanisms = ("SCRAM-SHA-256",)
        answer = await self.asked("alice", "secret")
        self.assertTrue(isinstance(answer, Refused) and answer.temporary and "PLAIN" in answer.reason)

    def test_a_dovecot_without_plain(self) -> Deferred[None]:
        """The reason is for the log."""
        return Deferred.fromCoroutine(self._no_plain())
