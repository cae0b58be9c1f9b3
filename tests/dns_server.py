"""A name server on loopback for tests: real DNS packets, records from a table, faults on request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet import defer
from twisted.names import common, dns, error, server


class Zone(common.ResolverBase):
    """Answers from a table of (name, record) pairs.

    A name in `broken` gets SERVFAIL, one in `silent` no answer at all; unknown names NXDOMAIN.
    """

    def __init__(self, records: Iterable[tuple[str, Any]]) -> None:
        super().__init__()
        self.records = [(name.lower(), record) for name, record in records]
        self.broken: set[str] = set()
        self.silent: set[str] = set()

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: object) -> defer.Deferred[Any]:
        text = dns.domainString(name).decode().lower()
        if text in self.silent:
            return defer.Deferred()
        if text in self.broken:
            return defer.fail(error.ResolverError(text))  # the factory answers SERVFAIL
        known = [record for owner, record in self.records if owner == text]
        if not known:
            return defer.fail(error.DomainError(text))
        answers = [dns.RRHeader(name, r.TYPE, cls, 60, r, auth=True) for r in known if kind == r.TYPE]
        return defer.succeed((answers, [], []))


class NameServer:
    """A running name server; `address` is what a Resolver takes. `stop` returns a Deferred."""

    def __init__(self, reactor: Any, zone: Zone, port: int = 0) -> None:
        self.factory = server.DNSServerFactory(clients=[zone])
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
