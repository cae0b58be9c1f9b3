"""Where the mail for a next hop is taken: hosts in order, ports, and ourselves among them.

Pure: DNS answers come in as values. RFC 5321 §5.1, RFC 7505.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from mailserver.dns import MailExchanger

SMTP_PORT: Final = 25
_NEXT_HOP: Final = re.compile(r"(?:\[(?P<literal>[^\]]+)\]|(?P<domain>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


class NoRoute(Exception):
    """The mail cannot go there, for good. `dsn` and the text go into the bounce."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(text)
        self.dsn = dsn


@dataclass(frozen=True, slots=True)
class NextHop:
    """A parsed next hop. `is_host`: brackets were written, no MX lookup."""

    name: str
    port: int = SMTP_PORT
    is_host: bool = False


def parse_next_hop(text: str) -> NextHop:
    """`domain`, `domain:port`, `[host]`, `[address]:port`; raises NoRoute. transport(5)."""
    match = _NEXT_HOP.fullmatch(text.strip())
    if match is None or int(match["port"] or SMTP_PORT) > 65535:
        raise NoRoute("5.1.2", f"invalid next hop: {text}")
    literal = match["literal"]
    name = (literal or match["domain"]).lower().removeprefix("ipv6:")
    return NextHop(name, int(match["port"] or SMTP_PORT), literal is not None)


def order_hosts(
    domain: str,
    exchangers: Sequence[MailExchanger],
    is_self: Callable[[str], bool],
    shuffle: Callable[[list[str]], object] = random.shuffle,
) -> tuple[str, ...]:
    """The hosts to try, best first, equal ones shuffled; the domain itself without MX records.

    Hosts at or behind our own preference are left out; raises NoRoute where that leaves none
    ("loops back to myself") and for the null MX.
    """
    if not exchangers:
        return (domain,)
    if {exchanger.host for exchanger in exchangers} == {""}:
        raise NoRoute("5.1.10", f"Domain {domain} does not accept mail (nullMX)")
    own = [exchanger.preference for exchanger in exchangers if is_self(exchanger.host)]
    if own:
        exchangers = [exchanger for exchanger in exchangers if exchanger.preference < min(own)]
        if not exchangers:
            raise NoRoute("5.4.6", f"mail for {domain} loops back to myself")
    hosts: list[str] = []
    for _, group in groupby(sorted(exchangers), key=lambda exchanger: exchanger.preference):
        equal = [exchanger.host for exchanger in group if exchanger.host]
        shuffle(equal)
        hosts += [host for host in equal if host not in hosts]
    return tuple(hosts)


def is_loop(
    addresses: Collection[str], port: int, own_addresses: Collection[str], own_ports: Collection[int]
) -> bool:
    """Whether connecting there would reach our own SMTP listener."""
    return port in own_ports and any(address in own_addresses for address in addresses)
