"""check_policy_service: access decisions by a server of their own. SMTPD_POLICY_README.

Each request is one question over a connection that is used again, until it was idle or open for too long; a
connection that breaks is replaced, a server that cannot be reached is tried again after a moment. Where that
fails the answer is the default action, which is temporary unless main.cf says otherwise (P5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mailserver.service_endpoint import ServiceEndpoint
from mailserver.smtpd.access import Actions
from mailserver.smtpd.verdict import Evaluation, Request, Stage, Subject, Verdict
from mailserver.tables.table import Entry
from mailserver.wire.policy_delegation import PolicyAnswerError, decode_answer, encode_request


class PolicyServiceDown(Exception):
    """The server cannot be asked; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRules:
    """Under the names of smtpd_policy_service_*; times in seconds, 0 requests is no limit."""

    default_action: str = "451 4.3.5 Server configuration problem"
    max_idle: int = 300
    max_ttl: int = 1000
    request_limit: int = 0
    retry_delay: int = 1
    timeout: int = 100
    try_limit: int = 2
    policy_context: str = ""


class PolicyService:
    """One policy server. `warn` gets a line for the log."""

    def __init__(
        self, endpoint: ServiceEndpoint, rules: PolicyRules, reactor: Any, warn: Callable[[str], None]
    ) -> None:
        self.endpoint = endpoint
        self._rules = rules
        self._reactor = reactor
        self._warn = warn
        self._idle: list[_Connection] = []

    async def action(self, request: Request) -> str:
        """What the server wants done, as an access table would say it. Never raises."""
        question = encode_request(attributes(request, self._rules.policy_context))
        for attempt in range(max(self._rules.try_limit, 1)):
            try:
                return await self._ask(question)
            except (PolicyServiceDown, PolicyAnswerError) as error:
                self._warn(f"problem talking to server {self.endpoint.text}: {error}")
            if attempt + 1 < self._rules.try_limit:
                await self._pause()
        return self._rules.default_action

    async def _ask(self, question: bytes) -> str:
        """The answer over a connection that waits, which may have ended; else over a new one."""
        while self._idle:
            try:
                return await self._over(self._idle.pop(), question)
            except PolicyServiceDown:
                continue
        connection = _Connection(self._reactor, self._gone)
        try:
            await self.endpoint.connect(self._reactor, connection, self._rules.timeout)
        except (ConnectError, OSError) as error:
            raise PolicyServiceDown(str(error)) from error
        return await self._over(connection, question)

    async def _over(self, connection: _Connection, question: bytes) -> str:
        answer = await connection.ask(question, self._rules.timeout)
        limit = self._rules.request_limit
        age = self._reactor.seconds() - connection.since
        if connection.is_lost or age >= self._rules.max_ttl or 0 < limit <= connection.requests:
            connection.close()
        else:
            connection.rest(self._rules.max_idle)
            self._idle.append(connection)
        return answer

    def _gone(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _pause(self) -> Awaitable[None]:
        waiting: Deferred[None] = Deferred()
        self._reactor.callLater(self._rules.retry_delay, waiting.callback, None)
        return waiting

    def close(self) -> None:
        """Connections that wait are closed."""
        while self._idle:
            self._idle.pop().close()


class _Connection(Protocol):
    """One connection: one question at a time."""

    transport: Any

    def __init__(self, reactor: Any, gone: Callable[[_Connection], None]) -> None:
        self._reactor = reactor
        self._gone = gone
        self._timer: Any = None
        self._waiting: Deferred[str] | None = None
        self._received = b""
        self.since = reactor.seconds()
        self.requests = 0
        self.is_lost = False

    def ask(self, question: bytes, timeout: float) -> Awaitable[str]:
        """The action. Raises PolicyServiceDown, PolicyAnswerError; then the connection is closed."""
        waiting: Deferred[str] = Deferred()
        self._waiting = waiting
        self.requests += 1
        self._set_timer(timeout)
        if self.is_lost:
            self._fail(PolicyServiceDown("Connection closed"))
        else:
            self.transport.write(question)
        return waiting

    def rest(self, seconds: float) -> None:
        """The connection waits for the next question, so long at most."""
        self._set_timer(seconds)

    def close(self) -> None:
        """The connection ends."""
        self._stop_timer()
        if not self.is_lost:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """An answer, or its beginning."""
        self._received += data
        try:
            found = decode_answer(self._received)
        except PolicyAnswerError as error:
            self._fail(error)
            return
        if self._waiting is None:
            self._fail(PolicyAnswerError("it talks without being asked"))
        elif found is not None:
            action, octets = found
            self._received = self._received[octets:]
            self._stop_timer()
            waiting, self._waiting = self._waiting, None
            waiting.callback(action)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        self.is_lost = True
        self._gone(self)
        self._fail(PolicyServiceDown("Connection closed"))

    def _fail(self, error: Exception) -> None:
        self.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(Failure(error))

    def _set_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._reactor.callLater(seconds, self._timed_out)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _timed_out(self) -> None:
        self._fail(PolicyServiceDown("Connection timed out"))


class PolicyCheck:
    """`check_policy_service`: a restriction. `subject` is that of the list it stands in."""

    def __init__(self, service: PolicyService, subject: Subject, actions: Actions) -> None:
        self._service = service
        self._subject = subject
        self._actions = actions

    async def __call__(self, evaluation: Evaluation) -> Verdict | None:
        """What the server says about the request."""
        action = await self._service.action(evaluation.request)
        entry = Entry(action, f"policy server {self._service.endpoint.text}")
        return await self._actions.carry_out(evaluation, entry, self._subject)


def attributes(request: Request, policy_context: str = "") -> Mapping[str, str]:
    """What the server is told: the attributes of Postfix 3.7, in its order."""
    facts = request.facts() if request.facts is not None else {}
    counts = request.stage in (Stage.DATA, Stage.END_OF_MESSAGE)
    known = {
        "request": "smtpd_access_policy",
        "protocol_state": request.stage.value,
        "client_address": request.address,
        "client_name": request.client_name,
        "reverse_client_name": request.reverse_name,
        "helo_name": request.helo,
        "sender": str(request.sender or ""),
        "recipient": str(request.recipient or ""),
        "recipient_count": str(request.recipient_count if counts else 0),
        "sasl_username": request.login,
        "policy_context": policy_context,
    }
    return {name: known.get(name) or facts.get(name, "") for name in _ATTRIBUTES}


_ATTRIBUTES = (
    "request", "protocol_state", "protocol_name", "client_address", "client_name", "client_port",
    "reverse_client_name", "server_address", "server_port", "helo_name", "sender", "recipient",
    "recipient_count", "queue_id", "instance", "size", "etrn_domain", "stress", "sasl_method",
    "sasl_username", "sasl_sender", "ccert_subject", "ccert_issuer", "ccert_fingerprint",
    "ccert_pubkey_fingerprint", "encryption_protocol", "encryption_cipher", "encryption_keysize",
    "policy_context",
)  # fmt: skip
