"""A connection of a program that has its clients' logins checked here: Postfix's smtpd, Exim.

See `wire.dovecot_auth`. Each request is a coroutine that asks for the client's responses as it needs
them; many may be under way at once. Whatever the program calls itself, to the accounts it is `smtp`: it
gets a yes or a no, never a mailbox. Delays and penalties are inside `Logins`, for the address that the
program names (`rip=`). A program that does not speak the protocol is disconnected.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mailserver.accounts.login import PASSWORD_MECHANISMS, Attempt, Granted, Logins, Peer, Refused
from mailserver.accounts.sasl import SaslProblem, by_scram, credentials
from mailserver.accounts.scram_dialogue import MECHANISMS as SCRAM
from mailserver.accounts.scram_dialogue import ScramDialogue
from mailserver.maillog import MailLog, printable
from mailserver.wire import dovecot_auth as wire
from mailserver.wire.dovecot_auth import AuthRequest, AuthSyntaxError, BadResponse

MOST_PENDING: Final = 100  # requests of one connection
PATIENCE: Final = 150.0  # seconds until a request's client must have responded
_UNSAFE_IN_NAME: Final = str.maketrans("", "", "<>,")


class _Abandoned(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class Services:
    """What all connections share. `mechanisms` in the order in which they are announced."""

    logins: Logins
    mechanisms: Sequence[str]
    log: MailLog
    clock: Any


class AuthServer(LineOnlyReceiver):
    """One connection. `number` is unlike that of any other (CUID)."""

    delimiter = b"\n"
    MAX_LENGTH = wire.LONGEST_LINE
    transport: Any

    def __init__(self, services: Services, number: int) -> None:
        self._services = services
        self._number = number
        self._is_greeted = False
        self._waiting: dict[int, Deferred[bytes]] = {}  # for the client's next response
        self._open: set[int] = set()

    def connectionMade(self) -> None:
        """The server speaks first."""
        say = self._say
        say(b"VERSION", b"%d" % wire.MAJOR, b"%d" % wire.MINOR)
        for name in self._services.mechanisms:
            say(b"MECH", name.encode(), b"plaintext" if name in PASSWORD_MECHANISMS else b"mutual-auth")
        say(b"SPID", b"%d" % os.getpid())
        say(b"CUID", b"%d" % self._number)
        say(b"COOKIE", secrets.token_hex(16).encode())
        say(b"DONE")

    def _say(self, *fields: bytes) -> None:
        self.sendLine(wire.line(*fields))

    def lineReceived(self, line: bytes) -> None:
        """One of the client's lines."""
        try:
            self._act(wire.fields_of(line.removesuffix(b"\r")))
        except BadResponse as problem:
            self._fail(problem.identifier, reason=str(problem))
        except AuthSyntaxError as problem:
            self._services.log.write("auth", f"Error: auth client {self._number}: {problem}")
            self.transport.abortConnection()

    def _act(self, fields: list[bytes]) -> None:
        match fields[0]:
            case b"VERSION" if len(fields) > 1:
                if wire.number(fields[1]) != wire.MAJOR:
                    raise AuthSyntaxError("speaks another version of the protocol")
                self._is_greeted = True
            case _ if not self._is_greeted:
                raise AuthSyntaxError("does not begin with VERSION")
            case b"AUTH":
                self._begin(wire.parse_request(fields))
            case b"CONT" if len(fields) > 2:
                self._go_on(wire.number(fields[1]), fields[2])
            case b"CANCEL" if len(fields) > 1:
                self._abandon(wire.number(fields[1]))

    def _begin(self, request: AuthRequest) -> None:
        if request.identifier in self._open or len(self._open) >= MOST_PENDING:
            raise AuthSyntaxError("an id that is in use, or too many requests")
        self._open.add(request.identifier)
        Deferred.fromCoroutine(self._authenticate(request)).addErrback(self._broke, request.identifier)

    def _broke(self, failure: Failure, identifier: int) -> None:
        """P5: a bug of ours is a temporary answer, with its cause in the log."""
        self._services.log.write("auth", f"Error: internal error: {failure.getErrorMessage()}")
        if identifier in self._open:
            self._open.discard(identifier)
            self._fail(identifier, is_temporary=True)

    def _go_on(self, identifier: int, value: bytes) -> None:
        waiting = self._waiting.pop(identifier, None)
        if waiting is None:
            return  # it took too long, and was told so
        try:
            waiting.callback(wire.response(identifier, value))
        except BadResponse as problem:
            waiting.errback(SaslProblem(str(problem)))

    def _abandon(self, identifier: int) -> None:
        self._open.discard(identifier)
        waiting = self._waiting.pop(identifier, None)
        if waiting is not None:
            waiting.errback(_Abandoned())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody hears answers any more."""
        for identifier in tuple(self._open):
            self._abandon(identifier)

    # One login.

    async def _authenticate(self, request: AuthRequest) -> None:
        attempt = _attempt(request)
        try:
            attempt, answer = await self._converse(request, attempt)
        except _Abandoned:
            return
        except SaslProblem as problem:
            if self._ends(request):
                self._fail(request.identifier, reason=str(problem))
            return
        if self._ends(request):
            self._answer(request, attempt, answer)

    def _ends(self, request: AuthRequest) -> bool:
        """Whether anybody still waits for the answer, of which this is the moment."""
        is_open = request.identifier in self._open
        self._open.discard(request.identifier)
        return is_open

    async def _converse(self, request: AuthRequest, attempt: Attempt) -> tuple[Attempt, Granted | Refused]:
        """How the mechanism's dialogue ended, and who it was about."""
        mechanism, logins, ask = request.mechanism, self._services.logins, partial(self._ask, request)
        if mechanism not in self._services.mechanisms:
            raise SaslProblem("Unsupported authentication mechanism")
        if mechanism in SCRAM:
            dialogue = ScramDialogue(logins, attempt, {})
            answer = await by_scram(dialogue, request.initial, ask, lambda name: None)
            return dialogue.attempt, answer
        said = await credentials(mechanism, request.initial, ask)
        attempt = replace(attempt, name=said.name, password=said.password)
        return attempt, await logins.login(attempt)

    async def _ask(self, request: AuthRequest, challenge: bytes) -> bytes:
        """The client's response. Raises _Abandoned, SaslProblem."""
        identifier = request.identifier
        if identifier not in self._open:
            raise _Abandoned
        waiting: Deferred[bytes] = Deferred()
        self._waiting[identifier] = waiting
        self._say(b"CONT", b"%d" % identifier, base64.b64encode(challenge))
        patience = self._services.clock.callLater(PATIENCE, self._lose_patience, identifier)
        try:
            return await waiting
        finally:
            if patience.active():
                patience.cancel()

    def _lose_patience(self, identifier: int) -> None:
        waiting = self._waiting.pop(identifier, None)
        if waiting is not None:
            waiting.errback(SaslProblem("Timeout"))

    def _answer(self, request: AuthRequest, attempt: Attempt, answer: Granted | Refused) -> None:
        service = printable(request.parameters.get("service", ""), 32)
        fields = (
            f"user=<{printable(attempt.name.translate(_UNSAFE_IN_NAME), 255)}>, service={service}, "
            f"method={attempt.mechanism}, rip={attempt.peer.address}, session=<{attempt.session}>"
        )
        if isinstance(answer, Granted):
            self._services.log.write("auth", f"Login: {fields}")
            user = b"user=" + answer.account.name.encode("utf-8")
            self._say(b"OK", b"%d" % request.identifier, user)
            return
        self._services.log.write("auth", f"Login refused{' for now' if answer.temporary else ''}: {fields}")
        self._fail(request.identifier, attempt.name, is_temporary=answer.temporary)

    def _fail(self, identifier: int, user: str = "", reason: str = "", is_temporary: bool = False) -> None:
        self._say(
            b"FAIL",
            b"%d" % identifier,
            *([b"user=" + user.encode("utf-8", "replace")] if user else []),
            *([b"reason=" + reason.encode("utf-8", "replace")] if reason else []),
            *([b"temp"] if is_temporary else []),
        )


def _attempt(request: AuthRequest) -> Attempt:
    said = request.parameters
    address = _address(said.get("rip", ""))
    is_tls = "secured" in said or "valid-client-cert" in said
    peer = Peer(
        address, _port(said.get("rport", "")), _address(said.get("lip", "")), _port(said.get("lport", "")),
        is_tls, is_tls or address == "local" or ipaddress.ip_address(address).is_loopback,
    )  # fmt: skip
    return Attempt("smtp", request.mechanism, "", b"", peer, secrets.token_urlsafe(9))


def _address(text: str) -> str:
    """The address as the program gives it; `local` for none and for what is none."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return "local"


def _port(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
