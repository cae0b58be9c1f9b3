"""The start of a session: who is it, may it come in, and how many of its kind are here already.

A client's name counts where it leads back to the client's address (RFC 1912 §2.1); else the
client is "unknown" to every decision and in the log. Name servers that do not answer hold up the
greeting for NAME_SECONDS (in Postfix as long as resolv.conf(5) has it: 10 s for each); then the client is
"unknown" for the time being, and reject_unknown_client_hostname says 450.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import defer

from mailserver.dns import TemporaryLookupFailure
from mailserver.smtpd.verdict import Effects, Request, Stage

if TYPE_CHECKING:
    from mailserver.smtpd.lookups import Resolver
    from mailserver.smtpd.milters import SessionMilters
    from mailserver.smtpd.session import Session

NAME_SECONDS: Final = 5.0


class Admission:
    """How one session's client comes in, and goes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_counted = False

    async def connected(self) -> None:
        """The client is known by name, counted, and greeted or turned away."""
        session = self._session
        peer = session.wire.transport.getPeer()
        address = str(getattr(peer, "host", None) or "127.0.0.1").removeprefix("::ffff:")
        session.peer_address = address
        session.request = Request(address)
        self._is_counted = True
        connections = session.services.limits.connected(address)
        session.request = await self.identified(session.request)
        if session.is_over:
            return
        session.log(f"connect from {session.client}")
        if self._connects_too_often(connections):
            host = session.settings.myhostname
            session.reply(421, "4.7.0", f"{host} Error: too many connections from {address}")
            session.close()
        else:
            await self.greet()

    async def greet(self) -> None:
        """The client has heard whether it is welcome."""
        session = self._session
        decision = await session.services.policy.client(session.request_at(Stage.CONNECT), Effects())
        if not session.refuses(decision, "CONNECT"):
            if session.milters is None or not await self._refused_by_milters(session.milters):
                session.wire.reply(220, "", session.settings.greeting)
            return
        session.deny()
        if decision.refusal is not None and decision.refusal.disconnects:
            session.reply(decision.refusal.code, decision.refusal.dsn, decision.refusal.text)
            session.close()
        else:
            session.wire.reply(554, "", f"{session.settings.myhostname} ESMTP not accepting connections")

    async def _refused_by_milters(self, milters: SessionMilters) -> bool:
        """Whether a milter turns the client away: for now with 421, else nothing but QUIT is obeyed."""
        session = self._session
        refusal = await milters.connected()
        if refusal is None:
            return False
        session.deny()
        if refusal.code < 500:
            session.reply(421, refusal.dsn, f"{session.settings.myhostname} {refusal.text}")
            session.close()
        else:
            session.reply(refusal.code, refusal.dsn, refusal.text)
        return True

    def _connects_too_often(self, connections: int) -> bool:
        session, settings = self._session, self._session.settings
        limit, rate_limit = settings.client_connection_count_limit, settings.client_connection_rate_limit
        unit, counters = settings.anvil_rate_time_unit, session.services.limits
        rate = counters.count("connection", session.peer_address, unit) if rate_limit else 0
        exceeds_rate = rate > rate_limit > 0
        if not (exceeds_rate or connections > limit > 0) or session.is_trusted:
            return False
        kind, count = ("rate", rate) if exceeds_rate else ("count", connections)
        session.log(
            f"warning: Connection {kind} limit exceeded: {count} from {session.client} for service smtp"
        )
        return True

    async def identified(self, request: Request) -> Request:
        """The request with the client's names; one counts where it leads back to the address."""
        resolver, address = self._session.services.resolver, request.address
        if resolver is None:
            local = address in ("127.0.0.1", "::1")
            return replace(request, client_name="localhost", reverse_name="localhost") if local else request
        found = [request]
        search = defer.Deferred.fromCoroutine(self._search(resolver, found))
        clock: Any = self._session.services.clock
        try:
            await search.addTimeout(NAME_SECONDS, clock)
        except (TemporaryLookupFailure, defer.TimeoutError):
            return replace(found[0], name_is_temporary=True)
        return found[0]

    async def _search(self, resolver: Resolver, found: list[Request]) -> None:
        """`found` holds what is known of the client's names so far."""
        address = found[0].address
        names = await resolver.ptr(address)
        if not names:
            return
        found[0] = replace(found[0], reverse_name=names[0])
        if address in await resolver.addresses(names[0]):
            found[0] = replace(found[0], client_name=names[0])
        else:
            self._session.log(f"warning: hostname {names[0]} does not resolve to address {address}")

    def gone(self) -> None:
        """The client is not counted any more."""
        if self._is_counted:
            self._is_counted = False
            self._session.services.limits.disconnected(self._session.peer_address)
