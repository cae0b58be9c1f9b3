"""`mailserver`: one subcommand for each thing an administrator does.

Each subcommand is a module with `register(subparsers)`, which adds its parser and sets
`run`, a function from the parsed arguments to an exit status. Errors that the user can mend
are raised as CommandError and printed as `mailserver SUBCOMMAND: what (where): how to fix`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from mailserver import __version__
from mailserver.commands.errors import CommandError, nobody_reads

SUBCOMMANDS: Final = (
    "init",
    "run",
    "reload",
    "user",
    "app-password",
    "explain",
    "mailbox",
    "acl",
    "replay",
    "test",
    "doctor",
    "firewall",
    "queue",
    "who",
    "kick",
    "penalty",
    "rawlog",
    "check",
)

_EPILOG: Final = """\
examples:
  mailserver init /etc/mailserver             write a configuration for this machine
  mailserver init ./var --demo                a server to play with, without root
  mailserver -c ./var run                     start it in the foreground
  mailserver -c ./var explain alice+x@example.org
  mailserver -c ./var user add carol
"""


def parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The whole command line; where the words begin with a subcommand, behind -c DIR at most, that one alone.

    A subcommand takes a while to import, and most of them nobody has asked for.
    """
    top = argparse.ArgumentParser(
        prog="mailserver",
        description="SMTP, POP3 and IMAP for the classic Unix mail host.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"mailserver {__version__}")
    top.add_argument(
        "-c",
        dest="config_directory",
        metavar="DIR",
        default=os.environ.get("MAIL_CONFIG"),
        help="the directory of main.cf (default: $MAIL_CONFIG, /etc/mailserver, else /etc/postfix)",
    )
    subparsers = top.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for name in _asked_for(words) or SUBCOMMANDS:
        importlib.import_module(f"mailserver.commands.{name.replace('-', '_')}").register(subparsers)
    return top


def _asked_for(words: Sequence[str]) -> Sequence[str]:
    before = 2 if words[:1] == ["-c"] else 0
    return [name for name in words[before : before + 1] if name in SUBCOMMANDS]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit status. Without one, everything that there is is shown."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        parser().print_help()
        return 2
    arguments = parser(words).parse_args(words)
    try:
        status = int(arguments.run(arguments) or 0)
        sys.stdout.flush()
        return status
    except CommandError as error:
        print(f"mailserver {arguments.subcommand}: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        return nobody_reads()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
