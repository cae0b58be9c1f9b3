"""`mailserver penalty`: what is held against whom for wrong passwords, as `doveadm penalty` shows it."""

from __future__ import annotations

import argparse
import json
import time
from typing import Final

from mailserver.accounts.throttle import Network, place
from mailserver.commands.errors import CommandError
from mailserver.commands.session_access import NOT_FOUND, Found, ask, is_within, network_of, table

_EXAMPLES: Final = """\
examples:
  mailserver penalty                    places that gave wrong passwords, and how many different ones
  mailserver penalty 192.0.2.0/24
  mailserver penalty --clear 192.0.2.7  the colleague who mistyped is no longer slowed
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver penalty`."""
    parser = subparsers.add_parser(
        "penalty",
        help="show or clear what slows logins after wrong passwords",
        description="Show the places that are slowed for different wrong passwords, or clear it. "
        "A place is an IPv4 address or an IPv6 /48.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("network", nargs="?", metavar="IP[/MASK]", help="only these places")
    parser.add_argument("--clear", metavar="IP[/MASK]", help="nothing is held against these places any more")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Penalties are shown or cleared. Raises CommandError."""
    word = arguments.clear or arguments.network
    network = _network(word)
    found = sorted(
        (each for each in ask(arguments, "penalty") if _is_meant(each["place"], word, network)), key=_place
    )
    if arguments.clear:
        for each in found:
            ask(arguments, "forgive", each["place"])
        if not found:
            raise CommandError(f"nothing is held against {word}: `mailserver penalty` lists all", NOT_FOUND)
    if arguments.json:
        print(json.dumps([_shown(each) for each in found], indent=2))
    elif arguments.clear:
        print("\n".join(f"cleared {each['place']}" for each in found))
    else:
        rows = [tuple(map(str, _shown(each).values())) for each in found]
        print(table(("IP", "penalty", "last_penalty"), rows))
    return 0


def _network(word: str | None) -> Network | None:
    """The network that was named, None where none was. Raises CommandError."""
    network = None if word is None else network_of(word)
    if word is not None and network is None:
        raise CommandError(f"{word}: write an address or a network, as 192.0.2.7 or 192.0.2.0/24")
    return network


def _is_meant(where: str, word: str | None, network: Network | None) -> bool:
    """Whether the place is the address's, or lies in the network."""
    return word is None or network is None or where == place(word) or is_within(where, network)


def _place(each: Found) -> str:
    return str(each["place"])


def _shown(each: Found) -> dict[str, str | int]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["last_penalty"]))
    return {"IP": each["place"], "penalty": each["penalty"], "last_penalty": when}
