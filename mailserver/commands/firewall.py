"""`mailserver firewall`: the lines that open the ports of master.cf, for four firewalls.

Nothing is run: the lines are to be read and pasted. What listens on loopback alone needs none.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mailserver.commands.errors import CommandError
from mailserver.config.listeners import Listener, listeners
from mailserver.config.read import ConfigError, read_config


@dataclass(frozen=True, slots=True, order=True)
class Opening:
    """Ports that clients must reach, at `address`, or at every address of that IP version where it is ""."""

    version: int
    address: str
    ports: tuple[int, ...]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver firewall`."""
    parser = subparsers.add_parser(
        "firewall",
        help="print the firewall's lines for the ports of master.cf",
        description="Print the lines that let clients reach the ports of master.cf. Runs none of them.",
        epilog="examples:\n  mailserver firewall\n  mailserver firewall --for nft\n"
        "  mailserver firewall --for iptables --interface ens33",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--for", dest="kind", choices=tuple(KINDS), help="this firewall alone")
    parser.add_argument("--interface", metavar="NAME", default="", help="only what comes in there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The lines are printed. Raises CommandError."""
    try:
        openings = find_openings(listeners(read_config(arguments.config_directory, os.environ)))
    except ConfigError as error:
        raise CommandError(str(error)) from error
    if not openings:
        print("# Everything listens on loopback alone: no port needs to be opened.")
        return 0
    for kind, write in KINDS.items():
        if arguments.kind in (None, kind):
            lines = list(write(openings, arguments.interface))
            print("\n".join([f"# {kind}", *lines] if arguments.kind is None else lines))
    return 0


def find_openings(found: Iterable[Listener]) -> tuple[Opening, ...]:
    """The ports to open, sorted; an address within "all of them" is not named again."""
    pairs: set[tuple[int, str, int]] = set()
    for listener in found:
        address = ipaddress.ip_address(listener.address)
        if not address.is_loopback:
            shown = "" if address.is_unspecified else str(address)
            pairs.add((address.version, shown, listener.port))
    places = sorted({(version, address) for version, address, _ in pairs})
    openings = []
    for version, place in places:
        ports = {port for *where, port in pairs if where == [version, place]}
        if place:
            ports -= {port for *where, port in pairs if where == [version, ""]}
        if ports:
            openings.append(Opening(version, place, tuple(sorted(ports))))
    return tuple(openings)


def _joined(ports: Iterable[int], separator: str = ",") -> str:
    return separator.join(map(str, ports))


def _iptables(openings: Iterable[Opening], interface: str) -> Iterator[str]:
    for opening in openings:
        program = "iptables" if opening.version == 4 else "ip6tables"
        where = f" -i {interface}" if interface else ""
        to = f" -d {opening.address}" if opening.address else ""
        yield f"{program} -A INPUT -p tcp{where}{to} -m multiport --dports {_joined(opening.ports)} -j ACCEPT"


def _nft(openings: Iterable[Opening], interface: str) -> Iterator[str]:
    for opening in openings:
        family = "ip" if opening.version == 4 else "ip6"
        where = f'iifname "{interface}" ' if interface else ""
        to = f"{family} daddr {opening.address}" if opening.address else f"meta nfproto ipv{opening.version}"
        ports = _joined(opening.ports, ", ")
        yield f"nft 'add rule inet filter input {where}{to} tcp dport {{ {ports} }} accept'"


def _firewalld(openings: Iterable[Opening], interface: str) -> Iterator[str]:
    zone = f' --zone="$(firewall-cmd --get-zone-of-interface={interface})"' if interface else ""
    ports = sorted({port for opening in openings if not opening.address for port in opening.ports})
    if ports:
        yield f"firewall-cmd --permanent{zone} " + " ".join(f"--add-port={port}/tcp" for port in ports)
    for opening in openings:
        if opening.address:
            for port in opening.ports:
                rule = (
                    f'rule family="ipv{opening.version}" destination address="{opening.address}" '
                    f'port port="{port}" protocol="tcp" accept'
                )
                yield f"firewall-cmd --permanent{zone} --add-rich-rule='{rule}'"
    yield "firewall-cmd --reload"


def _ufw(openings: Iterable[Opening], interface: str) -> Iterator[str]:
    """ufw opens a port for both IP versions where no address is named."""
    where = f" in on {interface}" if interface else ""
    places: dict[str, set[int]] = {}
    for opening in openings:
        places.setdefault(opening.address or "any", set()).update(opening.ports)
    for address, ports in places.items():
        yield f"ufw allow{where} proto tcp to {address} port {_joined(sorted(ports))}"


KINDS: Final[Mapping[str, Callable[[Iterable[Opening], str], Iterator[str]]]] = MappingProxyType(
    {"iptables": _iptables, "nft": _nft, "firewalld": _firewalld, "ufw": _ufw}
)
