"""SETACL, DELETEACL, GETACL, LISTRIGHTS, MYRIGHTS: who may do what with a mailbox. RFC 4314 §3.

Identifiers are Dovecot's: the name of a user, `$NAME` (or `group=NAME`) for a group, `!$NAME` for a group
that overrides users, `owner`, `authenticated`, `anyone`; a `-` before it withholds the rights. The owner
is told by name. `anyone` and `authenticated` are given by clients where `acl_anyone` allows it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from mailserver.imapd.replies import Refusal, Rejection, Reply, ok
from mailserver.imapd.session import Session
from mailserver.store.acl import (
    ANYONE,
    AUTHENTICATED,
    OWNER,
    OWNER_KEEPS,
    RIGHTS,
    Acl,
    BadAcl,
    Identifier,
    Kind,
    Rights,
    parse_rights,
    render_rights,
    render_with_obsolete,
)
from mailserver.store.contract import AccountStore
from mailserver.wire.imap_acl import AboutIdentifier, SetAcl
from mailserver.wire.imap_commands import Named
from mailserver.wire.imap_responses import astring

MOST_ENTRIES: Final = 1000  # of a mailbox
_WORDS: Final = {"anyone": ANYONE, "authenticated": AUTHENTICATED, "owner": OWNER}
_PREFIXES: Final = {
    "$": Kind.GROUP,
    "!$": Kind.GROUP_OVERRIDE,
    "group=": Kind.GROUP,
    "user=": Kind.USER,
}
_GLOBAL: Final = "#"  # Dovecot's mark of what the administrator's file says


@dataclass(frozen=True, slots=True)
class _Entry:
    """Which entry of an ACL a client means."""

    identifier: Identifier
    is_negative: bool


async def get_acl(session: Session, command: Named) -> Reply:
    """The mailbox's ACL is told."""
    acl, owner = await session.run(_acl_and_owner, session.store, command.mailbox)
    pairs = [
        b" %b %b" % (astring(name.encode("utf-8")), astring(render_with_obsolete(rights).encode("ascii")))
        for name, rights in _entries(acl, owner)
    ]
    session.output.line(b"* ACL %b%b" % (session.name(command.mailbox), b"".join(pairs)))
    return ok("Getacl completed.")


def _acl_and_owner(store: AccountStore, name: str) -> tuple[Acl, str]:
    """Blocking."""
    return store.acl(name), store.owner(name)


def _entries(acl: Acl, owner: str, mark: str = "") -> Iterator[tuple[str, Rights]]:
    names = {OWNER: owner} if owner and Identifier(Kind.USER, owner) not in acl.granted else {}
    for sign, entries in (("", acl.granted), ("-", acl.withheld)):
        for identifier, rights in entries.items():
            yield sign + mark + names.get(identifier, _rendered(identifier)), rights
    if acl.above is not None:
        yield from _entries(acl.above, owner, _GLOBAL)


def _rendered(identifier: Identifier) -> str:
    signs = {Kind.GROUP: "$", Kind.GROUP_OVERRIDE: "!$", Kind.USER: ""}
    if identifier.kind in signs:
        return signs[identifier.kind] + identifier.name
    return str(identifier)


async def set_acl(session: Session, command: SetAcl) -> Reply:
    """The identifier has the rights, durably; sessions that have the mailbox open obey at once."""
    entry = _parse(command.identifier)
    try:
        rights = parse_rights(command.rights)
    except BadAcl as error:
        raise Rejection(str(error))
    if entry.identifier in (ANYONE, AUTHENTICATED) and not session.settings.acl_anyone:
        raise Refusal("Rights for everybody are the administrator's to give (acl_anyone).", b"NOPERM")
    await _change(session, command.mailbox, _changing(entry, command.sign, rights))
    return ok("Setacl complete.")


def _changing(entry: _Entry, sign: str, rights: Rights) -> Callable[[Acl], Acl]:
    def change(before: Rights) -> Rights:
        if not sign:
            return rights
        return before | rights if sign == "+" else before - rights

    return lambda acl: acl.changed(entry.identifier, change, entry.is_negative)


async def delete_acl(session: Session, command: AboutIdentifier) -> Reply:
    """The ACL has no entry of the identifier."""
    entry = _parse(command.identifier)
    await _change(session, command.mailbox, lambda acl: acl.without(entry.identifier, entry.is_negative))
    return ok("Deleteacl complete.")


async def _change(session: Session, mailbox: str, change: Callable[[Acl], Acl]) -> None:
    def checked(acl: Acl) -> Acl:
        changed = change(acl)
        if len(changed.granted) + len(changed.withheld) > MOST_ENTRIES:
            raise BadAcl("There are too many entries")
        return changed

    try:
        await session.run(session.store.change_acl, mailbox, checked)
    except BadAcl as error:
        raise Refusal(f"The ACL cannot be changed: {error}", b"CANNOT")
    await session.sync()


async def list_rights(session: Session, command: AboutIdentifier) -> Reply:
    """What the identifier always has, and what it can be given, each right by itself. RFC 4314 §3.7."""
    entry = _parse(command.identifier)
    _, owner = await session.run(_acl_and_owner, session.store, command.mailbox)
    is_owner = entry.identifier in (OWNER, Identifier(Kind.USER, owner)) and bool(owner)
    required = OWNER_KEEPS if is_owner and not entry.is_negative else frozenset[str]()
    optional = [letter for letter in RIGHTS + "cd" if letter not in required]
    session.output.line(
        b"* LISTRIGHTS %b %b %b %b"
        % (
            session.name(command.mailbox),
            astring(command.identifier.encode("utf-8")),
            astring(render_rights(required).encode("ascii")),
            " ".join(optional).encode("ascii"),
        )
    )
    return ok("Listrights completed.")


async def my_rights(session: Session, command: Named) -> Reply:
    """The user's own rights are told."""
    rights = await session.run(session.store.my_rights, command.mailbox)
    tell_my_rights(session, command.mailbox, rights)
    return ok("Myrights completed.")


def tell_my_rights(session: Session, mailbox: str, rights: Rights) -> None:
    """The MYRIGHTS response. RFC 4314 §3.8."""
    letters = astring(render_with_obsolete(rights).encode("ascii"))
    session.output.line(b"* MYRIGHTS %b %b" % (session.name(mailbox), letters))


def _parse(text: str) -> _Entry:
    """The entry that the client's identifier names. Raises Rejection. RFC 4314 §3 (SASLprep)."""
    text = unicodedata.normalize("NFKC", text)
    is_negative = text.startswith("-")
    name = text.removeprefix("-")
    if not name or not name.isprintable():
        raise Rejection("Invalid identifier")
    if name.startswith(_GLOBAL):
        raise Rejection("Global ACLs can't be modified.")
    if name in _WORDS:
        return _Entry(_WORDS[name], is_negative)
    for prefix, kind in _PREFIXES.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            rest = name[len(prefix) :]
            return _Entry(Identifier(kind, rest.lower() if kind is Kind.USER else rest), is_negative)
    return _Entry(Identifier(Kind.USER, name.lower()), is_negative)
