"""`mailserver replay MAILLOG...`: what would become of yesterday's mail under this configuration.

Every recipient of a mail log, Postfix's own or ours, is planned again, and compared with where the log says
its mail went: which mailbox, file or command, which address elsewhere, or refused as unknown.
Nothing is sent. Run it before a cut-over, or with `--config NEWDIR` before a change.

A log does not say everything: mail that was only deferred is compared by its kind of delivery. Which host
took a message is compared with the one that the configuration names; where that leaves it to the domain's MX,
only a host to which all mail went is known to be another way: a smart host.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from mailserver.commands.errors import CommandError
from mailserver.commands.log_lines import Line, Result, parse_result, read, usual_logs
from mailserver.config.read import ConfigError, read_config
from mailserver.delivery.explain import Explanation, explain
from mailserver.delivery.lookups import LiveLookups
from mailserver.delivery.plan import Leaf, LeafKind
from mailserver.envelope import Address
from mailserver.maillog import ListLog
from mailserver.roles.parts import Parts
from mailserver.roles.queueing import local_agents
from mailserver.wire.address import AddressError, parse_lenient

DEEPEST: Final = 20
_UNKNOWN_USER: Final = re.compile(r"reject: RCPT from \S+ 550 \S+ <([^>]*)>: .*[Uu]ser unknown")
_DELIVERED: Final = re.compile(r"delivered to (mailbox|maildir|file|command)(?:: (.*))?")
_LOCAL: Final = frozenset({"local", "virtual"})
BOUNCE: Final = "refused or bounced"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver replay`."""
    parser = subparsers.add_parser(
        "replay",
        help="plan the recipients of a mail log again, and show what would differ",
        description="Plan every recipient of a mail log again and show whose mail would go elsewhere. "
        "Sends nothing. Exit status 1 where something differs.",
        epilog="examples:\n  mailserver replay /var/log/mail.log /var/log/mail.log.1\n"
        "  mailserver replay --config /etc/mailserver.new",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("logs", metavar="MAILLOG", nargs="*", help="default: this server's own")
    parser.add_argument(
        "--config", metavar="NEWDIR", help="the configuration to plan with (default: the one of -c)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """What would differ is printed. Raises CommandError."""
    try:
        config = read_config(arguments.config or arguments.config_directory, os.environ)
        parts = Parts(config, ListLog())
        logs = arguments.logs or usual_logs(config)
        if not logs:
            raise CommandError("no mail log in its usual place: name one")
        recipients = collect(read(logs), parts)
        planner = Planner(parts, smart_host(recipients.values()))
        differences = [found for found in map(planner.compare, recipients.values()) if found is not None]
    except ConfigError as error:
        raise CommandError(str(error)) from error
    times = sum(each.times for each in recipients.values())
    if arguments.json:
        print(json.dumps(_values(times, len(recipients), differences), indent=2))
    else:
        print("\n".join(_lines(times, len(recipients), differences)))
    return int(bool(differences))


@dataclass(slots=True)
class Logged:
    """One recipient as mail was addressed to it, and where the log says that its mail went."""

    address: Address
    times: int = 0
    places: set[str] = field(default_factory=set)
    undecided: set[str] = field(default_factory=set)  # of mail that was deferred and nothing more is known
    relays: set[str] = field(default_factory=set)  # the hosts that took it


@dataclass(frozen=True, slots=True)
class Difference:
    """A recipient whose mail would go elsewhere. `steps` say why."""

    address: str
    times: int
    was: tuple[str, ...]
    would_be: tuple[str, ...]
    steps: tuple[str, ...]


def collect(lines: Iterable[Line], parts: Parts) -> dict[str, Logged]:
    """The recipients by their addresses in lower case."""
    found: dict[str, Logged] = {}
    for line in lines:
        result = parse_result(line)
        unknown = _UNKNOWN_USER.search(line.text) if result is None else None
        text = result.original if result else unknown[1] if unknown else ""
        address = _address(text, parts)
        if address is None:
            continue
        logged = found.setdefault(str(address).lower(), Logged(address))
        logged.times += 1
        if result is None:
            logged.places.add(BOUNCE)
        else:
            _note(logged, result)
    return found


def _address(text: str, parts: Parts) -> Address | None:
    try:
        return parts.routing.complete(parse_lenient(text)) if text else None
    except AddressError:
        return None


def _note(logged: Logged, result: Result) -> None:
    """Where this attempt brought the mail. A forwarded copy has lines of its own."""
    to = result.recipient.lower()
    if result.status == "bounced" or result.status == "undeliverable":
        if result.dsn.startswith("5.1."):  # else the mail failed, not the address
            logged.places.add(BOUNCE)
    elif result.status == "sent" and result.service in _LOCAL:
        match = _DELIVERED.match(result.reason)
        if match and match[1] in ("mailbox", "maildir"):
            logged.places.add(f"mailbox of {to}")
        elif match:
            logged.places.add(f"{match[1]} {match[2] or ''}".strip())
    elif result.status == "sent" and result.service == "discard":
        logged.places.add("discard")
    elif result.status in ("sent", "deferred") and result.service not in ("error", *_LOCAL):
        logged.places.add(f"elsewhere: {to}")
        if result.status == "sent" and "[" in result.relay:
            logged.relays.add(result.relay.partition("[")[0].lower())
    elif result.status == "deferred" and result.service in _LOCAL:
        logged.undecided.add(to)


def smart_host(recipients: Iterable[Logged]) -> str:
    """The host that took all mail for several domains; "" where there is none."""
    relays: set[str] = set()
    domains: set[str] = set()
    for each in recipients:
        relays |= each.relays
        domains |= {each.address.domain.lower()} if each.relays else set()
    return relays.pop() if len(relays) == 1 and len(domains) > 1 else ""


class Planner:
    """Plans with one configuration. `smart_host` is the old one's."""

    def __init__(self, parts: Parts, smart_host: str = "") -> None:
        self._parts = parts
        self._smart_host = smart_host
        self._lookups = LiveLookups(parts.routing, parts.local_rules, local_agents(parts))

    def compare(self, logged: Logged) -> Difference | None:
        """What would differ for that recipient; None where nothing does, or nothing is known."""
        if not logged.places:
            return None
        plan = self._explain(logged.address)
        places = {_plain(place, self._parts) for place in self.places(plan)}
        was = {_plain(place, self._parts) for place in logged.places}
        if places == was or (logged.undecided and was <= places):
            ways = _ways(plan)
            if not logged.relays or not self._is_another_way(logged.relays, ways):
                return None
            places = {f"elsewhere, to {way or 'the MX of the domain'}" for way in ways}
            was = {f"elsewhere, to {relay}" for relay in logged.relays}
        steps = [plan.trouble] if plan.trouble else [f"{step.text}  ({step.source})" for step in _steps(plan)]
        return Difference(
            str(logged.address), logged.times, tuple(sorted(was)), tuple(sorted(places)), tuple(steps)
        )

    def _is_another_way(self, relays: set[str], ways: set[str]) -> bool:
        """Whether what those hosts took would go to others; "" is the MX of the domain, whoever that is."""
        named = ways - {""}
        return (bool(named) and not named & relays) or (ways == {""} and self._smart_host in relays)

    def _explain(self, address: Address) -> Explanation:
        return explain(address, self._parts.routing, self._parts.local_rules, self._lookups)

    def places(self, of: Explanation, depth: int = 0) -> Iterator[str]:
        """Where the mail would go, followed through forwarding to other addresses of ours."""
        if of.plan is None:
            yield f"deferred: {of.trouble}"
            return
        for leaf in of.plan.leaves:
            if leaf.kind is LeafKind.FORWARD and depth < DEEPEST:
                for address in leaf.addresses:
                    yield from self.places(self._explain(address), depth + 1)
            else:
                yield _place(leaf)


def _ways(explanation: Explanation) -> set[str]:
    """The hosts that the next hops of a plan name, "" for the MX of a domain."""
    leaves = explanation.plan.leaves if explanation.plan is not None else ()
    hops = [leaf.target.lower() for leaf in leaves if leaf.kind is LeafKind.REMOTE]
    return {hop[1:].partition("]")[0] if hop.startswith("[") else "" for hop in hops}


def _steps(explanation: Explanation) -> Iterator[Any]:
    if explanation.plan is not None:
        yield from explanation.plan.steps


def _place(leaf: Leaf) -> str:
    recipient = str(leaf.recipient).lower()
    match leaf.kind:
        case LeafKind.MAILBOX:
            return f"mailbox of {recipient}"
        case LeafKind.FILE | LeafKind.COMMAND:
            return f"{leaf.kind.value} {leaf.target}"
        case LeafKind.REMOTE:
            return f"elsewhere: {recipient}"
        case LeafKind.FAILED:
            return BOUNCE
        case LeafKind.PENDING:
            return f"deferred: {leaf.target}"
    return str(leaf.kind.value)


def _plain(place: str, parts: Parts) -> str:
    """`mailbox of alice+x@our.domain` as `mailbox of alice`: the box is the same."""
    name = place.removeprefix("mailbox of ")
    if name == place:
        return place
    local, _, domain = name.rpartition("@")
    for delimiter in parts.config.string("recipient_delimiter"):
        local = local.partition(delimiter)[0]
    return (
        f"mailbox of {local}" if parts.routing.is_my_destination(domain) else f"mailbox of {local}@{domain}"
    )


def _lines(times: int, count: int, differences: list[Difference]) -> Iterator[str]:
    yield f"{times} deliveries and refusals for {count} recipients: {len(differences)} would differ."
    for each in differences:
        yield f"{each.address}  ({each.times} times)"
        yield f"  was:      {'; '.join(each.was)}"
        yield f"  would be: {'; '.join(each.would_be)}"
        yield from (f"    {step}" for step in each.steps)


def _values(times: int, count: int, differences: list[Difference]) -> dict[str, Any]:
    return {
        "deliveries": times,
        "recipients": count,
        "differing": [
            {
                "address": each.address,
                "times": each.times,
                "was": each.was,
                "would_be": each.would_be,
                "steps": each.steps,
            }
            for each in differences
        ],
    }
