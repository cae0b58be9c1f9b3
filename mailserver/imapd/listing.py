r"""The LIST response: a mailbox's name and attributes. RFC 3501 §7.2.2, RFC 5258 §3, RFC 6154 §2."""

from __future__ import annotations

from dataclasses import replace

from mailserver.imapd.session import Session
from mailserver.store.contract import AccountStore, Folder
from mailserver.wire.imap_filter import MailboxFilter
from mailserver.wire.imap_namespace import INBOX, SEPARATOR


def folders_of(store: AccountStore) -> list[Folder]:
    """The folders, as clients see them below each other. *Blocking*."""
    folders = list(store.folders())
    if store.namespace.prefix and any(each.is_personal and each.name != INBOX for each in folders):
        return [replace(each, has_children=True) if each.name == INBOX else each for each in folders]
    return folders


def list_line(session: Session, folder: Folder, with_subscribed: bool) -> bytes:
    r"""The response without extended data. `with_subscribed`: \Subscribed is told where it is so."""
    attributes: list[bytes] = []
    if not folder.selectable:
        attributes.append(b"\\Noselect" if folder.has_children else b"\\NonExistent")
    attributes.append(b"\\HasChildren" if folder.has_children else b"\\HasNoChildren")
    if folder.subscribed and with_subscribed:
        attributes.append(b"\\Subscribed")
    if folder.special_use:
        attributes.append(folder.special_use)
    name = session.shown(session.told(folder.name, folder.is_personal))
    return b"* LIST (%b) %b %b" % (b" ".join(attributes), session.separator, name)


def is_in(session: Session, chosen: MailboxFilter, folder: Folder) -> bool:
    """Whether the filter names the mailbox. RFC 5465 §6, RFC 7377 §2.2."""
    match chosen.kind:
        case "PERSONAL" | "INBOXES":
            return folder.is_personal
        case "SUBSCRIBED":
            return folder.subscribed
        case "SUBTREE" | "SUBTREE-ONE":
            return folder.name in chosen.mailboxes or _is_below(session, chosen, folder)
    return folder.name in chosen.mailboxes


def _is_below(session: Session, chosen: MailboxFilter, folder: Folder) -> bool:
    """Whether clients see the mailbox below one of the filter's."""
    if chosen.kind == "SUBTREE-ONE":
        parent = session.store.namespace.parent(folder.name, folder.is_personal)
        return parent in chosen.mailboxes
    told = session.told(folder.name, folder.is_personal)
    return any(told.startswith(session.told(name) + SEPARATOR) for name in chosen.mailboxes)
