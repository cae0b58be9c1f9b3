"""Taking mail to other hosts: smtp(8)'s role.

For a next hop the hosts are found (MX, or the bracketed host itself), tried in order, address by address,
and the first session that answers decides. A recipient that one host defers is tried at
the next one. A session that ended well waits a little for the next message to the same next hop.

Only two things bounce here: what a server said with 5xx about a recipient or the message, and what
DNS said for certain. Everything else is deferred (P5). Texts are Postfix's.
RFC 5321 §5.1.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from twisted.internet import error as connection_errors
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTCP

from mailserver.delivery.next_hop import NextHop, NoRoute, is_loop, order_hosts, parse_next_hop
from mailserver.delivery.smtp_client import Answer, Mail, Session, SessionFailed, SmtpClient, TimeLimits
from mailserver.dns import NoSuchDomain, Resolver, TemporaryLookupFailure
from mailserver.envelope import Outcome

MOST_ADDRESSES: Final = 5  # smtp_mx_address_limit
MOST_SESSIONS: Final = 2  # smtp_mx_session_limit: sessions that got as far as a greeting
MOST_MESSAGES: Final = 100  # of one session
LINGER: Final = 2.0  # seconds that an idle session waits


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Plain values, under smtp(8)'s parameter names without their prefix.

    `tls_level` gives none, may, encrypt, verify or secure for a next hop; `password` a
    (name, password) pair or None. Both may raise TableError. `client_tls` makes Twisted's client
    context for a host name.
    """

    helo_name: str
    client_tls: Callable[[str, bool], Any]
    tls_level: Callable[[str], str] = lambda nexthop: "may"
    password: Callable[[str], tuple[str, str] | None] = lambda nexthop: None
    own_addresses: frozenset[str] = frozenset()
    own_ports: frozenset[int] = frozenset({25})
    own_names: frozenset[str] = frozenset()
    limits: TimeLimits = field(default_factory=TimeLimits)


@dataclass(slots=True)
class _Idle:
    client: SmtpClient
    expiry: Any
    messages: int


@dataclass(frozen=True, slots=True)
class _Host:
    name: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}[{self.address}]:{self.port}"


class Relay:
    """Delivers to next hops; one for each process. Sessions are shared between messages."""

    def __init__(self, reactor: IReactorTCP | Any, resolver: Resolver, settings: RelaySettings) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._settings = settings
        self._idle: dict[str, list[_Idle]] = {}

    async def deliver(self, nexthop: str, mail: Mail) -> tuple[Outcome, ...]:
        """The outcome for each recipient of `mail`, in order. Never raises for a fault of the network."""
        outcomes: list[Outcome | None] = [None] * len(mail.recipients)
        try:
            hop = parse_next_hop(nexthop)
            if not await self._over_idle_session(nexthop, mail, outcomes):
                await self._over_new_sessions(nexthop, hop, mail, outcomes)
            rest = Outcome.deferred(f"no answer from {nexthop}", "4.4.1", "none")
        except NoRoute as failure:
            rest = Outcome.failed(str(failure), failure.dsn, "none")
        except SessionFailed as failure:
            make = Outcome.failed if failure.is_permanent else Outcome.deferred
            rest = make(str(failure), failure.dsn, "none", failure.remote)
        return tuple(outcome or rest for outcome in outcomes)

    def close(self) -> None:
        """Idle sessions say QUIT."""
        for sessions in self._idle.values():
            for each in sessions:
                each.expiry.cancel()
                each.client.close()
        self._idle.clear()

    # Sessions.

    async def _over_idle_session(self, nexthop: str, mail: Mail, outcomes: list[Outcome | None]) -> bool:
        """Whether a waiting session took care of every recipient."""
        while sessions := self._idle.get(nexthop):
            idle = sessions.pop()
            idle.expiry.cancel()
            if not idle.client.is_usable:
                continue
            try:
                answers = await idle.client.deliver(mail)
            except SessionFailed as failure:
                if failure.is_permanent or failure.may_be_sent:
                    raise
                return False  # a server may close a session at any time: make a new one
            self._note(answers, idle.client, range(len(answers)), outcomes)
            self._keep(nexthop, idle.client, idle.messages + 1)
            return True
        return False

    async def _over_new_sessions(
        self, nexthop: str, hop: NextHop, mail: Mail, outcomes: list[Outcome | None]
    ) -> None:
        pending = list(range(len(mail.recipients)))
        sessions = 0
        last: SessionFailed | None = None
        relay = "none"
        for host in await self._hosts(hop):
            try:
                client = await self._open(nexthop, host)
            except SessionFailed as failure:
                last = failure
                continue
            sessions += 1
            relay = client.relay
            part = _part_of(mail, pending)
            try:
                answers = await client.deliver(part)
            except SessionFailed as failure:
                if failure.is_permanent or failure.may_be_sent:
                    self._all(failure, client.relay, pending, outcomes)
                    return
                last = failure
            else:
                self._note(answers, client, pending, outcomes)
                self._keep(nexthop, client, 1)
                pending = [
                    i for i, answer in zip(pending, answers, strict=True) if answer.reply.code // 100 == 4
                ]
                if not pending:
                    return
                last = None
            if sessions >= MOST_SESSIONS:
                break
        if last is not None:
            self._all(last, relay, pending, outcomes)

    async def _open(self, nexthop: str, host: _Host) -> SmtpClient:
        level = self._settings.tls_level(nexthop)
        client = await self._connect(host)
        try:
            await client.open()
            if level != "none":
                await self._secure(client, host, level)
        except SessionFailed:
            if level != "may" or not client.session.tls_was_tried:
                raise
            # Opportunistic: what cannot be encrypted goes in clear, to the same host (RFC 7435).
            client.close()
            client = await self._connect(host)
            await client.open()
        password = self._settings.password(nexthop)
        if password is not None:
            await client.login(*password)
        return client

    async def _secure(self, client: SmtpClient, host: _Host, level: str) -> None:
        if "STARTTLS" in client.session.extensions:
            verify = level in ("verify", "secure")
            await client.start_tls(self._settings.client_tls(host.name, verify))
        elif level != "may":
            client.close()
            raise SessionFailed(f"TLS is required, but was not offered by host {client.peer}", "4.7.4")

    async def _connect(self, host: _Host) -> SmtpClient:
        limits = self._settings.limits
        kind = TCP6ClientEndpoint if ":" in host.address else TCP4ClientEndpoint
        endpoint = kind(self._reactor, host.address, host.port, timeout=limits.connect)
        session = Session(self._settings.helo_name, limits)
        client = SmtpClient(f"{host.name}[{host.address}]", str(host), session, self._reactor)
        try:
            await connectProtocol(endpoint, client)
        except (connection_errors.ConnectError, OSError) as failure:
            raise SessionFailed(f"connect to {host}: {_reason(failure)}", "4.4.1") from failure
        return client

    def _keep(self, nexthop: str, client: SmtpClient, messages: int) -> None:
        if not client.is_usable:
            return
        if messages >= MOST_MESSAGES:
            client.close()
            return
        idle = _Idle(client, None, messages)
        idle.expiry = self._reactor.callLater(LINGER, self._expire, nexthop, idle)
        self._idle.setdefault(nexthop, []).append(idle)

    def _expire(self, nexthop: str, idle: _Idle) -> None:
        sessions = self._idle.get(nexthop, [])
        sessions.remove(idle)
        if not sessions:
            self._idle.pop(nexthop, None)
        idle.client.close()

    # Hosts.

    async def _hosts(self, hop: NextHop) -> Sequence[_Host]:
        names = (hop.name,) if hop.is_host else await self._exchangers(hop.name)
        hosts: list[_Host] = []
        trouble: TemporaryLookupFailure | None = None
        for name in names:
            try:
                addresses = await self._addresses(name)
            except TemporaryLookupFailure as failure:
                trouble = failure
                continue
            if is_loop(addresses, hop.port, self._settings.own_addresses, self._settings.own_ports):
                raise NoRoute("5.4.6", f"mail for {hop.name} loops back to myself")
            hosts += [_Host(name, address, hop.port) for address in addresses]
        if hosts:
            return hosts[:MOST_ADDRESSES]
        if trouble is not None:
            raise _unresolved(names[0], "A", ", try again", "4.4.3") from trouble
        raise NoRoute("5.4.4", str(_unresolved(names[0], "A", "")))

    async def _exchangers(self, domain: str) -> Sequence[str]:
        try:
            found = await self._resolver.mail_exchangers(domain)
        except NoSuchDomain:
            raise NoRoute("5.4.4", str(_unresolved(domain, "MX", ""))) from None
        except TemporaryLookupFailure as failure:
            raise _unresolved(domain, "MX", ", try again", "4.4.3") from failure
        return order_hosts(domain, found, self._settings.own_names.__contains__)

    async def _addresses(self, name: str) -> tuple[str, ...]:
        try:
            return (str(ipaddress.ip_address(name)),)
        except ValueError:
            return await self._resolver.addresses(name)

    # Outcomes.

    def _note(
        self,
        answers: Sequence[Answer],
        client: SmtpClient,
        indices: Sequence[int],
        outcomes: list[Outcome | None],
    ) -> None:
        peer, reports_itself = client.relay, "DSN" in client.session.extensions
        for index, answer in zip(indices, answers, strict=True):
            outcomes[index] = _outcome(answer, peer, reports_itself)

    def _all(
        self, failure: SessionFailed, relay: str, indices: Sequence[int], outcomes: list[Outcome | None]
    ) -> None:
        make = Outcome.failed if failure.is_permanent else Outcome.deferred
        for index in indices:
            outcomes[index] = make(str(failure), failure.dsn, relay, failure.remote)


def _part_of(mail: Mail, indices: Sequence[int]) -> Mail:
    if len(indices) == len(mail.recipients):
        return mail
    return replace(mail, recipients=tuple(mail.recipients[index] for index in indices))


def _outcome(answer: Answer, relay: str, reports_itself: bool) -> Outcome:
    reply = answer.reply
    if reply.code // 100 == 2:
        done = Outcome.delivered(str(reply), reply.dsn, relay, str(reply))
        return replace(done, reports_itself=reports_itself)
    host = relay.rpartition(":")[0]
    text = f"host {host} said: {reply} (in reply to {answer.command} command)"
    make = Outcome.failed if reply.is_permanent else Outcome.deferred
    return make(text, reply.dsn, relay, str(reply))


def _unresolved(name: str, kind: str, rest: str, dsn: str = "5.4.4") -> SessionFailed:
    return SessionFailed(
        f"Host or domain name not found. Name service error for name={name} type={kind}: "
        f"Host not found{rest}",
        dsn,
    )


def _reason(failure: Exception) -> str:
    if isinstance(failure, connection_errors.TimeoutError):
        return "Connection timed out"
    number = getattr(failure, "osError", None)
    number = number if isinstance(number, int) else getattr(failure, "errno", None)
    if isinstance(failure, connection_errors.ConnectionRefusedError):
        number = errno.ECONNREFUSED
    return os.strerror(number) if isinstance(number, int) else str(failure)
