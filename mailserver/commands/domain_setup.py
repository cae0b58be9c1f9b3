"""Whether the world finds this mail host: MX, addresses, PTR, SPF, block lists and port 25.

Each question gives findings, whose `state` is ok, wrong or unknown. Unknown is whatever cannot be
seen from here: DNS without an answer is no answer, and a block list's error code (127.255.255.x,
RFC 5782 has only 127.0.0.0/16 for listings) is no listing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from mailserver.commands import sender_policy
from mailserver.dns import NoSuchDomain, Resolver, TemporaryLookupFailure

OK: Final = "ok"
WRONG: Final = "wrong"
UNKNOWN: Final = "unknown"
# Addresses that nobody reaches from elsewhere.
_INSIDE: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
            "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128",
        ),
    )
)  # fmt: skip
_LISTINGS: Final = ipaddress.ip_network("127.0.0.0/16")

Connect = Callable[[str], Awaitable[str]]  # the greeting on port 25 of a host; raises OSError


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. `text` says what is so and, where it is wrong, how to mend it."""

    state: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Site:
    """What the configuration says of this host. `peer` is a domain or [host] to try port 25 of, or ""."""

    hostname: str
    domains: tuple[str, ...]
    own_addresses: frozenset[str]
    block_lists: tuple[str, ...] = ()
    peer: str = ""


def is_public(address: str) -> bool:
    """Whether the rest of the world could reach it."""
    parsed = ipaddress.ip_address(address)
    return not any(parsed in network for network in _INSIDE)


class Examination:
    """The questions, asked one after the other."""

    def __init__(self, site: Site, resolver: Resolver, connect: Connect) -> None:
        self._site = site
        self._resolver = resolver
        self._connect = connect
        self._addresses: tuple[str, ...] = ()  # of this host, as the world sees it

    async def findings(self) -> AsyncIterator[Finding]:
        """Everything, in the order in which a domain is set up."""
        questions = [self._hostname()]
        questions += [self._exchangers(domain) for domain in self._site.domains]
        for question in questions:
            async for finding in _guarded(question):
                yield finding
        for address in self._addresses:
            async for finding in _guarded(self._pointer(address)):
                yield finding
            for zone in self._site.block_lists:
                async for finding in _guarded(self._block_list(zone, address)):
                    yield finding
        for question in [self._policy(domain) for domain in self._site.domains]:
            async for finding in _guarded(question):
                yield finding
        async for finding in _guarded(self._outbound()):
            yield finding
        yield self._inbound()

    async def _hostname(self) -> AsyncIterator[Finding]:
        name = self._site.hostname
        subject = f"address of {name}"
        if "." not in name or name.endswith((".localdomain", ".local")):
            yield Finding(WRONG, subject, "no name of the Internet: set myhostname to this host's own")
            return
        found = await self._resolver.addresses(name)
        public = tuple(address for address in found if is_public(address))
        if not public:
            shown = ", ".join(found) or "none"
            yield Finding(WRONG, subject, f"{shown}: publish an A (and AAAA) record with its public address")
            return
        self._addresses = public
        strangers = [address for address in public if address not in self._site.own_addresses]
        if not strangers:
            yield Finding(OK, subject, ", ".join(public))
            return
        text = f"{', '.join(strangers)}: no interface here has it"
        if any(map(is_public, self._site.own_addresses)):
            yield Finding(WRONG, subject, f"{text}: correct the record, or name it in proxy_interfaces")
        else:
            yield Finding(
                UNKNOWN, subject, f"{text}: behind NAT, name it in proxy_interfaces once it is ours"
            )

    async def _exchangers(self, domain: str) -> AsyncIterator[Finding]:
        subject = f"MX of {domain}"
        hosts = [each.host for each in await self._resolver.mail_exchangers(domain)]
        if hosts == [""]:
            yield Finding(WRONG, subject, "the null MX: the domain says that it takes no mail (RFC 7505)")
            return
        if not hosts:
            if not await self._resolver.addresses(domain):
                yield Finding(WRONG, subject, f"none: publish `{domain}. MX 10 {self._site.hostname}.`")
                return
            yield Finding(OK, subject, f"none; mail goes to the address of {domain} itself (RFC 5321 §5.1)")
            hosts = [domain]
        leads_here = False
        for host in hosts:
            addresses = await self._resolver.addresses(host)
            if not addresses:
                yield Finding(WRONG, subject, f"{host} has no address: publish one, or drop the MX")
            leads_here |= self._is_here(host, addresses)
        if leads_here:
            yield Finding(OK, subject, ", ".join(hosts))
        else:
            yield Finding(WRONG, subject, f"{', '.join(hosts)}: none is this host, {self._site.hostname}")

    def _is_here(self, host: str, addresses: tuple[str, ...]) -> bool:
        return host.lower() == self._site.hostname.lower() or not self._site.own_addresses.isdisjoint(
            addresses
        )

    async def _pointer(self, address: str) -> AsyncIterator[Finding]:
        subject = f"PTR of {address}"
        names = await self._resolver.ptr(address)
        if not names:
            yield Finding(
                WRONG, subject, f"none: ask whoever gave you the address to set it to {self._site.hostname}"
            )
            return
        confirmed = [name for name in names if address in await self._resolver.addresses(name)]
        if not confirmed:
            yield Finding(WRONG, subject, f"{names[0]}, whose address is another one: make them agree")
        elif self._site.hostname.lower() not in map(str.lower, confirmed):
            yield Finding(OK, subject, f"{confirmed[0]}; many sites like it better as {self._site.hostname}")
        else:
            yield Finding(OK, subject, self._site.hostname)

    async def _block_list(self, zone: str, address: str) -> AsyncIterator[Finding]:
        subject = f"{address} at {zone}"
        reversed_name = ipaddress.ip_address(address).reverse_pointer
        name = reversed_name.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
        answers = await self._resolver.addresses(f"{name}.{zone}")
        if not answers:
            yield Finding(OK, subject, "not listed")
        elif all(ipaddress.ip_address(answer) in _LISTINGS for answer in answers):
            yield Finding(WRONG, subject, f"listed ({', '.join(answers)}): ask there why, and to be removed")
        else:
            text = f"it answers {', '.join(answers)}, which is no listing: ask through a resolver of your own"
            yield Finding(UNKNOWN, subject, text)

    async def _policy(self, domain: str) -> AsyncIterator[Finding]:
        subject = f"SPF of {domain}"
        records = await sender_policy.records(self._resolver, domain)
        if not records:
            yield Finding(WRONG, subject, f'none: publish `{domain}. TXT "v=spf1 mx -all"`')
            return
        if len(records) > 1:
            yield Finding(WRONG, subject, f"{len(records)} records: only one may begin with v=spf1")
            return
        if not self._addresses:
            yield Finding(UNKNOWN, subject, f"{records[0]}: this host's address is not known")
        for address in self._addresses:
            verdict = await sender_policy.evaluate(self._resolver, domain, address)
            state = {"pass": OK, "": UNKNOWN}.get(verdict, WRONG)
            shown = verdict or "cannot be told from here"
            advice = "" if state != WRONG else f": add ip{ipaddress.ip_address(address).version}:{address}"
            yield Finding(state, subject, f"{records[0]}: {shown} for {address}{advice}")

    async def _outbound(self) -> AsyncIterator[Finding]:
        subject = "port 25 outwards"
        peer = self._site.peer
        if not peer:
            yield Finding(UNKNOWN, subject, "not tried: name a domain that takes mail with --peer")
            return
        hosts = [peer.strip("[]")] if peer.startswith("[") else [*await self._resolver.mx(peer)] or [peer]
        try:
            greeting = await self._connect(hosts[0])
        except OSError as error:
            text = f"{hosts[0]}: {error}: many networks block it; ask yours, or set relayhost"
            yield Finding(WRONG, subject, text)
            return
        yield Finding(OK, subject, f"{hosts[0]}: {greeting}")

    def _inbound(self) -> Finding:
        name = self._site.hostname
        return Finding(UNKNOWN, "port 25 inwards", f"only elsewhere can tell: `nc -v {name} 25` from there")


async def _guarded(question: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    """The findings; DNS that does not answer is one of them."""
    try:
        async for finding in question:
            yield finding
    except NoSuchDomain as error:
        yield Finding(WRONG, f"domain {error}", "does not exist in DNS: register it, or leave it out")
    except TemporaryLookupFailure as error:
        yield Finding(UNKNOWN, f"DNS of {error}", "no answer: try again, or look at /etc/resolv.conf")
