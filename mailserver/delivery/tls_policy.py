"""What TLS must give for a next hop, and what TLSA records make of it for one host.

At level dane a host that has secure and usable TLSA records is authenticated by them; one whose records are
unusable must encrypt; one without secure records gets opportunistic TLS. At dane-only the last two get no
mail.
Where DNS gives no answer nobody can tell, so the mail waits: it never falls back to less.
RFC 7672 §2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from mailserver.delivery.dane import Dane, usable
from mailserver.delivery.hosts import Host
from mailserver.dns import TemporaryLookupFailure
from mailserver.dnssec import SecureResolver, Tlsa

MAY: Final = "may"
ENCRYPT: Final = "encrypt"
DANE: Final = "dane"
DANE_ONLY: Final = "dane-only"
HALF_DANE: Final = "half-dane"  # by TLSA records of a host whose MX record nobody vouches for
LEVELS: Final = ("none", MAY, ENCRYPT, DANE, DANE_ONLY, "verify", "secure")
_TRUSTED: Final = {DANE: "Verified", "verify": "Verified", "secure": "Verified", HALF_DANE: "Trusted"}


class PolicyFailed(Exception):
    """The host cannot be held to the policy, so it gets no mail for now. The text is Postfix's."""


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """What TLS must give. `level` is one of LEVELS, or half-dane.

    At verify and secure the certificate must have a name that `match` has: `hostname` is the host's,
    `nexthop` that of the next hop, `dot-nexthop` any name below it; other words are names themselves.
    `dane` is there at dane and half-dane, once the host is known.
    """

    level: str = MAY
    match: tuple[str, ...] = ()
    minimum: str = "TLSv1.2"
    dane: Dane | None = None

    def names(self, nexthop: str, host: str) -> tuple[str, ...]:
        """The names that the certificate must have one of; () where none is asked for."""
        if self.level not in ("verify", "secure"):
            return ()
        meant = {"hostname": host, "nexthop": nexthop, "dot-nexthop": f".{nexthop}"}
        return tuple(meant.get(word, word) for word in self.match)

    def status(self, has_certificate: bool) -> str:
        """How much is known of a server that passed: Verified, Trusted, Untrusted, Anonymous."""
        return _TRUSTED.get(self.level, "Untrusted" if has_certificate else "Anonymous")


@dataclass(frozen=True, slots=True, kw_only=True)
class DaneRules:
    """How DANE is done; not at all without `resolver`.

    `insecure_mx_policy` is smtp_tls_dane_insecure_mx_policy, `digests` are tls_dane_digests, and `force`
    is smtp_tls_force_insecure_host_tlsa_lookup.
    """

    resolver: SecureResolver | None = None
    insecure_mx_policy: str = DANE
    digests: tuple[str, ...] = ("sha512", "sha256")
    force: bool = False


async def settle(policy: TlsPolicy, rules: DaneRules, host: Host) -> TlsPolicy:
    """The policy for that host: what it was, or what its TLSA records make of it. Raises PolicyFailed."""
    if policy.level not in (DANE, DANE_ONLY):
        return policy
    if rules.resolver is None:
        return _without(policy, "client TLS configuration problem")
    lookup = host.lookup
    has_insecure_mx = bool(lookup.domains) and not lookup.is_mx_secure
    if has_insecure_mx and (policy.level == DANE_ONLY or rules.insecure_mx_policy == MAY):
        return _without(policy, "non DNSSEC destination")
    try:
        base, found = await _tlsa(rules.resolver, rules.force, host)
    except TemporaryLookupFailure as failure:
        raise PolicyFailed(f"TLSA lookup error for {host.name}:{host.port}") from failure
    if not found:
        return _without(policy, "no TLSA records found")
    records = usable(found, rules.digests)
    if not records:
        return _without(policy, "TLSA records unusable", ENCRYPT)
    if has_insecure_mx and rules.insecure_mx_policy == ENCRYPT:
        return replace(policy, level=ENCRYPT)
    names = tuple(dict.fromkeys((base, *reversed(lookup.domains))))
    return replace(policy, level=HALF_DANE if has_insecure_mx else DANE, dane=Dane(records, base, names))


def _without(policy: TlsPolicy, text: str, level: str = MAY) -> TlsPolicy:
    if policy.level == DANE_ONLY:
        raise PolicyFailed(text)
    return replace(policy, level=level)


async def _tlsa(resolver: SecureResolver, force: bool, host: Host) -> tuple[str, tuple[Tlsa, ...]]:
    """The TLSA base domain and its secure records, () where there are none. RFC 7672 §2.2.2.

    A host whose address nobody vouches for is not asked about: its zone cannot have secure records. The
    alias that leads to it may be in a zone that has.
    """
    lookup = host.lookup
    if lookup.canonical and lookup.is_secure:
        found = await resolver.tlsa(lookup.canonical, host.port)
        if found.is_secure and found.records:
            return lookup.canonical, found.records
    if lookup.is_secure or force or (lookup.canonical and await resolver.is_alias_secure(host.name)):
        found = await resolver.tlsa(host.name, host.port)
        if found.is_secure:
            return host.name, found.records
    return host.name, ()
