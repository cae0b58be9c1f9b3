"""cidr: tables: networks and what they mean, the first match wins. cidr_table(5).

`10.0.0.0/8 RESULT`, `2001:db8::/32 RESULT`, `!NETWORK RESULT`, `if NETWORK … endif`. An address
with host bits set is an error that names the network which was meant.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass

from mailserver.tables.patterns import BadRule, PatternTable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class NetworkPattern:
    """One network, as numbers; `negated` for `!NETWORK`: what else there is of the same version."""

    version: int
    network: int
    mask: int
    negated: bool = False

    def result(self, key: object, value: str) -> str | None:
        """See `Pattern.result`; the key is an Address."""
        assert isinstance(key, Address)
        return value if key.version == self.version and self.contains(key) != self.negated else None

    def contains(self, address: Address) -> bool:
        """Whether the address lies in the network, the negation aside."""
        return address.version == self.version and int(address) & self.mask == self.network


def parse_network(text: str) -> Network:
    """The network that the text names, brackets around IPv6 allowed. Raises ValueError."""
    bare, _, length = text.partition("/")
    if bare.startswith("["):
        bare, bracket, rest = bare[1:].partition("]")
        if not bracket or rest:
            raise ValueError(f'bad address pattern: "{text}"')
    try:
        network = ipaddress.ip_network(f"{bare}/{length}" if "/" in text else bare, strict=False)
    except ValueError as error:
        raise ValueError(f'bad address pattern: "{text}"') from error
    if network.network_address != ipaddress.ip_address(bare):
        raise ValueError(
            f'non-null host address bits in "{text}", perhaps you should use "{network}" instead'
        )
    return network


def network_pattern(text: str) -> NetworkPattern:
    """The pattern of `NETWORK` or `!NETWORK`. Raises ValueError."""
    negated = False
    while text.startswith("!"):
        negated, text = not negated, text[1:].lstrip()
    network = parse_network(text)
    return NetworkPattern(network.version, int(network.network_address), int(network.netmask), negated)


def parse_address(text: str) -> Address | None:
    """The address, IPv4 where it was mapped into IPv6; None where the text is none."""
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _rule(text: str) -> tuple[NetworkPattern, str]:
    bangs = len(text) - len(text.lstrip("! "))
    word, _, rest = text[bangs:].replace("\t", " ").partition(" ")
    try:
        return network_pattern(text[:bangs].replace(" ", "") + word), rest.strip()
    except ValueError as error:
        raise BadRule(str(error)) from error


class CidrTable(PatternTable):
    """A cidr: table; keys that are no addresses match nothing."""

    def __init__(self, name: str, path: str, now: Callable[[], float] = time.time) -> None:
        super().__init__(name, path, _rule, now)

    def subject(self, key: str) -> Address | None:
        """See `PatternTable.subject`."""
        return parse_address(key)
