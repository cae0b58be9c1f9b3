"""`mailserver kick`: sessions are ended, as `doveadm kick` does."""

from __future__ import annotations

import argparse
import json
from typing import Final

from mailserver.commands.session_access import NOT_FOUND, Masks, ask

_AT_ONCE: Final = 1000  # ids in one question, which travels in one packet
_EXAMPLES: Final = """\
examples:
  mailserver kick alice                 IMAP clients hear BYE, POP3 ones -ERR: nothing is deleted
  mailserver kick 'temp*' 192.0.2.0/24  sessions of these users from that network
  mailserver kick -f 192.0.2.7          whoever is logged in from there
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver kick`."""
    parser = subparsers.add_parser(
        "kick",
        help="end sessions",
        description="End the sessions of a user, or from a network. It keeps nobody out: "
        "change the password as well.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "masks", nargs="+", metavar="USER|IP[/MASK]", help="all of these must match; * and ? match in users"
    )
    parser.add_argument("-f", dest="force", action="store_true", help="accepted as by doveadm; not needed")
    parser.add_argument("--json", action="store_true", help="the sessions that were ended, as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The sessions are ending. Raises CommandError."""
    masks = Masks(arguments.masks)
    wanted = [each["session"] for each in ask(arguments, "who") if masks.match(each["user"], each["address"])]
    kicked = [
        login
        for start in range(0, len(wanted), _AT_ONCE)
        for login in ask(arguments, "kick", " ".join(wanted[start : start + _AT_ONCE]))
    ]
    if arguments.json:
        print(json.dumps([{"username": each["user"], **each} for each in kicked], indent=2))
    elif kicked:
        print("kicked connections from the following users:")
        print(" ".join(sorted({each["user"] for each in kicked})))
    else:
        print("no users kicked")
    return 0 if kicked else NOT_FOUND
