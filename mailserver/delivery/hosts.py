"""Which addresses the mail for a next hop may be taken to, in the order in which they are tried.

MX records, or the bracketed host itself; then the hosts' addresses, by DNS, by the system (`native`),
or first one and then the other. What DNS says for certain is a NoRoute, what it does not say is a
`Unresolved` and temporary (P5). Texts are Postfix's. RFC 5321 §5.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailserver.delivery.next_hop import NextHop, NoRoute, is_loop, order_hosts
from mailserver.dns import NoSuchDomain, Resolver, TemporaryLookupFailure

MOST_ADDRESSES: Final = 5  # smtp_mx_address_limit

Native = Callable[[str], Awaitable[Sequence[str]]]


class Unresolved(Exception):
    """DNS gave no answer, so the mail waits."""


@dataclass(frozen=True, slots=True)
class Host:
    """One address to connect to, and the name that led there. A socket's path has port 0."""

    name: str
    address: str
    port: int

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
    """Finds the hosts of next hops."""

    def __init__(self, resolver: Resolver, rules: HostRules) -> None:
        self._resolver = resolver
        self._rules = rules

    async def find(self, hop: NextHop) -> Sequence[Host]:
        """The addresses to try, at least one. Raises NoRoute or Unresolved."""
        names = await self._exchangers(hop)
        hosts: list[Host] = []
        trouble: TemporaryLookupFailure | None = None
        for name in names:
            try:
                addresses = await self._addresses(name)
            except TemporaryLookupFailure as failure:
                trouble = failure
                continue
            if is_loop(addresses, hop.port, self._rules.own_addresses, self._rules.own_ports):
                raise NoRoute("5.4.6", f"mail for {hop.name} loops back to myself")
            hosts += [Host(name, address, hop.port) for address in self._preferred(addresses)]
        if hosts:
            limit = self._rules.mx_address_limit
            return hosts[:limit] if limit else hosts
        if trouble is not None or (names != (hop.name,) and self._rules.defer_if_no_mx_address_found):
            raise Unresolved(not_found(names[0], "A", ", try again")) from trouble
        raise NoRoute("5.4.4", not_found(names[0], "A"))

    async def _exchangers(self, hop: NextHop) -> tuple[str, ...]:
        if hop.is_host or not self._rules.uses_mx:
            return (hop.name,)
        try:
            found = await self._resolver.mail_exchangers(hop.name)
        except NoSuchDomain:
            raise NoRoute("5.4.4", not_found(hop.name, "MX")) from None
        except TemporaryLookupFailure as failure:
            if self._rules.ignore_mx_lookup_error:
                return (hop.name,)
            raise Unresolved(not_found(hop.name, "MX", ", try again")) from failure
        return order_hosts(hop.name, found, self._rules.own_names.__contains__)

    async def _addresses(self, name: str) -> Sequence[str]:
        try:
            return (str(ipaddress.ip_address(name)),)
        except ValueError:
            pass
        for way in self._rules.host_lookup:
            native = self._rules.native if way == "native" else None
            found = await (native or self._resolver.addresses)(name)
            if found:
                return [each for each in found if ipaddress.ip_address(each).version in self._rules.families]
        return ()

    def _preferred(self, addresses: Sequence[str]) -> Sequence[str]:
        """smtp_address_preference: one family before the other, else in the order of the answer."""
        first = {"ipv4": 4, "ipv6": 6}.get(self._rules.address_preference)
        if first is None:
            return addresses
        return sorted(addresses, key=lambda each: ipaddress.ip_address(each).version != first)


def not_found(name: str, kind: str, rest: str = "") -> str:
    """Postfix's words for a name that DNS does not have, or has no answer for."""
    return (
        f"Host or domain name not found. Name service error for name={name} type={kind}: Host not found{rest}"
    )
