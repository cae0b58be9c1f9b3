r"""Commands about mailboxes as names: LIST, LSUB, CREATE, DELETE, RENAME, SUBSCRIBE, STATUS.

RFC 3501 §6.3, RFC 5258 (LIST-EXTENDED), RFC 5819 (LIST-STATUS), RFC 6154 and RFC 8457 (SPECIAL-USE),
RFC 2342 (NAMESPACE), RFC 8438 (STATUS=SIZE), RFC 8440 (LIST-MYRIGHTS), RFC 8474 (MAILBOXID),
RFC 9208 §4.1.4 (DELETED, DELETED-STORAGE).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Final

from mailserver.imapd.acl import tell_my_rights
from mailserver.imapd.listing import folders_of, list_line
from mailserver.imapd.metadata import tell as tell_metadata
from mailserver.imapd.notify import NameEvent, announce
from mailserver.imapd.replies import Refusal, Reply, ok
from mailserver.imapd.session import Session
from mailserver.store.acl import Rights
from mailserver.store.contract import DELETED, AccountStore, Folder, MailboxStatus, StoreError
from mailserver.wire.imap_commands import Create, Named, Nothing, Rename, Status
from mailserver.wire.imap_list import List
from mailserver.wire.imap_mailbox import canonical_pattern, matches
from mailserver.wire.imap_namespace import INBOX, SEPARATOR

_USES: Final = {
    use.lower(): use
    for use in (
        b"\\All",
        b"\\Archive",
        b"\\Drafts",
        b"\\Flagged",
        b"\\Important",
        b"\\Junk",
        b"\\Sent",
        b"\\Trash",
    )
}

_FIGURES: Final[Mapping[str, Callable[[MailboxStatus], object]]] = {
    "MESSAGES": attrgetter("messages"),
    "RECENT": attrgetter("recent"),
    "UIDNEXT": attrgetter("uidnext"),
    "UIDVALIDITY": attrgetter("uidvalidity"),
    "UNSEEN": attrgetter("unseen"),
    "DELETED": attrgetter("deleted"),
    "HIGHESTMODSEQ": attrgetter("highest_modseq"),
    "SIZE": lambda figures: figures.size or 0,
    "MAILBOXID": lambda figures: f"({figures.mailbox_id})",
}


# What `AccountStore.stamp_at_once` answers for: a size may be found out later.
_STAMPED: Final = frozenset(_FIGURES.keys() - {"SIZE"})


async def list_mailboxes(session: Session, command: List) -> Reply:
    """The matching names are told, with what was asked of each. RFC 5258 §3."""
    if command.patterns == ("",) and not command.is_extended:
        session.output.line(b'* LIST (\\Noselect) %b ""' % session.separator)
        return ok("List completed.")
    folders = await session.run(_folders_and_subscriptions, session)
    chosen = [folder for folder in folders if _is_selected(folder, command)]
    matching, above = _matching(session, folders, chosen, command)
    figures = await _all_figures(session, matching, command.status_items)
    asked = [folder.name for folder in matching if folder.selectable and "MYRIGHTS" in command.returns]
    rights = await session.run(_all_rights, session.store, asked) if asked else {}
    for folder in matching:
        session.output.line(_list_line(session, folder, command, folder.name in above))
        await session.output.room()
        if folder.name in rights:
            tell_my_rights(session, folder.name, rights[folder.name])
        if folder.name in figures:
            await _tell_status(session, folder.name, command.status_items, figures[folder.name])
        if command.entries and folder.selectable:
            await _tell_metadata(session, folder.name, command.entries)
    return ok("List completed.")


def _folders_and_subscriptions(session: Session) -> list[Folder]:
    """Every folder, then subscribed names without one (`selectable` false, no children). Blocking."""
    folders = folders_of(session.store)
    known = {folder.name for folder in folders}
    missing = [name for name in session.store.subscriptions() if name not in known]
    return folders + [
        Folder(name, selectable=False, subscribed=True, is_personal=session.store.is_own(name))
        for name in missing
    ]


def _is_selected(folder: Folder, command: List) -> bool:
    exists = folder.selectable or folder.has_children
    if "SUBSCRIBED" in command.selection:
        if not folder.subscribed:
            return False
    elif not exists:
        return False
    return "SPECIAL-USE" not in command.selection or bool(folder.special_use)


def _matcher(session: Session, command: List) -> Callable[[Folder], bool]:
    patterns = [canonical_pattern(command.reference, pattern) for pattern in command.patterns]

    def is_match(folder: Folder) -> bool:
        name = session.told(folder.name, folder.is_personal)
        levels = name.split(SEPARATOR) if session.store.namespace.prefix else [name]
        any_case = len(INBOX) if levels[0] == INBOX else 0
        return any(matches(pattern, name, any_case) for pattern in patterns)

    return is_match


def _matching(
    session: Session, folders: Iterable[Folder], chosen: Sequence[Folder], command: List
) -> tuple[list[Folder], Collection[str]]:
    """The folders to be told; and the names above any that was chosen."""
    is_match, above = _matcher(session, command), _ancestors(session, chosen)
    found = [folder for folder in chosen if is_match(folder)]
    if "RECURSIVEMATCH" in command.selection:
        hidden = _ancestors(session, (folder for folder in chosen if not is_match(folder)))
        known = {folder.name: folder for folder in folders}
        for name in sorted(above.keys() - {folder.name for folder in chosen}):
            if is_match(above[name]) and name in hidden:  # RFC 5258 §3.5: not where all children are told
                found.append(known.get(name) or above[name])
    return found, above


def _ancestors(session: Session, folders: Iterable[Folder]) -> dict[str, Folder]:
    """The levels above, without a mailbox, by their names."""
    found: dict[str, Folder] = {}
    for folder in folders:
        name = folder.name
        while name := session.store.namespace.parent(name, folder.is_personal):
            found[name] = Folder(name, selectable=False, is_personal=folder.is_personal)
    return found


def _list_line(session: Session, folder: Folder, command: List, has_chosen_child: bool) -> bytes:
    with_subscribed = "SUBSCRIBED" in command.selection | command.returns
    line = list_line(session, folder, with_subscribed)
    if "RECURSIVEMATCH" in command.selection and has_chosen_child:
        kind = b'"SUBSCRIBED"' if "SUBSCRIBED" in command.selection else b'"SPECIAL-USE"'
        line += b' ("CHILDINFO" (%b))' % kind
    return line


async def list_subscribed(session: Session, command: List) -> Reply:
    r"""The subscribed names that match; with `%`, levels above some as \Noselect. RFC 3501 §6.3.9."""
    names = await session.run(session.store.subscriptions)
    folders = [Folder(name, is_personal=session.store.is_own(name)) for name in names]
    is_match = _matcher(session, command)
    for folder in filter(is_match, folders):
        session.output.line(_lsub_line(session, folder, b""))
    if any(pattern.endswith("%") for pattern in command.patterns):
        above = _ancestors(session, folders)
        for name in sorted(above.keys() - set(names)):
            if is_match(above[name]):
                session.output.line(_lsub_line(session, above[name], b"\\Noselect"))
    return ok("Lsub completed.")


def _lsub_line(session: Session, folder: Folder, attributes: bytes) -> bytes:
    name = session.shown(session.told(folder.name, folder.is_personal))
    return b"* LSUB (%b) %b %b" % (attributes, session.separator, name)


async def create(session: Session, command: Create) -> Reply:
    """The mailbox is there; the answer names its id. RFC 3501 §6.3.3, RFC 6154 §3, RFC 8474 §4."""
    use = command.special_use
    if use and use.lower() not in _USES:
        raise Refusal("Special use is not supported", b"USEATTR")
    if command.mailbox == INBOX:
        raise Refusal("Mailbox already exists", b"ALREADYEXISTS")
    await session.run(session.store.create, command.mailbox, _USES.get(use.lower(), b""))
    announce(session, NameEvent("MAILBOXNAME", command.mailbox))
    status = await session.run(session.store.status, command.mailbox)
    return ok("Create completed.", b"MAILBOXID (%b)" % status.mailbox_id.encode("ascii"))


async def delete(session: Session, command: Named) -> Reply:
    """The mailbox is gone. Where it was selected here, it is not any longer."""
    if command.mailbox == INBOX:
        raise Refusal("INBOX can't be deleted.", b"CANNOT")
    if session.selected is not None and session.selected.mailbox.name == command.mailbox:
        await session.deselect()
    await session.run(session.store.delete, command.mailbox)
    announce(session, NameEvent("MAILBOXNAME", command.mailbox))
    return ok("Delete completed.")


async def rename(session: Session, command: Rename) -> Reply:
    """The mailbox and those below it have the new name. RFC 3501 §6.3.5."""
    await session.run(session.store.rename, command.old, command.new)
    old_name = command.old if command.old != INBOX else ""  # RFC 5465 §5.4: INBOX is there again
    announce(session, NameEvent("MAILBOXNAME", command.new, old_name))
    await session.sync()
    return ok("Rename completed.")


async def subscribe(session: Session, command: Named) -> Reply:
    """The name is in LSUB's list."""
    await session.run(session.store.set_subscribed, command.mailbox, True)
    announce(session, NameEvent("SUBSCRIPTIONCHANGE", command.mailbox))
    return ok("Subscribe completed.")


async def unsubscribe(session: Session, command: Named) -> Reply:
    """The name is not in LSUB's list."""
    await session.run(session.store.set_subscribed, command.mailbox, False)
    announce(session, NameEvent("SUBSCRIPTIONCHANGE", command.mailbox))
    return ok("Unsubscribe completed.")


async def status(session: Session, command: Status) -> Reply:
    """The figures are told. RFC 3501 §6.3.10."""
    if "HIGHESTMODSEQ" in command.items:
        session.enable_condstore()
    words, stamp, stamp_of = session.current_words, None, session.store.stamp_at_once
    if _STAMPED.issuperset(command.items) and session.recall.is_worth_keeping(words):
        stamp = stamp_of(command.mailbox)
    line = await tell_status(session, command.mailbox, command.items)
    if stamp is not None and stamp == stamp_of(command.mailbox):
        session.recall.keep(words, command.mailbox, stamp, line)
    await session.sync()
    return ok("Status completed.")


async def _all_figures(
    session: Session, folders: Sequence[Folder], items: Sequence[str]
) -> dict[str, MailboxStatus]:
    """The figures of all that can be selected; one call in a thread for those that are not at hand."""
    names = [folder.name for folder in folders if folder.selectable] if items else []
    figures = {name: session.store.status_at_once(name, "SIZE" in items) for name in names}
    missing = [name for name, known in figures.items() if known is None]
    if missing:
        figures.update(await session.run(_figures, session.store, missing, "SIZE" in items))
    return {name: known for name, known in figures.items() if known is not None}


def _figures(store: AccountStore, names: Sequence[str], with_size: bool) -> dict[str, MailboxStatus]:
    """A mailbox that cannot be looked at is passed over. RFC 5819 §2. Blocking."""
    figures = {}
    for name in names:
        try:
            figures[name] = store.status(name, with_size)
        except StoreError:
            continue
    return figures


async def tell_status(session: Session, name: str, items: Sequence[str]) -> bytes:
    """The STATUS response is said; the line. Raises StoreError."""
    with_size = "SIZE" in items
    figures = session.store.status_at_once(name, with_size)
    if figures is None:
        figures = await session.run(session.store.status, name, with_size)
    return await _tell_status(session, name, items, figures)


async def _tell_status(session: Session, name: str, items: Sequence[str], figures: MailboxStatus) -> bytes:
    octets = await session.run(_deleted_octets, session, name) if "DELETED-STORAGE" in items else 0
    return _say_status(session, name, items, figures, octets)


def _deleted_octets(session: Session, name: str) -> int:
    r"""Octets of the messages with \Deleted. RFC 9208 §4.1.4. Blocking."""
    with session.store.borrow(name) as mailbox:
        deleted = [uid for uid, message in mailbox.messages.items() if DELETED in message.flags]
        return sum(mailbox.sizes(sorted(deleted)).values())


def _all_rights(store: AccountStore, names: Sequence[str]) -> dict[str, Rights]:
    """A mailbox whose rights cannot be looked up is passed over. RFC 8440 §3. Blocking."""
    rights = {}
    for name in names:
        with suppress(StoreError):
            rights[name] = store.my_rights(name)
    return rights


async def _tell_metadata(session: Session, name: str, entries: Sequence[str]) -> None:
    """As GETMETADATA; a mailbox that cannot be looked at is passed over. RFC 9590 §3."""
    try:
        known = await session.run(session.store.annotations, name)
    except StoreError:
        return
    tell_metadata(session, name, {entry: known.get(entry) for entry in entries})


def _say_status(
    session: Session, name: str, items: Sequence[str], figures: MailboxStatus, deleted: int
) -> bytes:
    more = {"DELETED-STORAGE": deleted, "APPENDLIMIT": session.settings.largest_message}
    said = [f"{item} {_FIGURES[item](figures) if item in _FIGURES else more[item]}" for item in items]
    line = b"* STATUS %b (%b)\r\n" % (session.name(name), " ".join(said).encode("ascii"))
    session.output.write(line)
    return line


async def namespace(session: Session, command: Nothing) -> Reply:
    """Where the account's own mailboxes are, other users' and everybody's. RFC 2342 §5."""
    found = session.store.namespaces()
    personal = [session.store.namespace.prefix + prefix for prefix in found.personal]
    kinds = (personal, found.other_users, found.shared)
    session.output.line(b"* NAMESPACE " + b" ".join(_namespaces(session, prefixes) for prefixes in kinds))
    return ok("Namespace completed.")


def _namespaces(session: Session, prefixes: Sequence[str]) -> bytes:
    if not prefixes:
        return b"NIL"
    return (
        b"(" + b"".join(b"(%b %b)" % (session.shown(prefix), session.separator) for prefix in prefixes) + b")"
    )
