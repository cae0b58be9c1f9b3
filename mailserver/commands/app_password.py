"""`mailserver app-password`: a password for each device of an account, system accounts too.

Shown once when it is made; after that nobody can read it, only revoke it. A running server knows of a
change at the next login.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Callable
from typing import Final

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.app_passwords import NEVER, PROTOCOLS, AppPassword, AppPasswordError, AppPasswords
from mailserver.accounts.scram_check import ScramCheck
from mailserver.commands.errors import CommandError
from mailserver.commands.session_access import NOT_FOUND, table
from mailserver.config import values
from mailserver.config.read import ConfigError, read_config
from mailserver.maillog import ListLog
from mailserver.roles.logins import become_database_owner, checks
from mailserver.roles.parts import Parts

NO_USER: Final = 67  # EX_NOUSER
_EXAMPLES: Final = """\
examples:
  mailserver app-password add alice phone --protocol imap,smtp --expires 1y
  mailserver app-password add alice printer --protocol smtp
  mailserver app-password list alice --json
  mailserver app-password revoke alice phone
  mailserver app-password revoke alice --all
"""
_YEAR: Final = 365 * 86_400


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver app-password`."""
    parser = subparsers.add_parser(
        "app-password",
        help="make, list and revoke passwords of single devices",
        description="Give each device of an account a password of its own, for some protocols, "
        "for some time. With app_passwords_only = yes in main.cf no other password is taken.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make one, and show it once")
    add.add_argument("name", metavar="USER")
    add.add_argument("device", metavar="DEVICE", help="what it is for: phone, laptop, printer")
    add.add_argument(
        "--protocol",
        metavar="LIST",
        default=",".join(PROTOCOLS),
        help=f"some of {', '.join(PROTOCOLS)}, with commas (default: all)",
    )
    add.add_argument("--expires", metavar="WHEN", default="never", help="30d, 12w, 1y, 2027-12-31, or never")
    add.add_argument("--json", action="store_true", help="as JSON")
    listing = actions.add_parser("list", help="show them, with their last use; not the passwords")
    listing.add_argument("name", metavar="USER", nargs="?", help="only this account's")
    listing.add_argument("--json", action="store_true", help="as JSON")
    revoke = actions.add_parser("revoke", help="make one useless, at once")
    revoke.add_argument("name", metavar="USER")
    revoke.add_argument("device", metavar="DEVICE", nargs="?")
    revoke.add_argument("--all", action="store_true", help="all of the account")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The action is done. Raises CommandError."""
    try:
        parts = Parts(read_config(arguments.config_directory, os.environ), ListLog())
        become_database_owner(parts)
        check, scram = checks(parts)
        assert check.app_passwords is not None
        _ACTIONS[arguments.action](arguments, check.app_passwords, scram)
    except (ConfigError, AppPasswordError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or 'state_directory'}: {error.strerror or error}") from error
    except TemporaryAccountFailure as failure:
        raise CommandError(f"{failure}: run this as root, or as who owns that file") from failure
    return 0


def _add(arguments: argparse.Namespace, known: AppPasswords, scram: ScramCheck) -> None:
    protocols, expires = _protocols(arguments.protocol), _expiry(arguments.expires, time.time())
    credential = scram.credential(arguments.name)
    if credential is None:
        raise CommandError(f"{arguments.name}: no such account: `mailserver user list`, passwd(5)", NO_USER)
    account = credential.account
    if not account.may_login:
        raise CommandError(f"{account.name} may not log in ({credential.reason}), by no password")
    password = known.add(account, arguments.device, protocols, expires, scram.challenge_of(credential))
    if arguments.json:
        print(json.dumps({"name": account.name, "device": arguments.device, "password": password}))
        return
    print(f"{password}\n")
    until = f"until {_day(expires)}" if expires != NEVER else "until it is revoked"
    print(f"{account.name} logs in with it on {arguments.device}, by {', '.join(protocols)}, {until}.")
    print("It is shown this once. Hyphens and capitals make no difference.")
    if credential.is_closed:
        print(f"It will not work while the account is closed: {credential.reason}.")


def _list(arguments: argparse.Namespace, known: AppPasswords, scram: ScramCheck) -> None:
    found = known.find(arguments.name.lower() if arguments.name else None)
    if arguments.json:
        print(json.dumps([_values(each) for each in found], indent=2))
        return
    rows = [
        (each.name, each.device, ",".join(each.protocols), _day(each.expires), _use(each)) for each in found
    ]
    print(table(("user", "device", "protocols", "expires", "last use"), rows))


def _revoke(arguments: argparse.Namespace, known: AppPasswords, scram: ScramCheck) -> None:
    name, device = arguments.name.lower(), arguments.device
    if (device is None) != arguments.all:
        raise CommandError("name one DEVICE, or --all: `mailserver app-password list` shows them")
    count = known.revoke(name, device)
    if not count:
        what = f"for {device}" if device else "at all"
        raise CommandError(
            f"{name} has no app password {what}: `mailserver app-password list {name}` shows them", NOT_FOUND
        )
    print(f"Revoked {count} of {name}.")


def _protocols(text: str) -> tuple[str, ...]:
    words = dict.fromkeys(word for word in re.split(r"[,\s]+", text.lower()) if word)
    unknown = [word for word in words if word not in PROTOCOLS]
    if unknown or not words:
        raise CommandError(f"--protocol {text}: write some of {','.join(PROTOCOLS)}")
    return tuple(words)


def _expiry(text: str, now: float) -> int:
    """The POSIX time at which it ends; a date is over when the day is. Raises CommandError."""
    if text == "never":
        return NEVER
    try:
        if years := re.fullmatch(r"(\d{1,2})y(ears?)?", text):
            return int(now) + int(years[1]) * _YEAR
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            day = time.strptime(text, "%Y-%m-%d")
            when = int(time.mktime((day.tm_year, day.tm_mon, day.tm_mday + 1, 0, 0, 0, 0, 0, -1)))
        else:
            when = int(now) + values.seconds(text, "d")
    except (ValueError, OverflowError) as error:
        raise CommandError(f"--expires {text}: write 30d, 12w, 1y, 2027-12-31, or never") from error
    if when <= now:
        raise CommandError(f"--expires {text}: is over already")
    return when


def _day(when: int) -> str:
    return "never" if when == NEVER else time.strftime("%Y-%m-%d", time.localtime(when - 1))


def _use(known: AppPassword) -> str:
    if not known.used:
        return "never"
    return f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(known.used))} {known.address}"


def _values(known: AppPassword) -> dict[str, object]:
    """For JSON: times are POSIX seconds, null for never."""
    return {
        "name": known.name, "device": known.device, "protocols": list(known.protocols),
        "created": known.created, "expires": known.expires or None,
        "last_use": known.used or None, "last_use_from": known.address or None,
    }  # fmt: skip


_ACTIONS: Final[dict[str, Callable[[argparse.Namespace, AppPasswords, ScramCheck], None]]] = {
    "add": _add,
    "list": _list,
    "revoke": _revoke,
}
