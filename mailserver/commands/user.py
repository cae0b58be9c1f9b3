"""`mailserver user`: the accounts of the passwd-file.

Edits are atomic, and a running server notices them at the next login or delivery. Passwords
are asked for on the terminal or read from standard input, never taken from the command line, where
`ps` would show them. The system's users are useradd(8)'s and passwd(1)'s business. Deleting an
account leaves its mail alone.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Final

from mailserver.accounts import passwd_file_edit
from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.app_passwords import AppPasswords
from mailserver.accounts.hashing import DEFAULT_SCHEME, hash_password
from mailserver.accounts.passwd_file import LOCKED, parse
from mailserver.accounts.passwd_file_edit import EditError
from mailserver.accounts.scram import new_verifier
from mailserver.commands.errors import CommandError
from mailserver.config.config import Config
from mailserver.config.read import ConfigError, read_config
from mailserver.maillog import ListLog
from mailserver.roles.logins import become_database_owner, login_database
from mailserver.roles.parts import Parts

_EXAMPLES: Final = """\
examples:
  mailserver -c ./var user add carol                      asks for the password twice
  pwgen -s 16 1 | mailserver user add carol --password-stdin
  mailserver user passwd carol --scheme scram-sha-256     where auth_mechanisms has no plain
  mailserver user list --json
  mailserver user delete carol                            her mail stays where it is
"""
# Where auth_mechanisms has no plain, only a verifier that is there from the start lets anybody in.
_SCHEMES: Final[dict[str, Callable[[bytes], str]]] = {
    DEFAULT_SCHEME: hash_password,
    "SCRAM-SHA-256": lambda password: str(new_verifier(password)),
}
_SCHEME: Final = re.compile(r"\{[A-Za-z0-9.-]+\}")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver user`."""
    parser = subparsers.add_parser(
        "user",
        help="add, change, list and delete accounts of the passwd-file",
        description="Manage the accounts of the passwd-file that main.cf names (passwd_file).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (("add", "make a new account"), ("passwd", "set another password")):
        action = actions.add_parser(name, help=text)
        action.add_argument("name", metavar="NAME")
        action.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input"
        )
        action.add_argument(
            "--scheme",
            choices=tuple(_SCHEMES),
            type=str.upper,
            default=DEFAULT_SCHEME,
            help=f"how it is stored: {', '.join(_SCHEMES)} (default: {DEFAULT_SCHEME})",
        )
        if name == "add":
            action.add_argument("--home", default="", help="home directory (default: as mail_home says)")
    actions.add_parser("delete", help="remove an account, not its mail").add_argument("name", metavar="NAME")
    listing = actions.add_parser("list", help="show the accounts")
    listing.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The action is done. Raises CommandError."""
    try:
        config = read_config(arguments.config_directory, os.environ)
    except ConfigError as error:
        raise CommandError(str(error)) from error
    run_on(arguments, config.string("passwd_file"))
    if arguments.action == "delete":
        _revoke_app_passwords(config, arguments.name.lower())
    return 0


def _revoke_app_passwords(config: Config, name: str) -> None:
    """Whoever gets the name next does not get its devices. Raises CommandError."""
    if not os.path.isdir(os.path.join(config.string("state_directory"), "auth")):
        return
    try:
        parts = Parts(config, ListLog())
        become_database_owner(parts)
        AppPasswords(login_database(parts)).revoke(name)
    except (TemporaryAccountFailure, ConfigError, OSError) as failure:
        raise CommandError(
            f"{failure}: {name} is deleted, its app passwords are not: "
            f"run `mailserver app-password revoke {name} --all` as root"
        ) from failure


def run_on(arguments: argparse.Namespace, path: str) -> int:
    """The action is done on the passwd-file at `path`. Raises CommandError."""
    try:
        _ACTIONS[arguments.action](arguments, path)
    except EditError as error:
        raise CommandError(f"{error} ({path}): `mailserver user list` shows the accounts") from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}: run this as the owner of that file") from error
    return 0


def _password(arguments: argparse.Namespace) -> bytes:
    if arguments.password_stdin:
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")
    else:
        password = getpass.getpass("New password: ").encode()
        if getpass.getpass("Retype new password: ").encode() != password:
            raise CommandError("the passwords differ: nothing was changed; try again")
    return password


def _stored(arguments: argparse.Namespace) -> str:
    try:
        return _SCHEMES[arguments.scheme](_password(arguments))
    except ValueError as error:
        raise CommandError(f"{error}: nothing was changed; choose another password") from error


def _add(arguments: argparse.Namespace, path: str) -> None:
    passwd_file_edit.check_new(path, arguments.name)
    passwd_file_edit.add(path, arguments.name, _stored(arguments), arguments.home)
    print(f"Added {arguments.name.lower()} to {path}.")


def _passwd(arguments: argparse.Namespace, path: str) -> None:
    passwd_file_edit.check_existing(path, arguments.name)
    passwd_file_edit.set_password(path, arguments.name, _stored(arguments))
    print(f"Changed the password of {arguments.name.lower()} in {path}.")


def _delete(arguments: argparse.Namespace, path: str) -> None:
    passwd_file_edit.remove(path, arguments.name)
    print(f"Deleted {arguments.name.lower()} from {path}; the mail is where it was.")


def _list(arguments: argparse.Namespace, path: str) -> None:
    with open(path, encoding="utf-8", errors="replace") as file:
        entries = parse(file.read())
    rows = [
        {"name": name, "home": entry.fields[5], "password": _kind_of_password(entry.fields[1])}
        for name, entry in entries.items()
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['name']:24} {row['password']:16} {row['home']}".rstrip())


def _kind_of_password(stored: str) -> str:
    """The scheme, or that there is none; never the password."""
    stored = stored.strip()
    if not stored or stored.startswith(LOCKED):
        return "locked"
    scheme = _SCHEME.match(stored)
    return scheme.group()[1:-1] if scheme else "CRYPT"


_ACTIONS: Final[dict[str, Callable[[argparse.Namespace, str], None]]] = {
    "add": _add,
    "passwd": _passwd,
    "delete": _delete,
    "list": _list,
}
