"""`mailserver who`: the sessions that are logged in, as `doveadm who` shows them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from mailserver.commands.session_access import Found, Masks, ask, table

_EXAMPLES: Final = """\
examples:
  mailserver who                        who is logged in, from where
  mailserver who -1 'al*' 192.0.2.0/24  one line a session, of these users from that network
  mailserver who --json | jq -r '.[].username'
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver who`."""
    parser = subparsers.add_parser(
        "who",
        help="show who is logged in",
        description="Show who is logged in by IMAP, POP3 and SMTP; for root and the mail_owner.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("masks", nargs="*", metavar="USER|IP[/MASK]", help="only these; * and ? match")
    parser.add_argument("-1", dest="one_each", action="store_true", help="one line for each session")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The sessions are shown. Raises CommandError."""
    masks = Masks(arguments.masks)
    found = [each for each in ask(arguments, "who") if masks.match(each["user"], each["address"])]
    if arguments.json:
        print(json.dumps(list(_sessions(found) if arguments.one_each else groups(found)), indent=2))
    elif arguments.one_each:
        rows = [(each["user"], each["service"], str(each["pid"]), each["address"]) for each in found]
        print(table(("username", "proto", "pid", "ip"), sorted(rows)))
    else:
        print(table(("username", "#", "proto", "(pids)", "(ips)"), [_row(group) for group in groups(found)]))
    return 0


def _sessions(found: Sequence[Found]) -> Iterator[dict[str, Any]]:
    for each in found:
        yield {
            "username": each["user"], "service": each["service"], "pid": each["pid"], "ip": each["address"],
            "session": each["session"], "since": int(each["since"]),
        }  # fmt: skip


def groups(found: Sequence[Found]) -> list[dict[str, Any]]:
    """A user's sessions of one protocol together, by name."""
    kinds: dict[tuple[str, str], list[Found]] = {}
    for each in found:
        kinds.setdefault((each["user"], each["service"]), []).append(each)
    return [
        {
            "username": user,
            "connections": len(sessions),
            "service": service,
            "pids": sorted({each["pid"] for each in sessions}),
            "ips": sorted({each["address"] for each in sessions}),
        }
        for (user, service), sessions in sorted(kinds.items())
    ]


def _row(group: dict[str, Any]) -> tuple[str, ...]:
    pids, ips = " ".join(map(str, group["pids"])), " ".join(group["ips"])
    return group["username"], str(group["connections"]), group["service"], f"({pids})", f"({ips})"
