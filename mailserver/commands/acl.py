"""`mailserver acl`: who may do what with a mailbox, beside a running server or without one.

Modelled on doveadm-acl(1): identifiers as `dovecot-acl` files write them (user=NAME, group=NAME, owner,
authenticated, anyone), rights by letters or by name. `-u USER` names the owner of the mailbox; a mailbox of
a public namespace (`Public/Announcements`, or `Public` for all of them) has none. Open sessions obey at
their next command. Exit status as `mailserver mailbox`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from typing import Final

from mailserver.accounts.account import Account
from mailserver.commands.errors import CommandError
from mailserver.commands.mailbox_accounts import NO_MAILBOX, UNUSABLE, Work, for_accounts, warn
from mailserver.roles.neighbours import with_visits
from mailserver.roles.permission import is_user_of_system
from mailserver.roles.retrieval import behind_acls, own_index
from mailserver.store.acl import (
    ALL,
    NAMES,
    OWNER,
    Acl,
    BadAcl,
    Identifier,
    Kind,
    Rights,
    parse_identifier,
    parse_rights,
)
from mailserver.store.acl_files import AclFiles
from mailserver.store.contract import NoSuchMailbox, StoreError
from mailserver.store.namespaces import PUBLIC
from mailserver.store.registry import layout_of
from mailserver.store.shared_boxes import SharedBoxes

_EXAMPLES: Final = """\
examples:
  mailserver acl set -u bob Team user=alice lrs         alice reads bob's Team as shared/bob/Team
  mailserver acl add -u bob Team group=staff lookup read insert
  mailserver acl set -u bob Team --negative user=carol w
  mailserver acl set Public user=alice all              alice looks after the public namespace
  mailserver acl get -u bob Team --json
  mailserver acl rights -u alice shared/bob/Team        what alice may do there
  mailserver acl list -A
  mailserver acl recalc -A                              after dovecot-acl files were changed by hand
rights:
  l lookup   r read     w write   s write-seen   t write-deleted   i insert   p post
  e expunge  k create   x delete  a admin        all
"""
Change = Callable[[Acl, argparse.Namespace], Acl]


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `mailserver acl`."""
    parser = subparsers.add_parser(
        "acl",
        help="share mailboxes: show and change who may do what with them",
        description="Show and change the access control lists of mailboxes (RFC 4314).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text, act in (
        ("get", "show a mailbox's ACL", _get),
        ("rights", "show what the user of -u may do with a mailbox, by the user's name for it", _rights),
    ):
        action = _action(actions, name, text, act)
        action.add_argument("mailbox", metavar="MAILBOX")
        action.add_argument("--json", action="store_true", help="as JSON")
    for name, text, change in (
        ("set", "give an identifier these rights and no others", _set),
        ("add", "give an identifier further rights", _add),
        ("remove", "take rights from an identifier's entry", _remove),
        ("delete", "remove an identifier's entry", _delete),
    ):
        action = _action(actions, name, text, partial(_change, change))
        action.add_argument("mailbox", metavar="MAILBOX")
        action.add_argument("identifier", metavar="IDENTIFIER")
        if name != "delete":
            action.add_argument("rights", metavar="RIGHT", nargs="+", help="letters (lrs), names, or all")
        action.add_argument("--negative", action="store_true", help="rights that are withheld")
    listing = _action(actions, "list", "show all mailboxes that have an ACL", _list, many=True)
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    _action(actions, "recalc", "make the index of shared mailboxes anew", _recalc, many=True)
    parser.set_defaults(run=run)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    act: Callable[[Work], int],
    many: bool = False,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    chosen = parser.add_mutually_exclusive_group(required=many)
    chosen.add_argument("-u", dest="user", metavar="USER", help="the account")
    if many:
        chosen.add_argument("-A", dest="everybody", action="store_true", help="all accounts, one by one")
    parser.set_defaults(act=act)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """The action is done. Raises CommandError."""
    return for_accounts(arguments, arguments.act)


def _acls(work: Work) -> AclFiles:
    return AclFiles(
        partial(layout_of, layout_for=work.parts.store.layout_for), partial(warn, subcommand="acl")
    )


def _name(work: Work) -> str:
    """The mailbox's name in its account, "" for a namespace itself. Raises CommandError."""
    name = str(work.arguments.mailbox)
    prefix = work.account.extra.get(PUBLIC, "")
    name = f"{name}/".removeprefix(prefix).rstrip("/") if prefix else name
    if not (prefix and not name) and not _acls(work).names(work.account).get(name):
        raise CommandError(f"{name}: no such mailbox: `mailserver mailbox list` shows them", NO_MAILBOX)
    return name


def _get(work: Work) -> int:
    acls, name = _acls(work), _name(work)
    acl = acls.read(work.account, name) if name else acls.default(work.account)
    if PUBLIC not in work.account.extra and not acl.granted.keys() & {OWNER, _own(work.account)}:
        acl = Acl({OWNER: ALL, **acl.granted}, acl.withheld)
    if work.arguments.json:
        print(json.dumps(_rows(acl), indent=2))
        return 0
    print(f"{'ID':32} Rights")
    for row in _rows(acl):
        print(f"{row['id']:32} {row['rights']}")
    return 0


def _own(account: Account) -> Identifier:
    return Identifier(Kind.USER, account.name)


def _rows(acl: Acl) -> list[dict[str, str]]:
    return [
        {"id": sign + str(identifier), "rights": " ".join(_named(rights))}
        for sign, entries in (("", acl.granted), ("-", acl.withheld))
        for identifier, rights in entries.items()
    ]


def _named(rights: Rights) -> list[str]:
    return [name for name, letter in NAMES.items() if letter in rights]


def _given(words: list[str]) -> Rights:
    """The rights that were typed. Raises BadAcl."""
    found: set[str] = set()
    for word in words:
        if word == "all":
            found |= ALL
        elif word in NAMES:
            found.add(NAMES[word])
        else:
            found |= parse_rights(word)
    return frozenset(found)


def _set(acl: Acl, arguments: argparse.Namespace) -> Acl:
    rights = _given(arguments.rights)
    return acl.changed(parse_identifier(arguments.identifier), lambda before: rights, arguments.negative)


def _add(acl: Acl, arguments: argparse.Namespace) -> Acl:
    rights = _given(arguments.rights)
    return acl.changed(
        parse_identifier(arguments.identifier), lambda before: before | rights, arguments.negative
    )


def _remove(acl: Acl, arguments: argparse.Namespace) -> Acl:
    rights = _given(arguments.rights)
    return acl.changed(
        parse_identifier(arguments.identifier), lambda before: before - rights, arguments.negative
    )


def _delete(acl: Acl, arguments: argparse.Namespace) -> Acl:
    return acl.without(parse_identifier(arguments.identifier), arguments.negative)


def _change(change: Change, work: Work) -> int:
    acls, name = _acls(work), _name(work)
    if work.has_many_owners and PUBLIC not in work.account.extra and work.arguments.action in ("set", "add"):
        _check_shares(work)
    try:
        acls.update(work.account, name, lambda acl: change(acl, work.arguments))
    except BadAcl as error:
        raise CommandError(f"{work.arguments.mailbox}: {error}: nothing was changed", UNUSABLE) from error
    return _note(work, acls)


def _check_shares(work: Work) -> None:
    """Raises CommandError for a right of anybody else's that would come to nothing."""
    if work.arguments.identifier in (str(OWNER), str(_own(work.account))):
        return
    if not work.parts.store.namespace_rules.shared_prefix:
        raise CommandError("shared_namespace: mailboxes are not shared with others: set it", UNUSABLE)
    if not is_user_of_system(work.account):
        raise CommandError(
            f"{work.arguments.mailbox}: {work.account.name} is no user of the system and cannot share "
            "mailboxes: make it a mailbox of a public namespace (public_namespaces)",
            UNUSABLE,
        )


def _note(work: Work, acls: AclFiles) -> int:
    """The index of shared mailboxes knows; with system accounts that of the account."""
    if PUBLIC in work.account.extra:
        return 0
    if work.has_many_owners:
        boxes = own_index(work.config, work.account)
    else:
        boxes = SharedBoxes(work.config.string("acl_shared_dict").removeprefix("file:"))
    try:
        boxes.set(work.account.name, acls.all(work.account).values())
    except StoreError as error:
        warn(f"{error}: the rights count, but LIST of others does not show all", "acl")
    return 0


def _list(work: Work) -> int:
    for name, acl in sorted(_acls(work).all(work.account).items()):
        for row in _rows(acl):
            if work.arguments.json:
                print(json.dumps({"user": work.account.name, "mailbox": name, **row}))
            else:
                who = f"{work.account.name} " if work.arguments.everybody else ""
                print(f"{who}{name} {row['id']} {row['rights']}")
    return 0


def _recalc(work: Work) -> int:
    return _note(work, _acls(work))


def _rights(work: Work) -> int:
    name = work.arguments.mailbox
    with work.registry() as files:
        if work.has_many_owners:
            stores = with_visits(work.parts, behind_acls(work.parts, files, work.account))
        else:
            stores = behind_acls(work.parts, files)
        store = stores.open(work.account)
        try:
            rights = store.my_rights(name)
        except NoSuchMailbox as error:
            raise CommandError(
                f"{name}: there is no such mailbox for {work.account.name}", NO_MAILBOX
            ) from error
        finally:
            stores.close(store)
    if work.arguments.json:
        print(json.dumps({"user": work.account.name, "mailbox": name, "rights": _named(rights)}))
    else:
        print(" ".join(_named(rights)))
    return 0
