"""`Logins` that ask a running Dovecot: where we do SMTP beside it, and `smtpd_sasl_path` says where it is.

See `wire.dovecot_auth`; here we are the client. One connection, made at the first login and again
after Dovecot was restarted; many logins may be under way on it. Passwords go there as PLAIN, whatever
mechanism the client used, with its address: delays and penalties are Dovecot's (`doveadm penalty`).
A Dovecot that does not answer is a temporary refusal. The account that is granted has a name and nothing
else: no mail of it is touched here.
"""

from __future__ import annotations

import base64
import itertools
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mailserver.accounts.account import Account
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.rights.handover import adopt
from mailserver.threads import Threads
from mailserver.wire import dovecot_auth as wire

PATIENCE: Final = 120.0  # seconds for an answer: Dovecot holds those to guesses back
_HANDSHAKE_SECONDS: Final = 5.0
_INET: Final = "inet:"


def connect(path: str, timeout: float = 5.0) -> int:
    """A connected socket to `path`, or to `inet:host:port`. *Blocking.* Raises OSError."""
    if path.startswith(_INET):
        host, _, port = path.removeprefix(_INET).rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout).detach()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection.detach()


class _AuthClient(LineOnlyReceiver):
    """The connection. `ready` fires at the end of the handshake, with an OSError where there is none."""

    delimiter = b"\n"
    MAX_LENGTH = wire.LONGEST_LINE
    transport: Any

    def __init__(self, clock: Any) -> None:
        self.ready: Deferred[None] = Deferred()
        self.is_open = True
        self._clock = clock
        self._identifiers = itertools.count(1)
        self._mechanisms: set[bytes] = set()
        self._waiting: dict[int, Deferred[Granted | Refused]] = {}

    def connectionMade(self) -> None:
        """Both sides say who they are."""
        self.sendLine(wire.line(b"VERSION", b"%d" % wire.MAJOR, b"%d" % wire.MINOR))
        self.sendLine(wire.line(b"CPID", b"%d" % os.getpid()))
        self._patience = self._clock.callLater(_HANDSHAKE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self.transport.abortConnection()

    def lineReceived(self, line: bytes) -> None:
        """One of Dovecot's lines."""
        fields = wire.fields_of(line)
        try:
            self._act(fields[0], fields[1:])
        except wire.AuthSyntaxError:
            self.transport.abortConnection()

    def _act(self, word: bytes, fields: list[bytes]) -> None:
        if word == b"VERSION" and fields and wire.number(fields[0]) != wire.MAJOR:
            raise wire.AuthSyntaxError("another version")
        if word == b"MECH" and fields:
            self._mechanisms.add(fields[0])
        elif word == b"DONE" and not self.ready.called:
            self._patience.cancel()
            self.ready.callback(None)
        elif word in (b"OK", b"FAIL", b"CONT") and fields:
            waiting = self._waiting.pop(wire.number(fields[0]), None)
            if waiting is not None:
                waiting.callback(_answer(word, fields[1:]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Those who wait are refused for now."""
        self.is_open = False
        if self._patience.active():
            self._patience.cancel()
        if not self.ready.called:
            self.ready.errback(ConnectionError("no answer in Dovecot's protocol"))
        for identifier in tuple(self._waiting):
            self._lost(identifier, "the connection to Dovecot ended")

    def _lost(self, identifier: int, reason: str) -> None:
        waiting = self._waiting.pop(identifier, None)
        if waiting is not None:
            waiting.callback(Refused(temporary=True, reason=reason))

    def ask(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        """Dovecot's answer."""
        if b"PLAIN" not in self._mechanisms:
            return succeed(Refused(temporary=True, reason="Dovecot offers no PLAIN: see auth_mechanisms"))
        if b"\0" in attempt.password or "\0" in attempt.name:
            return succeed(Refused(reason="a zero octet: PLAIN cannot carry it"))
        identifier, peer = next(self._identifiers), attempt.peer
        response = b"\0".join((b"", attempt.name.encode("utf-8", "replace"), attempt.password))
        self.sendLine(
            wire.line(
                b"AUTH",
                b"%d" % identifier,
                b"PLAIN",
                b"service=smtp",
                b"nologin",
                b"session=" + attempt.session.encode(),
                b"lip=" + peer.local_address.encode(),
                b"rip=" + peer.address.encode(),
                *((b"secured",) if peer.is_secure else ()),
                b"resp=" + base64.b64encode(response),
            )
        )
        answer: Deferred[Granted | Refused] = Deferred()
        self._waiting[identifier] = answer
        patience = self._clock.callLater(PATIENCE, self._lost, identifier, "Dovecot does not answer")
        return answer.addBoth(_cancelled, patience)


def _cancelled(result: Any, patience: Any) -> Any:
    if patience.active():
        patience.cancel()
    return result


def _answer(word: bytes, fields: list[bytes]) -> Granted | Refused:
    said = {name: value for name, _, value in (field.partition(b"=") for field in fields)}
    if word == b"OK" and said.get(b"user"):
        return Granted(Account(said[b"user"].decode("utf-8", "replace"), -1, -1, ""))
    reason = said.get(b"reason", b"refused by Dovecot").decode("utf-8", "replace")
    return Refused(temporary=word != b"FAIL" or b"temp" in said, reason=reason)


class DovecotLogins:
    """`Logins` over one connection, which `connect_` makes: blocking, in a thread, raising OSError."""

    def __init__(self, reactor: Any, threads: Threads, connect_: Callable[[], int]) -> None:
        self._reactor = reactor
        self._threads = threads
        self._connect = connect_
        self._client: _AuthClient | None = None
        self._one_connects = DeferredLock()

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        """See `Logins.login`."""
        return Deferred.fromCoroutine(self._login(attempt))

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        """See `Logins.challenge`: SCRAM is not offered."""
        return succeed(Refused(temporary=True, reason="Dovecot is asked for passwords only"))

    async def _login(self, attempt: Attempt) -> Granted | Refused:
        try:
            client = await self._one_connects.run(lambda: Deferred.fromCoroutine(self._connected()))
        except (OSError, ValueError) as error:
            return Refused(temporary=True, reason=f"Dovecot cannot be asked: {error}")
        return await client.ask(attempt)

    async def _connected(self) -> _AuthClient:
        client = self._client
        if client is None or not client.is_open:
            descriptor = await self._threads.run(self._connect)
            client = self._client = _AuthClient(self._reactor)
            adopt(self._reactor, descriptor, client)
            await client.ready
        return client
