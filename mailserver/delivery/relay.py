"""Taking mail to other hosts and to LMTP servers: the role of smtp(8) and lmtp(8).

For a next hop the hosts are found (MX, or the bracketed host itself), tried in order, address by address,
and the first session that answers decides. A recipient that one host defers is tried at
the next one. A session that ended well waits a little for the next message to the same next hop.

Only two things bounce here: what a server said with 5xx about a recipient or the message, and what
DNS said for certain. Everything else is deferred (P5). Texts are Postfix's.
RFC 5321 §5.1.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from twisted.internet import error as connection_errors
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IReactorTCP

from mailserver.delivery.certificate_names import CertificateMismatch
from mailserver.delivery.client_tls import describe
from mailserver.delivery.dane import Dane
from mailserver.delivery.hosts import Host, HostFinder, HostRules, Unresolved
from mailserver.delivery.next_hop import (
    SMTP_PORT,
    NextHop,
    NoRoute,
    parse_lmtp_next_hop,
    parse_next_hop,
    parse_next_hops,
)
from mailserver.delivery.outgoing_content import OutgoingRules
from mailserver.delivery.smtp_client import Answer, Session, SessionFailed, SmtpClient, TimeLimits
from mailserver.delivery.smtp_login import Login
from mailserver.delivery.smtp_mail import Mail
from mailserver.delivery.tls_policy import MAY, DaneRules, PolicyFailed, TlsPolicy, settle
from mailserver.dns import Resolver
from mailserver.envelope import Outcome
from mailserver.threads import Inline, Threads

MOST_SESSIONS: Final = 2  # smtp_mx_session_limit: sessions that got as far as a greeting
MOST_MESSAGES: Final = 100  # of one session
LINGER: Final = 2.0  # seconds that an idle session waits
_LOOP: Final = "5.4.6"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Plain values, under smtp(8)'s parameter names without their prefix.

    `tls_policy` gives the policy for a next hop, `login` who to log in as at (next hop, host, sender), or
    None. Both may raise TableError; the first may ask another program, and runs in `threads`. `client_tls`
    makes Twisted's client context for (host name, names to verify, lowest version, TLSA records). `log` gets
    a line for each session under TLS, `note_starttls_offer` one where none was wanted, `warn` what is wrong.
    `bind_addresses` has one address of a family at most. `rules` are for content and addresses that go out.
    With `is_lmtp` LMTP is spoken, no MX is asked for, and `unix:path` is a next hop, below
    `socket_directory`. Where it `sends_xforward`, servers that know XFORWARD are told whose mail it is.
    """

    helo_name: str
    client_tls: Callable[[str, Sequence[str], str, Dane | None], Any]
    tls_policy: Callable[[str], TlsPolicy] = lambda nexthop: TlsPolicy()
    dane: DaneRules = field(default_factory=DaneRules)
    tls_wrappermode: bool = False
    login: Callable[[str, str, str], Login | None] = lambda nexthop, host, sender: None
    login_depends_on_sender: bool = False
    hosts: HostRules = field(default_factory=HostRules)
    tcp_port: int = SMTP_PORT
    fallback_relay: tuple[str, ...] = ()
    bind_addresses: tuple[str, ...] = ()
    mx_session_limit: int = MOST_SESSIONS
    line_length_limit: int = 998
    rules: OutgoingRules = field(default_factory=OutgoingRules)
    limits: TimeLimits = field(default_factory=TimeLimits)
    is_lmtp: bool = False
    socket_directory: str = ""
    sends_xforward: bool = False
    threads: Threads = field(default_factory=Inline)
    log: Callable[[str], None] = lambda text: None
    note_starttls_offer: Callable[[str], None] = lambda text: None
    warn: Callable[[str], None] = lambda text: None


@dataclass(slots=True)
class _Idle:
    client: SmtpClient
    expiry: Any
    messages: int


class Relay:
    """Delivers to next hops; one for each process. Sessions are shared between messages."""

    def __init__(self, reactor: IReactorTCP | Any, resolver: Resolver, settings: RelaySettings) -> None:
        self._reactor = reactor
        self._finder = HostFinder(resolver, settings.hosts, settings.dane.resolver)
        self._settings = settings
        self._idle: dict[str, list[_Idle]] = {}

    @property
    def rules(self) -> OutgoingRules:
        """See `RelaySettings`."""
        return self._settings.rules

    @property
    def sends_xforward(self) -> bool:
        """See `RelaySettings`."""
        return self._settings.sends_xforward

    @property
    def is_lmtp(self) -> bool:
        """See `RelaySettings`."""
        return self._settings.is_lmtp

    async def deliver(self, nexthop: str, mail: Mail) -> tuple[Outcome, ...]:
        """The outcome for each recipient of `mail`, in order. Never raises for a fault of the network.

        `nexthop` may list several, the next one for what the one before could not be given.
        """
        outcomes: list[Outcome | None] = [None] * len(mail.recipients)
        try:
            key = self._session_key(nexthop, mail)
            if not await self._over_idle_session(key, mail, outcomes):
                await self._over_new_sessions(nexthop, key, mail, outcomes)
            rest = Outcome.deferred(f"no answer from {nexthop}", "4.4.1", "none")
        except NoRoute as failure:
            rest = Outcome.failed(str(failure), failure.dsn, "none")
        except Unresolved as failure:
            rest = Outcome.deferred(str(failure), "4.4.3", "none")
        except SessionFailed as failure:
            make = Outcome.failed if failure.is_permanent else Outcome.deferred
            rest = make(str(failure), failure.dsn, "none", failure.remote)
        return tuple(outcome or rest for outcome in outcomes)

    def _session_key(self, nexthop: str, mail: Mail) -> str:
        """What messages must have in common to share a session: the next hop, and the login."""
        return f"{nexthop} {mail.sender}" if self._settings.login_depends_on_sender else nexthop

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
                    self._fail(failure, idle.client, range(len(outcomes)), outcomes)
                    return True
                return False  # a server may close a session at any time: make a new one
            self._note(dict(enumerate(answers)), idle.client, outcomes)
            self._keep(nexthop, idle.client, idle.messages + 1)
            return True
        return False

    async def _over_new_sessions(
        self, nexthop: str, key: str, mail: Mail, outcomes: list[Outcome | None]
    ) -> None:
        pending: Sequence[int] = range(len(mail.recipients))
        failure: NoRoute | Unresolved | None = None
        for hop in self._hops(nexthop):
            try:
                hosts = await self._hosts(hop)
            except (NoRoute, Unresolved) as problem:
                if isinstance(problem, NoRoute) and problem.dsn == _LOOP:
                    raise
                if failure is None or isinstance(problem, Unresolved):
                    failure = problem
                continue
            failure = None
            pending = await self._to_hosts(hop, hosts, key, mail, pending, outcomes)
            if not pending:
                return
        if failure is not None:
            raise failure

    def _hops(self, nexthop: str) -> Sequence[NextHop]:
        """The next hops, and smtp_fallback_relay behind them. Raises NoRoute."""
        port = self._settings.tcp_port
        parse = parse_lmtp_next_hop if self._settings.is_lmtp else parse_next_hop
        fallback = (parse(each, port) for each in self._settings.fallback_relay)
        return (*parse_next_hops(nexthop, port, parse), *fallback)

    async def _hosts(self, hop: NextHop) -> Sequence[Host]:
        """The addresses to try. Raises NoRoute or Unresolved."""
        if hop.is_unix:
            return (Host(self._settings.helo_name, hop.name, 0),)
        return await self._finder.find(hop)

    async def _to_hosts(
        self,
        hop: NextHop,
        hosts: Sequence[Host],
        key: str,
        mail: Mail,
        pending: Sequence[int],
        outcomes: list[Outcome | None],
    ) -> Sequence[int]:
        """Who may be tried at the next hop: recipients that no host took, and none refused."""
        sessions = 0
        for host in hosts:
            client: SmtpClient | None = None
            try:
                client = await self._open(hop, host, mail.sender)
                sessions += 1
                answers = await client.deliver(_part_of(mail, pending))
            except SessionFailed as failure:
                self._fail(failure, client, pending, outcomes)
                if failure.is_permanent or failure.may_be_sent:
                    return ()
            else:
                self._note(dict(zip(pending, answers, strict=True)), client, outcomes)
                self._keep(key, client, 1)
                pending = _deferred(answers, pending)
                if not pending:
                    return ()
            if sessions >= self._settings.mx_session_limit > 0:
                break
        return pending

    async def _open(self, hop: NextHop, host: Host, sender: str) -> SmtpClient:
        written = str(hop)
        policy = await self._policy(hop, host)
        context = self._context(policy, hop, host)
        client = await self._connect(host)
        try:
            if self._settings.tls_wrappermode:
                client.wrap(context)
            await client.open()
            if policy.level != "none" and not self._settings.tls_wrappermode:
                await self._secure(client, context, policy.level)
        except SessionFailed as failure:
            if isinstance(failure.__cause__, CertificateMismatch):
                text = f"server certificate verification failed for {client.relay}: {failure.__cause__}"
                self._settings.warn(text)
            if policy.level != MAY or not client.session.tls_was_tried:
                raise
            # Opportunistic: what cannot be encrypted goes in clear, to the same host (RFC 7435).
            client.close()
            client = await self._connect(host)
            await client.open()
        self._tell(client, policy, host)
        login = self._settings.login(written, host.name, sender)
        if login is not None:
            await client.login(login)
        return client

    async def _policy(self, hop: NextHop, host: Host) -> TlsPolicy:
        """What TLS must give there. Within this host it gives nothing. Raises SessionFailed."""
        policy = await self._settings.threads.run(self._settings.tls_policy, str(hop))
        if not hop.is_unix:
            try:
                return await settle(policy, self._settings.dane, host)
            except PolicyFailed as failure:
                self._settings.warn(f"TLS policy lookup for {hop.name}/{host.name}: {failure}")
                raise SessionFailed(str(failure), "4.7.5") from failure
        if policy.level not in ("none", MAY):
            raise SessionFailed(f"TLS is required, but there is none over the socket {host.address}", "4.7.4")
        return TlsPolicy("none")

    def _context(self, policy: TlsPolicy, hop: NextHop, host: Host) -> Any:
        name = policy.dane.base_domain if policy.dane is not None else host.name
        names = policy.names(hop.name, host.name)
        return self._settings.client_tls(name, names, policy.minimum, policy.dane)

    def _tell(self, client: SmtpClient, policy: TlsPolicy, host: Host) -> None:
        """The log has a line for TLS, in smtp(8)'s form."""
        session = client.tls_session
        if policy.level == "none" and "STARTTLS" in client.session.extensions:
            self._settings.note_starttls_offer(f"Host offered STARTTLS: [{host.name}]")
        if session is not None:
            status = policy.status(session.get_peer_certificate() is not None)
            self._settings.log(f"{status} TLS connection established to {client.relay}: {describe(session)}")

    async def _secure(self, client: SmtpClient, context: Any, level: str) -> None:
        if "STARTTLS" in client.session.extensions:
            await client.start_tls(context)
        elif level != MAY:
            client.close()
            raise SessionFailed(f"TLS is required, but was not offered by host {client.peer}", "4.7.4")

    async def _connect(self, host: Host) -> SmtpClient:
        settings = self._settings
        session = Session(
            settings.helo_name,
            settings.limits,
            line_length_limit=settings.line_length_limit,
            is_lmtp=settings.is_lmtp,
        )
        client = SmtpClient(host.peer, str(host), session, self._reactor)
        try:
            await connectProtocol(self._endpoint(host), client)
        except (connection_errors.ConnectError, OSError) as failure:
            raise SessionFailed(f"connect to {host}: {_reason(failure)}", "4.4.1") from failure
        return client

    def _endpoint(self, host: Host) -> Any:
        settings, limit = self._settings, self._settings.limits.connect
        if not host.port:
            return UNIXClientEndpoint(
                self._reactor, os.path.join(settings.socket_directory, host.address), limit
            )
        is_ipv6 = ":" in host.address
        kind = TCP6ClientEndpoint if is_ipv6 else TCP4ClientEndpoint
        own = next(((each, 0) for each in settings.bind_addresses if (":" in each) == is_ipv6), None)
        return kind(self._reactor, host.address, host.port, limit, own)

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

    # Outcomes.

    def _note(
        self, answers: Mapping[int, Answer], client: SmtpClient, outcomes: list[Outcome | None]
    ) -> None:
        known: dict[Answer, Outcome] = {}  # most recipients share the reply to the end of data
        for index, answer in answers.items():
            if answer not in known:
                known[answer] = _outcome(answer, client)
            outcomes[index] = known[answer]

    def _fail(
        self,
        failure: SessionFailed,
        client: SmtpClient | None,
        indices: Sequence[int],
        outcomes: list[Outcome | None],
    ) -> None:
        make = Outcome.failed if failure.is_permanent else Outcome.deferred
        for index in indices:
            relay = client.relay if client is not None else "none"
            outcomes[index] = make(str(failure), failure.dsn, relay, failure.remote)
        if client is not None:
            self._note({indices[at]: answer for at, answer in failure.answered.items()}, client, outcomes)


def _part_of(mail: Mail, indices: Sequence[int]) -> Mail:
    if len(indices) == len(mail.recipients):
        return mail
    return replace(mail, recipients=tuple(mail.recipients[index] for index in indices))


def _deferred(answers: Collection[Answer], indices: Sequence[int]) -> Sequence[int]:
    """Those whose answer was temporary."""
    return [index for index, answer in zip(indices, answers, strict=True) if answer.reply.code // 100 == 4]


def _outcome(answer: Answer, client: SmtpClient) -> Outcome:
    reply, relay = answer.reply, client.relay
    if reply.code // 100 == 2:
        done = Outcome.delivered(str(reply), reply.dsn, relay, str(reply))
        return replace(done, reports_itself="DSN" in client.session.extensions)
    text = f"host {client.peer} said: {reply} (in reply to {answer.command} command)"
    make = Outcome.failed if reply.is_permanent else Outcome.deferred
    return make(text, reply.dsn, relay, str(reply))


def _reason(failure: Exception) -> str:
    if isinstance(failure, connection_errors.TimeoutError):
        return "Connection timed out"
    number = getattr(failure, "osError", None)
    number = number if isinstance(number, int) else getattr(failure, "errno", None)
    if isinstance(failure, connection_errors.ConnectionRefusedError):
        number = errno.ECONNREFUSED
    return os.strerror(number) if isinstance(number, int) else str(failure)
