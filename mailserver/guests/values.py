r"""Values of the store's contract in frames. What comes from the other side is checked: it may be hostile.

A mailbox's state goes as `{"name", "uidvalidity", "mailbox_id", "rights"}`, and for who may read it with
`{"uidnext", "modseq", "recent", "keywords", "flags"}` besides, and two pieces: messages as records of UID,
modseq, internal date and an index into "flags", and the UIDs of those that are gone.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, cast

from mailserver.guests.frames import BadFrame, Header
from mailserver.store.acl import ALL, Acl, BadAcl, Rights, parse_acl, parse_rights, render_acl, render_rights
from mailserver.store.contract import (
    SYSTEM_FLAGS,
    AccessDenied,
    AccessRevoked,
    BadMailboxName,
    Flags,
    Folder,
    MailboxBusy,
    MailboxExists,
    MailboxReplaced,
    MailboxStatus,
    Message,
    MessageGone,
    Modseq,
    NoSuchMailbox,
    OverQuota,
    StoreError,
    StoreFailure,
    Uid,
)
from mailserver.store.names import checked_name

LARGEST_UID: Final = 2**32 - 1
LARGEST_MODSEQ: Final = 2**63 - 1
_LONGEST_TEXT: Final = 1000
_MOST_FLAGS: Final = 1000  # of one message: another program may have set more than clients can
_RECORD: Final = struct.Struct("<IQqI")
_KEYWORD: Final = re.compile(rb"[^\x00-\x20(){%*\"\\\]\x7f-\xff]{1,255}")
_MAILBOX_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_USE: Final = re.compile(rb"\\[A-Za-z]{1,32}|")
_SWAPS: Final = sys.byteorder == "big"
_ERRORS: Final[Mapping[str, type[StoreError]]] = {
    each.__name__: each
    for each in (
        NoSuchMailbox, MailboxExists, BadMailboxName, MessageGone, OverQuota, MailboxBusy, StoreFailure,
        AccessDenied, AccessRevoked, MailboxReplaced,
    )
}  # fmt: skip


# Plain values.


def number(value: object, largest: int = LARGEST_UID, least: int = 0) -> int:
    """A whole number within bounds."""
    if type(value) is not int or not least <= value <= largest:
        raise BadFrame("no such number")
    return value


def text(value: object, longest: int = _LONGEST_TEXT) -> str:
    """A text that is not too long."""
    if not isinstance(value, str) or len(value) > longest:
        raise BadFrame("no such text")
    return value


def truth(value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise BadFrame("neither true nor false")
    return value


def listed(value: object, most: int) -> list[Any]:
    """A list that is not too long."""
    if not isinstance(value, list) or len(value) > most:
        raise BadFrame("no such list")
    return value


def mailbox_name(value: object, prefix: str) -> str:
    """A mailbox's name below that prefix, in its one spelling."""
    name = text(value)
    try:
        if name.startswith(prefix) and checked_name(name) == name:
            return name
    except BadMailboxName:
        pass
    raise BadFrame("no name of a mailbox here")


# UIDs.


def pack_uids(uids: Iterable[int]) -> bytes:
    """The UIDs as 32-bit numbers, little-endian."""
    packed = array("I", uids)
    if _SWAPS:
        packed.byteswap()
    return packed.tobytes()


def unpack_uids(packed: bytes, is_ascending: bool = True) -> list[Uid]:
    """The UIDs; each is above the one before where they must be `is_ascending`."""
    if len(packed) % 4:
        raise BadFrame("half a UID")
    found = array("I", packed)
    if _SWAPS:
        found.byteswap()
    uids = found.tolist()
    if uids and (min(uids) < 1 or (is_ascending and any(a >= b for a, b in pairwise(uids)))):
        raise BadFrame("UIDs out of order")
    return cast(list[Uid], uids)


# Flags and messages.


def pack_flags(flags: Flags) -> list[str]:
    """The flags as text."""
    return sorted(flag.decode("latin-1") for flag in flags)


def unpack_flags(value: object) -> Flags:
    """Flags that may stand in an answer to a client, and in a mailbox."""
    return frozenset(map(_flag, listed(value, _MOST_FLAGS)))


def _flag(value: object) -> bytes:
    try:
        flag = text(value, 255).encode("latin-1")
    except UnicodeEncodeError as error:
        raise BadFrame("no flag") from error
    if flag not in SYSTEM_FLAGS and not _KEYWORD.fullmatch(flag):
        raise BadFrame("no flag")
    return flag


def pack_messages(messages: Iterable[Message]) -> tuple[list[list[str]], bytes]:
    """The sets of flags that occur, and the records."""
    kinds: dict[Flags, int] = {}
    records = [
        _RECORD.pack(uid, modseq, date, kinds.setdefault(flags, len(kinds)))
        for uid, flags, modseq, date in messages
    ]
    return [*map(pack_flags, kinds)], b"".join(records)


def unpack_messages(kinds: object, packed: bytes) -> list[Message]:
    """The inverse; UIDs are ascending."""
    known = [unpack_flags(each) for each in listed(kinds, LARGEST_UID)]
    if len(packed) % _RECORD.size:
        raise BadFrame("half a message")
    found, before = [], 0
    for uid, modseq, date, kind in _RECORD.iter_unpack(packed):
        if uid <= before or modseq > LARGEST_MODSEQ or kind >= len(known) or not -(2**40) < date < 2**40:
            raise BadFrame("no such message")
        found.append(Message(Uid(uid), known[kind], Modseq(modseq), date))
        before = uid
    return found


# A mailbox's state.


@dataclass(frozen=True, slots=True)
class Readable:
    """What is new of a mailbox that the user may read; `messages` came or changed, `gone` were expunged."""

    uidnext: Uid
    modseq: Modseq
    recent: Uid
    keywords: Sequence[bytes]
    messages: Sequence[Message]
    gone: Sequence[Uid]


@dataclass(frozen=True, slots=True)
class State:
    """What is new of a mailbox."""

    name: str
    uidvalidity: int
    mailbox_id: str
    rights: Rights
    readable: Readable | None


def pack_state(state: State) -> tuple[Header, Sequence[bytes]]:
    """The state as an object and two pieces."""
    plain: dict[str, Any] = {
        "name": state.name, "uidvalidity": state.uidvalidity, "mailbox_id": state.mailbox_id,
        "rights": render_rights(state.rights),
    }  # fmt: skip
    new = state.readable
    if new is None:
        return plain, (b"", b"")
    kinds, records = pack_messages(new.messages)
    keywords = [each.decode("latin-1") for each in new.keywords]
    plain |= {
        "uidnext": new.uidnext, "modseq": new.modseq, "recent": new.recent, "keywords": keywords,
        "flags": kinds,
    }  # fmt: skip
    return plain, (records, pack_uids(new.gone))


def unpack_state(value: object, pieces: Sequence[bytes], prefix: str) -> State:
    """The inverse."""
    plain = mapping(value)
    if len(pieces) != 2:
        raise BadFrame("no state of a mailbox")
    mailbox_id = text(plain.get("mailbox_id"))
    if not _MAILBOX_ID.fullmatch(mailbox_id):
        raise BadFrame("no id of a mailbox")
    readable = None
    if "modseq" in plain:
        readable = Readable(
            Uid(number(plain.get("uidnext"), LARGEST_UID + 1, 1)),
            Modseq(number(plain.get("modseq"), LARGEST_MODSEQ)),
            Uid(number(plain.get("recent"), LARGEST_UID + 1)),
            [_flag(each) for each in listed(plain.get("keywords"), LARGEST_UID)],
            unpack_messages(plain.get("flags"), pieces[0]),
            unpack_uids(pieces[1]),
        )
    return State(
        mailbox_name(plain.get("name"), prefix),
        number(plain.get("uidvalidity"), least=1),
        mailbox_id,
        unpack_rights(plain.get("rights")),
        readable,
    )


def mapping(value: object) -> Mapping[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise BadFrame("no object")
    return value


def unpack_rights(value: object) -> Rights:
    """Rights by their letters."""
    try:
        return parse_rights(text(value, len(ALL)))
    except BadAcl as error:
        raise BadFrame("no rights") from error


# Mailboxes by name.


def pack_folder(folder: Folder) -> list[object]:
    """The folder; whether it is subscribed is its reader's to know."""
    return [folder.name, folder.selectable, folder.has_children, folder.special_use.decode("latin-1")]


def unpack_folders(value: object, prefix: str) -> Iterator[Folder]:
    """The inverse, of a list of another user's mailboxes and levels; what has no name here is left out."""
    for each in listed(value, LARGEST_UID):
        with suppress(BadFrame):
            yield _folder(each, prefix)


def _folder(value: object, prefix: str) -> Folder:
    name, selectable, has_children, use = _of_length(value, 4)
    use = text(use).encode("ascii", "replace")
    if not _USE.fullmatch(use):
        raise BadFrame("no special use")
    return Folder(
        mailbox_name(name, prefix), truth(selectable), truth(has_children), special_use=use, is_personal=False
    )


def _of_length(value: object, length: int) -> list[Any]:
    found = listed(value, length)
    if len(found) != length:
        raise BadFrame("too short")
    return found


def pack_status(status: MailboxStatus) -> list[object]:
    """STATUS's figures."""
    return [
        status.messages, status.recent, status.uidnext, status.uidvalidity, status.unseen,
        status.highest_modseq, status.deleted, status.size, status.mailbox_id,
    ]  # fmt: skip


def unpack_status(value: object) -> MailboxStatus:
    """The inverse."""
    *figures, size, mailbox_id = _of_length(value, 9)
    messages, recent, uidnext, uidvalidity, unseen, modseq, deleted = (
        number(each, LARGEST_MODSEQ) for each in figures
    )
    if not _MAILBOX_ID.fullmatch(text(mailbox_id)):
        raise BadFrame("no id of a mailbox")
    return MailboxStatus(
        messages, recent, Uid(uidnext), uidvalidity, unseen, Modseq(modseq), deleted,
        None if size is None else number(size, LARGEST_MODSEQ), mailbox_id,
    )  # fmt: skip


def pack_acl(acl: Acl) -> list[str]:
    """The ACL, and the administrator's above it, as files have them."""
    return [render_acl(acl), "" if acl.above is None else render_acl(acl.above)]


def unpack_acl(value: object) -> Acl:
    """The inverse."""
    own, above = _of_length(value, 2)
    try:
        return parse_acl(text(own, 2**20)).under(parse_acl(text(above, 2**20)))
    except BadAcl as error:
        raise BadFrame(f"no ACL: {error}") from error


# Errors.


def pack_error(error: StoreError) -> Header:
    """The error, by the closest kind that the other side knows."""
    kind = next((each.__name__ for each in type(error).__mro__ if each.__name__ in _ERRORS), "StoreFailure")
    return {"error": kind, "text": str(error)[:_LONGEST_TEXT]}


def unpack_error(header: Header) -> StoreError:
    """The inverse."""
    make: Callable[[str], StoreError] = _ERRORS.get(text(header.get("error")), StoreFailure)
    return make(text(header.get("text")))
