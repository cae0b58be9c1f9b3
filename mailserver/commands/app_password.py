"""`mailserver app-password`: a password for each device of an account, system accounts too.

Shown once when it is made; after that nobody can read it, only revoke it. A running server knows of a
change at the next login. Users of the system manage their own; root, or the mail_owner, everybody's.
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
from mailserver.accounts.app_password_admin import NO_USER, NoSuchAccount
from mailserver.accounts.app_passwords import NEVER, PROTOCOLS, AppPassword, AppPasswordError
from mailserver.commands.app_password_access import Access, OwnAccess, open_access
from mailserver.commands.errors import CommandError
from mailserver.commands.session_access import NOT_FOUND, table
from mailserver.config import values
from mailserver.config.read import ConfigError, read_config

_EXAMPLES: Final = """\
examples:
  mailserver app-password add alice phone --protocol imap,smtp --expires 1y
  mailserver app-password add alice printer --protocol smtp
  mailserver app-password list alice --json
  mailserver app-password revoke alice phone
  mailserver app-password revoke alice --all

users of the system, for themselves:
  mailserver app-password add phone
  mailserver app-password list
  mailserver app-password revoke phone
"""
_YEAR: Final = 365 * 86_400


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver app-password`."""
    parser = subparsers.add_parser(
        "app-password",
        help="make, list and revoke passwords of single devices",
        description="Give each device of an account a password of its own, for some protocols, "
        "for some time. With app_passwords_only = yes in main.cf no other password is taken. Users of the "
        "system do it for themselves, where authorized_app_password_users lets them; root does it for all.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make one, and show it once")
    add.usage = "%(prog)s [-h] [--protocol LIST] [--expires WHEN] [--json] [USER] DEVICE"
    add.add_argument(
        "words",
        metavar="[USER] DEVICE",
        nargs="+",
        help="what it is for: phone, laptop, printer; root names the USER, others are it",
    )
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
    revoke.usage = "%(prog)s [-h] [USER] (DEVICE | --all)"
    revoke.add_argument("words", metavar="[USER] DEVICE", nargs="*", help="root names the USER")
    revoke.add_argument("--all", action="store_true", help="all of the account")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The action is done. Raises CommandError."""
    try:
        access = open_access(read_config(arguments.config_directory, os.environ))
        _ACTIONS[arguments.action](arguments, access)
    except NoSuchAccount as error:
        raise CommandError(str(error), NO_USER) from error
    except (ConfigError, AppPasswordError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or 'state_directory'}: {error.strerror or error}") from error
    except TemporaryAccountFailure as failure:
        raise CommandError(f"{failure}: run this as root, or as who owns that file") from failure
    return 0


def _add(arguments: argparse.Namespace, access: Access) -> None:
    protocols, expires = _protocols(arguments.protocol), _expiry(arguments.expires, time.time())
    name, device = _operands(arguments.words, access, "USER and DEVICE", 1)
    made = access.add(name, device, protocols, expires)
    if arguments.json:
        print(json.dumps({"name": made.name, "device": device, "password": made.password}))
        return
    print(f"{made.password}\n")
    until = f"until {_day(expires)}" if expires != NEVER else "until it is revoked"
    print(f"{made.name} logs in with it on {device}, by {', '.join(protocols)}, {until}.")
    print("It is shown this once. Hyphens and capitals make no difference.")
    if made.closed:
        print(f"It will not work while the account is closed: {made.closed}.")


def _list(arguments: argparse.Namespace, access: Access) -> None:
    found = access.find(arguments.name)
    if arguments.json:
        print(json.dumps([_values(each) for each in found], indent=2))
        return
    rows = [
        (each.name, each.device, ",".join(each.protocols), _day(each.expires), _use(each)) for each in found
    ]
    print(table(("user", "device", "protocols", "expires", "last use"), rows))


def _revoke(arguments: argparse.Namespace, access: Access) -> None:
    device: str | None = None
    if arguments.all:
        (name,) = _operands(arguments.words, access, "USER and no DEVICE beside --all", 0)
    else:
        wanted = "one DEVICE, or --all: `mailserver app-password list` shows them"
        name, device = _operands(arguments.words, access, wanted, 1)
    name, count = access.revoke(name, device)
    if not count:
        what = f"for {device}" if device else "at all"
        raise CommandError(
            f"{name} has no app password {what}: `mailserver app-password list {name}` shows them", NOT_FOUND
        )
    print(f"Revoked {count} of {name}.")


def _operands(words: list[str], access: Access, wanted: str, count: int) -> list[str]:
    """The user, then `count` words. A user of the system who manages her own may leave out the first.

    Raises CommandError.
    """
    if isinstance(access, OwnAccess) and len(words) == count:
        return ["", *words]
    if len(words) != count + 1:
        raise CommandError(f"name {wanted}")
    return words


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


_ACTIONS: Final[dict[str, Callable[[argparse.Namespace, Access], None]]] = {
    "add": _add,
    "list": _list,
    "revoke": _revoke,
}
