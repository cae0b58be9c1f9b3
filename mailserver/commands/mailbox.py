"""`mailserver mailbox`: look after the mailboxes of accounts, beside a running server or without one.

Modelled on doveadm-mailbox(1). `-u USER` names one account, `-A` means all. Output is one line
per mailbox, with --json one object per line. Exit status 0; 65 where something exists already or
cannot be; 67 unknown account; 68 no such mailbox; 75 a fault that may pass (disk, locks).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from mailserver.commands import mailbox_care, mailbox_move, mailbox_transfer, mailbox_undelete
from mailserver.commands.mailbox_accounts import (
    NO_MAILBOX,
    UNUSABLE,
    Work,
    add_account_options,
    for_accounts,
    warn,
)
from mailserver.store.contract import BadMailboxName, MailboxExists, NoSuchMailbox

_EXAMPLES: Final = """\
examples:
  mailserver mailbox status -u alice --json
  mailserver mailbox import -u alice ~/old/Maildir
  mailserver mailbox export -u alice --format mbox INBOX > inbox.mbox
  mailserver mailbox backup -u alice > alice.tar
  mailserver mailbox restore -u alice --dry-run < alice.tar
  mailserver mailbox undelete -u alice --since 2d
  mailserver mailbox check -A
  mailserver mailbox leave -A                 before Dovecot takes over again
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver mailbox`."""
    parser = subparsers.add_parser(
        "mailbox",
        help="list, check, import, export, back up and repair mailboxes",
        description="Look after the mailboxes of accounts. Works beside a running server.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _action(actions, "list", "show the mailboxes", _list)
    status = _action(actions, "status", "show counts, UIDNEXT, UIDVALIDITY", _status)
    status.add_argument("mailboxes", metavar="MAILBOX", nargs="*", help="default: all")
    for each in (listing, status):
        each.add_argument("--json", action="store_true", help="one JSON object per line")
    for name, text, act in (
        ("create", "make mailboxes, subscribed", _create),
        ("delete", "remove mailboxes and their messages", _delete),
    ):
        action = _action(actions, name, text, act, many=False)
        action.add_argument("mailboxes", metavar="MAILBOX", nargs="+")
    for module in (mailbox_care, mailbox_transfer, mailbox_move, mailbox_undelete):
        module.register(lambda *words: _action(actions, *words))
    parser.set_defaults(run=run)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    act: Callable[[Work], int],
    many: bool = True,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    add_account_options(parser, many)
    parser.set_defaults(act=act)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """The action is done for each account. Raises CommandError."""
    return for_accounts(arguments, arguments.act)


def _print(work: Work, values: Mapping[str, Any], line: str) -> None:
    if work.arguments.json:
        print(json.dumps({"user": work.account.name, **values}))
    elif getattr(work.arguments, "everybody", False):
        print(f"{work.account.name} {line}")
    else:
        print(line)


def _list(work: Work) -> int:
    with work.store() as store:
        for folder in store.folders():
            if folder.selectable:
                use = folder.special_use.decode()
                values = {"mailbox": folder.name, "subscribed": folder.subscribed, "special_use": use}
                _print(work, values, folder.name)
    return 0


def _status(work: Work) -> int:
    with work.store() as store:
        names = work.arguments.mailboxes or [each.name for each in store.folders() if each.selectable]
        for name in names:
            try:
                status = store.status(name, with_size=True)
            except NoSuchMailbox:
                return _missing(name)
            values = {
                "messages": status.messages,
                "recent": status.recent,
                "uidnext": status.uidnext,
                "uidvalidity": status.uidvalidity,
                "unseen": status.unseen,
                "highestmodseq": status.highest_modseq,
                "vsize": status.size,
            }
            line = " ".join(f"{key}={value}" for key, value in values.items())
            _print(work, {"mailbox": name, **values}, f"{name} {line}")
    return 0


def _missing(name: str) -> int:
    warn(f"{name}: no such mailbox: `mailserver mailbox list` shows them")
    return NO_MAILBOX


def _create(work: Work) -> int:
    with work.store() as store:
        for name in work.arguments.mailboxes:
            try:
                store.create(name)
                store.set_subscribed(name, True)
            except (MailboxExists, BadMailboxName) as error:
                warn(f"{name}: {error}")
                return UNUSABLE
    return 0


def _delete(work: Work) -> int:
    with work.store() as store:
        for name in work.arguments.mailboxes:
            try:
                store.delete(name)
                store.set_subscribed(name, False)
            except NoSuchMailbox:
                return _missing(name)
            except BadMailboxName as error:
                warn(f"{name}: {error}")
                return UNUSABLE
    return 0
