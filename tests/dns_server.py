"""A name server on loopback for tests: real DNS packets, records from a table, faults on request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from twisted.internet import defer
from twisted.names import common, dns, error, server

TLSA: Final = 52


class Zone(common.ResolverBase):
    """Answers from a table of (name, record) pairs.

    A name in `broken` gets SERVFAIL, one in `silent` no answer at all; unknown names NXDOMAIN. Aliases are
    followed. A (name, type) in `broken` is about one type. Names in `secure` are what DNSSEC vouches for.
    """

    def __init__(self, records: Iterable[tuple[str, Any]]) -> None:
        super().__init__()
        self.records = [(name.lower(), record) for name, record in records]
        self.broken: set[str | tuple[str, int]] = set()
        self.silent: set[str] = set()
        self.secure: set[str] = set()
        self.questions: list[tuple[str, int]] = []

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: object) -> defer.Deferred[Any]:
        text = dns.domainString(name).decode().lower()
        self.questions.append((text, kind))
        if text in self.silent:
            return defer.Deferred()
        if text in self.broken or (text, kind) in self.broken:
            return defer.fail(error.ResolverError(text))  # the factory answers SERVFAIL
        known = [record for owner, record in self.records if owner == text]
        if not known:
            return defer.fail(error.DomainError(text))
        answers = [dns.RRHeader(name, r.TYPE, cls, 60, r, auth=True) for r in known if kind == r.TYPE]
        alias = next((record for record in known if record.TYPE == dns.CNAME != kind), None)
        if alias is None:
            return defer.succeed((answers, [], []))
        answers = [dns.RRHeader(name, dns.CNAME, cls, 60, alias, auth=True)]
        rest: defer.Deferred[Any] = self._lookup(alias.name.name, cls, kind, timeout)
        return rest.addCallback(lambda found: ([*answers, *found[0]], [], []))


def tlsa(usage: int, selector: int, matching_type: int, data: bytes) -> dns.UnknownRecord:
    """A TLSA record, a type that Twisted does not know."""
    record = dns.UnknownRecord(bytes((usage, selector, matching_type)) + data)
    record.TYPE = TLSA
    return record


class _Factory(server.DNSServerFactory):
    """Sets the AD bit where the zone vouches for the whole answer. RFC 4035 §3.2.3."""

    def sendReply(self, protocol: Any, message: Any, address: Any) -> None:
        names = {str(message.queries[0].name), *(str(answer.name) for answer in message.answers)}
        message.authenticData = {name.lower() for name in names} <= self.resolver.resolvers[0].secure
        super().sendReply(protocol, message, address)


class NameServer:
    """A running name server; `address` is what a Resolver takes. `stop` returns a Deferred."""

    def __init__(self, reactor: Any, zone: Zone, port: int = 0) -> None:
        self.factory = _Factory(clients=[zone])
        self.factory.noisy = False
        self.tcp = reactor.listenTCP(port, self.factory, interface="127.0.0.1")
        port = self.tcp.getHost().port  # the crowded half first: few use UDP
        self.udp = reactor.listenUDP(port, dns.DNSDatagramProtocol(self.factory), interface="127.0.0.1")
        self.address = ("127.0.0.1", port)

    def stop(self) -> defer.Deferred[Any]:
        """Both sockets are closed."""
        return defer.gatherResults(
            [defer.maybeDeferred(self.udp.stopListening), defer.maybeDeferred(self.tcp.stopListening)]
        )
