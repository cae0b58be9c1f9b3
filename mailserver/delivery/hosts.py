"""Which addresses the mail for a next hop may be taken to, in the order in which they are tried.

MX records, or the bracketed host itself; then the hosts' addresses, by DNS, by the system (`native`),
or first one and then the other. What DNS says for certain is a NoRoute, what it does not say is a
`Unresolved` and temporary (P5). Texts are Postfix's. RFC 5321 §5.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from twisted.internet import defer

from mailserver.delivery.next_hop import NextHop, NoRoute, is_loop, order_hosts
from mailserver.dns import NoSuchDomain, Resolver, TemporaryLookupFailure
from mailserver.dnssec import Answer, SecureResolver

MOST_ADDRESSES: Final = 5  # smtp_mx_address_limit

Native = Callable[[str], Awaitable[Sequence[str]]]


class Unresolved(Exception):
    """DNS gave no answer, so the mail waits."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """How DNS led to a host, as far as DNSSEC vouches for it. RFC 7672 §2.2.

    `domains` are the names whose MX records named the host: the next hop's, and the one that its aliases led
    to; () where it is the next hop itself. `canonical` is the name that the host's own aliases led to, or "".
    `is_secure` is about the address.
    """

    domains: tuple[str, ...] = ()
    is_mx_secure: bool = False
    canonical: str = ""
    is_secure: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """One address to connect to, and the name that led there. A socket's path has port 0."""

    name: str
    address: str
    port: int
    lookup: Lookup = Lookup()

    @property
    def peer(self) -> str:
        """Who is talked to, as the log has it."""
        return f"{self.name}[{self.address}]"

    def __str__(self) -> str:
        return f"{self.peer}:{self.port}" if self.port else self.peer


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRules:
    """Plain values, under smtp(8)'s parameter names without their prefix.

    `uses_mx` is false where smtp_dns_support_level is disabled. `host_lookup` is a selection of dns and
    native, in order; `native` asks the system. `families` are those of inet_protocols.
    """

    own_addresses: frozenset[str] = frozenset()
    own_ports: frozenset[int] = frozenset({25})
    own_names: frozenset[str] = frozenset()
    uses_mx: bool = True
    ignore_mx_lookup_error: bool = False
    defer_if_no_mx_address_found: bool = False
    host_lookup: tuple[str, ...] = ("dns",)
    native: Native | None = None
    families: frozenset[int] = field(default_factory=lambda: frozenset({4, 6}))
    address_preference: str = "any"
    mx_address_limit: int = MOST_ADDRESSES


class HostFinder:
    """Finds the hosts of next hops; by `secure`, where it is asked what DNSSEC vouches for."""

    def __init__(self, resolver: Resolver, rules: HostRules, secure: SecureResolver | None = None) -> None:
        self._resolver = resolver
        self._rules = rules
        self._secure = secure

    async def find(self, hop: NextHop) -> Sequence[Host]:
        """The addresses to try, at least one. Raises NoRoute or Unresolved."""
        names, way = await self._exchangers(hop)
        hosts: list[Host] = []
        trouble: TemporaryLookupFailure | None = None
        for name in names:
            try:
                found = await self._addresses(name)
            except TemporaryLookupFailure as failure:
                trouble = failure
                continue
            if is_loop(found, hop.port, self._rules.own_addresses, self._rules.own_ports):
                raise NoRoute("5.4.6", f"mail for {hop.name} loops back to myself")
            for address in self._preferred(tuple(found)):
                canonical, is_secure = found[address]
                lookup = replace(way, canonical=canonical, is_secure=is_secure)
                hosts.append(Host(name, address, hop.port, lookup))
        if hosts:
            limit = self._rules.mx_address_limit
            return hosts[:limit] if limit else hosts
        if trouble is not None or (names != (hop.name,) and self._rules.defer_if_no_mx_address_found):
            raise Unresolved(not_found(names[0], "A", ", try again")) from trouble
        raise NoRoute("5.4.4", not_found(names[0], "A"))

    async def _exchangers(self, hop: NextHop) -> tuple[tuple[str, ...], Lookup]:
        """The hosts' names, and how DNS led to them."""
        if hop.is_host or not self._rules.uses_mx:
            return (hop.name,), Lookup()
        try:
            if self._secure is None:
                answer = Answer(await self._resolver.mail_exchangers(hop.name), hop.name, False)
            else:
                answer = await self._secure.mail_exchangers(hop.name)
        except NoSuchDomain:
            raise NoRoute("5.4.4", not_found(hop.name, "MX")) from None
        except TemporaryLookupFailure as failure:
            if self._rules.ignore_mx_lookup_error:
                return (hop.name,), Lookup()
            raise Unresolved(not_found(hop.name, "MX", ", try again")) from failure
        names = order_hosts(hop.name, answer.records, self._rules.own_names.__contains__)
        if not answer.records:
            return names, Lookup()
        domains = tuple(dict.fromkeys((hop.name, answer.name.lower())))
        return names, Lookup(domains, answer.is_secure)

    async def _addresses(self, name: str) -> dict[str, tuple[str, bool]]:
        """Addresses, with the name that aliases led to, and whether DNSSEC vouches for them."""
        try:
            return {str(ipaddress.ip_address(name)): ("", False)}
        except ValueError:
            pass
        for way in self._rules.host_lookup:
            native = self._rules.native if way == "native" else None
            if native is None and self._secure is not None:
                found = await self._secure_addresses(self._secure, name)
            else:
                found = dict.fromkeys(await (native or self._resolver.addresses)(name), ("", False))
            if found:
                families = self._rules.families
                return {each: way for each, way in found.items() if _version(each) in families}
        return {}

    async def _secure_addresses(self, secure: SecureResolver, name: str) -> dict[str, tuple[str, bool]]:
        """The same from hosts(5), whose word is as good as ours, or from DNS: one family is enough."""
        written = self._resolver.written(name)
        if written:
            return dict.fromkeys(written, ("", True))
        results: Any = await defer.DeferredList(
            [defer.ensureDeferred(secure.addresses(name, version)) for version in (6, 4)], consumeErrors=True
        )
        found = {
            address: (answer.name if answer.name.lower() != name.lower() else "", answer.is_secure)
            for is_good, answer in results
            if is_good
            for address in answer.records
        }
        for is_good, result in results:
            if not is_good and not found:
                result.raiseException()
        return found

    def _preferred(self, addresses: Sequence[str]) -> Sequence[str]:
        """smtp_address_preference: one family before the other, else in the order of the answer."""
        first = {"ipv4": 4, "ipv6": 6}.get(self._rules.address_preference)
        if first is None:
            return addresses
        return sorted(addresses, key=lambda each: _version(each) != first)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


def not_found(name: str, kind: str, rest: str = "") -> str:
    """Postfix's words for a name that DNS does not have, or has no answer for."""
    return (
        f"Host or domain name not found. Name service error for name={name} type={kind}: Host not found{rest}"
    )
