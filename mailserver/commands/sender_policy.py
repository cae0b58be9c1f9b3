"""What a domain's SPF record says of one address. RFC 7208, without what depends on a message.

Macros, `exists` and `ptr` decide by more than the address: where one of them is reached, and nothing
before it matched, the verdict is "" (it cannot be told). So it is with a record that is wrong.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from mailserver.dns import NoSuchDomain, Resolver

MOST_LOOKUPS: Final = 10  # RFC 7208 §4.6.4
_VERDICTS: Final = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}


class _CannotTell(Exception):
    pass


async def records(resolver: Resolver, domain: str) -> list[str]:
    """The domain's SPF records; there should be one. RFC 7208 §4.5."""
    texts = [text.decode("ascii", "replace") for text in await resolver.txt(domain)]
    return [text for text in texts if text.lower().split(" ")[0] == "v=spf1"]


async def evaluate(resolver: Resolver, domain: str, address: str) -> str:
    """pass, fail, softfail or neutral for a client of that address; "" where it cannot be told."""
    try:
        return await _Evaluation(resolver, address).verdict(domain)
    except _CannotTell:
        return ""


class _Evaluation:
    """One run, whose DNS questions are counted."""

    def __init__(self, resolver: Resolver, address: str) -> None:
        self._resolver = resolver
        self._address = ipaddress.ip_address(address)
        self._lookups = 0

    async def verdict(self, domain: str) -> str:
        found = await records(self._resolver, domain)
        if len(found) != 1:
            raise _CannotTell
        redirect = ""
        for term in found[0].split()[1:]:
            name, equals, value = term.partition("=")
            if equals and ":" not in name and "/" not in name:
                redirect = value if name.lower() == "redirect" else redirect
                continue
            sign = term[0] if term[0] in _VERDICTS else "+"
            if await self._matches(term.lstrip("+-~?"), domain):
                return _VERDICTS[sign]
        if redirect:
            return await self.verdict(self._counted(redirect))
        return "neutral"

    async def _matches(self, mechanism: str, domain: str) -> bool:
        name, _, rest = mechanism.partition(":")
        name, slash, prefix = name.partition("/")
        match name.lower():
            case "all":
                return True
            case "ip4" | "ip6":
                return self._is_within(rest)
            case "include":
                return await self.verdict(self._counted(rest)) == "pass"
            case "a" | "mx":
                host, _, length = rest.partition("/") if rest else (domain, "", prefix if slash else "")
                hosts = [self._counted(host)] if name.lower() == "a" else await self._exchangers(host)
                return await self._names(hosts, length)
        raise _CannotTell

    async def _exchangers(self, domain: str) -> list[str]:
        return [host for host in await self._resolver.mx(self._counted(domain)) if host][:MOST_LOOKUPS]

    async def _names(self, hosts: list[str], length: str) -> bool:
        """Whether the address is one of theirs, within the prefix `LENGTH4//LENGTH6`."""
        length_4, _, length_6 = length.partition("//")
        wanted = length_4 if self._address.version == 4 else length_6.strip("/")
        for host in hosts:
            try:
                found = await self._resolver.addresses(host)
            except NoSuchDomain:
                continue
            if any(self._is_within(f"{each}/{wanted}" if wanted else each) for each in found):
                return True
        return False

    def _is_within(self, network: str) -> bool:
        try:
            if ipaddress.ip_address(network.partition("/")[0]).version != self._address.version:
                return False
            return self._address in ipaddress.ip_network(network, strict=False)
        except ValueError as error:
            raise _CannotTell from error

    def _counted(self, domain: str) -> str:
        self._lookups += 1
        if "%" in domain or self._lookups > MOST_LOOKUPS:
            raise _CannotTell
        return domain
