"""DNS, in the questions a mail server asks.

An answer is a fact; no answer is not one: a server that is down, a time-out or SERVFAIL
raises TemporaryLookupFailure and nobody may conclude that a name does not exist.
Names come back without the final dot, as the name server spells them.
RFC 1035, RFC 5321 §5, RFC 7505.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.error import ConnectError
from twisted.names import client, dns, error

_TIMEOUTS: Final = (2, 5, 10)  # seconds for each try of each name server
MOST_RECORDS: Final = 100  # of one answer; the rest is ignored


class TemporaryLookupFailure(Exception):
    """DNS gave no answer: neither "exists" nor "does not exist" may be concluded."""


class NoSuchDomain(Exception):
    """The name does not exist at all (NXDOMAIN)."""


@dataclass(frozen=True, slots=True, order=True)
class MailExchanger:
    """One MX record. `host` is "" in a null MX (RFC 7505)."""

    preference: int
    host: str


class Resolver:
    """Asks the name servers of `resolv_conf`, or those given as (address, port).

    Names and addresses that stand in `hosts_file` are answered from there first, as hosts(5)
    has it; it is read once. Mail exchangers are DNS's alone.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[tuple[str, int]] = (),
        resolv_conf: str = "/etc/resolv.conf",
        hosts_file: str = "/etc/hosts",
    ) -> None:
        self._hosts = tuple(_read_hosts(hosts_file))
        if not servers and not os.path.exists(resolv_conf):
            servers = [("127.0.0.1", 53)]
        self._client: Any = client.Resolver(
            resolv=None if servers else resolv_conf, servers=list(servers), timeout=_TIMEOUTS, reactor=reactor
        )

    async def mail_exchangers(self, domain: str) -> tuple[MailExchanger, ...]:
        """The MX records, best first, () where the name has none. Raises NoSuchDomain."""
        records = await self._ask(self._client.lookupMailExchange, domain, dns.MX)
        return tuple(sorted(MailExchanger(record.preference, _text(record.name)) for record in records))

    async def mx(self, domain: str) -> tuple[str, ...]:
        """The mail exchangers, best first; () without MX records, ("",) for the null MX."""
        try:
            return tuple(exchanger.host for exchanger in await self.mail_exchangers(domain))
        except NoSuchDomain:
            return ()

    async def addresses(self, name: str) -> tuple[str, ...]:
        """The IPv6 and IPv4 addresses of a name; () where it has none.

        One family is enough: the failure of the other is only raised where neither answered.
        """
        written = self.written(name)
        if written:
            return written
        results: Any = await defer.DeferredList(
            [
                defer.ensureDeferred(self._addresses(self._client.lookupIPV6Address, name, dns.AAAA)),
                defer.ensureDeferred(self._addresses(self._client.lookupAddress, name, dns.A)),
            ],
            consumeErrors=True,
        )
        found = tuple(address for good, result in results if good for address in result)
        for good, result in results:
            if not good and not found:
                result.raiseException()
        return found

    def written(self, name: str) -> tuple[str, ...]:
        """The addresses of a name that hosts(5) has."""
        return tuple(address for address, names in self._hosts if name.lower() in names)

    async def _addresses(self, lookup: Any, name: str, kind: int) -> tuple[str, ...]:
        try:
            records = await self._ask(lookup, name, kind)
        except NoSuchDomain:
            return ()
        return tuple(str(ipaddress.ip_address(record.address)) for record in records)

    async def ptr(self, address: str) -> tuple[str, ...]:
        """The names of an IP address; () where it has none."""
        written = next((names for own, names in self._hosts if own == address), ())
        if written:
            return written[:1]
        pointer = ipaddress.ip_address(address).reverse_pointer
        try:
            records = await self._ask(self._client.lookupPointer, pointer, dns.PTR)
        except NoSuchDomain:
            return ()
        return tuple(_text(record.name) for record in records)

    async def txt(self, name: str) -> tuple[bytes, ...]:
        """The TXT records of a name, each joined from its strings."""
        try:
            records = await self._ask(self._client.lookupText, name, dns.TXT)
        except NoSuchDomain:
            return ()
        return tuple(b"".join(record.data) for record in records)

    async def _ask(self, lookup: Any, name: str, kind: int) -> list[Any]:
        try:
            wire_name = name.rstrip(".").encode("idna" if not name.isascii() else "ascii")
        except UnicodeError:
            raise NoSuchDomain(name) from None
        try:
            answers, _, _ = await lookup(wire_name)
        except error.DNSNameError:
            raise NoSuchDomain(name) from None
        except (error.DomainError, error.ResolverError, ConnectError, defer.TimeoutError, OSError) as cause:
            raise TemporaryLookupFailure(f"{name}: {type(cause).__name__}") from cause
        return [answer.payload for answer in answers if answer.type == kind][:MOST_RECORDS]


def _read_hosts(path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(address, names in lower case) of each line. hosts(5)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("#")[0].split() for line in file]
    except OSError:
        return
    for address, *names in filter(None, lines):
        yield address, tuple(name.lower() for name in names)


def _text(name: Any) -> str:
    return bytes(name.name).decode("ascii", "replace").rstrip(".")
