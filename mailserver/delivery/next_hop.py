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
KNOWN_PORTS: Final = {"smtp": 25, "smtps": 465, "submissions": 465, "submission": 587, "lmtp": 24}
_NEXT_HOP: Final = re.compile(
    r"(?:\[(?P<literal>[^\]]+)\]|(?P<domain>[^:\[\]]+))(?::(?P<port>[0-9a-z]{1,15}))?"
)
_SEPARATORS: Final = re.compile(r"[,\s]+")
UNIX: Final = "unix:"


class NoRoute(Exception):
    """The mail cannot go there, for good. `dsn` and the text go into the bounce."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(text)
        self.dsn = dsn


@dataclass(frozen=True, slots=True)
class NextHop:
    """A parsed next hop. `is_host`: brackets were written, no MX lookup. `unix:path` has port 0."""

    name: str
    port: int = SMTP_PORT
    is_host: bool = False

    @property
    def is_unix(self) -> bool:
        """Whether it is a UNIX-domain socket."""
        return self.port == 0

    def __str__(self) -> str:
        """As transport(5) writes it, without the usual port."""
        if self.is_unix:
            return UNIX + self.name
        name = f"[{self.name}]" if self.is_host else self.name
        return name if self.port == SMTP_PORT else f"{name}:{self.port}"


def parse_next_hops(
    text: str, port: int = SMTP_PORT, parse: Callable[[str, int], NextHop] | None = None
) -> tuple[NextHop, ...]:
    """The next hops of a list, in the order in which they are tried; raises NoRoute."""
    parse = parse or parse_next_hop
    return tuple(parse(each, port) for each in _SEPARATORS.split(text.strip()))


def parse_lmtp_next_hop(text: str, port: int) -> NextHop:
    """`unix:path`, `inet:host:port`, or `host:port`; a host is asked for no MX. Raises NoRoute. lmtp(8)."""
    text = text.strip()
    if text.startswith(UNIX) and len(text) > len(UNIX):
        return NextHop(text.removeprefix(UNIX), 0, True)
    hop = parse_next_hop(text.removeprefix("inet:"), port)
    return NextHop(hop.name, hop.port, True)


def parse_next_hop(text: str, port: int = SMTP_PORT) -> NextHop:
    """`domain`, `domain:port`, `[host]`, `[address]:submission`; raises NoRoute. transport(5)."""
    match = _NEXT_HOP.fullmatch(text.strip())
    number = parse_port(match["port"], port) if match is not None else 0
    if match is None or not number:
        raise NoRoute("5.1.2", f"invalid next hop: {text}")
    literal = match["literal"]
    name = (literal or match["domain"]).lower().removeprefix("ipv6:")
    return NextHop(name, number, literal is not None)


def parse_port(text: str | None, default: int = SMTP_PORT) -> int:
    """The port of a number or a name that mail servers have; 0 for anything else. known_tcp_ports."""
    if not text:
        return default
    number = int(text) if text.isdecimal() else KNOWN_PORTS.get(text.lower(), 0)
    return number if number <= 65535 else 0


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
