"""How `mailserver who`, `kick` and `penalty` ask the running server, and which of its answers are wanted."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import ipaddress
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from mailserver.accounts.throttle import Network
from mailserver.commands.errors import CommandError
from mailserver.config.read import ConfigError, read_unchecked
from mailserver.roles.session_door import PLACE, places

UNAVAILABLE: Final = 69  # EX_UNAVAILABLE and EX_NOPERM of sysexits(3)
NOT_PERMITTED: Final = 77
NOT_FOUND: Final = 68  # doveadm's EX_NOTFOUND

_OF_SESSIONS: Final = ("who", "kick")

Found = Mapping[str, Any]


def ask(arguments: argparse.Namespace, question: str, value: str = "") -> list[Found]:
    """What the server answers; for sessions, those of before a reload too. Raises CommandError."""
    try:
        queue = read_unchecked(arguments.config_directory, os.environ).string("queue_directory")
        answer, descriptors = PLACE.ask(queue, question, value)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    except PermissionError as error:
        raise CommandError("only root and the mail_owner may ask: use sudo", NOT_PERMITTED) from error
    except OSError as error:
        raise CommandError(
            f"the server does not answer ({error.strerror or error}): start it with `mailserver run`",
            UNAVAILABLE,
        ) from error
    if "error" in answer:
        raise CommandError(str(answer["error"]), int(answer.get("status", 1)))
    found = list(_read(descriptors))
    for place in places(queue)[1:] if question in _OF_SESSIONS else ():
        with contextlib.suppress(OSError):  # it has just ended, or was left behind by a crash
            found += _read(place.ask(queue, question, value)[1])
    return found


def _read(descriptors: Sequence[int]) -> Iterator[Found]:
    for descriptor in descriptors:
        with open(descriptor, encoding="ascii") as file:
            file.seek(0)
            yield from map(json.loads, file)


class Masks:
    """Words of a command line: user masks with `*` and `?`, addresses and networks. All must match."""

    def __init__(self, words: Sequence[str]) -> None:
        networks = {word: network_of(word) for word in words}
        self._networks = [network for network in networks.values() if network is not None]
        self._users = [word.lower() for word in words if networks[word] is None]

    def match(self, user: str, address: str) -> bool:
        """Whether the session of that user from that address is meant."""
        return all(fnmatch.fnmatchcase(user, mask) for mask in self._users) and all(
            is_within(address, network) for network in self._networks
        )


def network_of(word: str) -> Network | None:
    """The address or network that the word is, or None."""
    try:
        return ipaddress.ip_network(word, strict=False)
    except ValueError:
        return None


def is_within(address: str, network: Network) -> bool:
    """Whether the address, or the whole network, lies in that one; a socket's `local` in none."""
    found = network_of(address.partition("%")[0])
    return (
        found is not None and found.version == network.version and found.subnet_of(network)  # type: ignore[arg-type]
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names, as wide as they need to be, as doveadm prints them."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = (
        " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)
