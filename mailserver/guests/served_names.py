"""What a guest may ask about mailboxes by name. Each request is checked, and the gate decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mailserver.guests.frames import BadFrame, Header
from mailserver.guests.values import (
    listed,
    mailbox_name,
    pack_acl,
    pack_folder,
    pack_status,
    text,
    truth,
)
from mailserver.store.acl import ANYONE, AUTHENTICATED, Acl, BadAcl, parse_acl, render_acl, render_rights
from mailserver.store.contract import AccessDenied, AccountStore

MOST_ENTRIES: Final = 1000  # of an ACL
_LARGEST_ACL: Final = 256 * 1024  # characters
_MOST_VALUES: Final = 100
_LARGEST_VALUE: Final = 16_384  # octets
_ENTRY: Final = re.compile(r"/(?:private|shared)/[\x21-\x24\x26-\x29\x2b-\x7e]{1,255}")


class _Seen(Exception):
    """The ACL was looked at, and is not to be changed."""


@dataclass(frozen=True, slots=True)
class Named:
    """The owner's mailboxes as a guest may use them; see `GuestService`."""

    store: AccountStore
    prefix: str
    may_name_all: bool

    def name(self, header: Header, key: str = "name") -> str:
        """The mailbox that the request is about."""
        return mailbox_name(header.get(key), self.prefix)


def _folders(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    return [pack_folder(each) for each in names.store.folders() if each.name.startswith(names.prefix)]


def _exists(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    return names.store.exists(names.name(header))


def _status(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    return pack_status(names.store.status(names.name(header), truth(header.get("with_size"))))


def _create(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    names.store.create(names.name(header), b"\\All" if truth(header.get("has_use")) else b"")
    return True


def _delete(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    names.store.delete(names.name(header))
    return True


def _rename(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    names.store.rename(names.name(header, "old"), names.name(header, "new"))
    return True


def _annotations(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    found = names.store.annotations(names.name(header))
    return {entry: value.decode("latin-1") for entry, value in found.items()}


def _annotate(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    entries = [text(each, 300) for each in listed(header.get("entries"), _MOST_VALUES)]
    removed = [truth(each) for each in listed(header.get("removed"), _MOST_VALUES)]
    if not len(entries) == len(removed) == len(pieces):
        raise BadFrame("not a value for each entry")
    if any(len(piece) > _LARGEST_VALUE for piece in pieces) or not all(map(_ENTRY.fullmatch, entries)):
        raise BadFrame("no such annotation")
    values = {
        entry: None if is_gone else piece
        for entry, is_gone, piece in zip(entries, removed, pieces, strict=True)
    }
    name = names.name(header)
    if len({*names.store.annotations(name), *values}) > _MOST_VALUES:
        raise AccessDenied("There are too many annotations")
    names.store.annotate(name, values)
    return True


def _my_rights(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    return render_rights(names.store.my_rights(names.name(header)))


def _acl(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    return pack_acl(names.store.acl(names.name(header)))


def _stored_acl(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    """The ACL as it is stored, for who may change it."""
    found: list[str] = []

    def look(acl: Acl) -> Acl:
        found.append(render_acl(acl))
        raise _Seen

    try:
        names.store.change_acl(names.name(header), look)
    except _Seen:
        pass
    return found[0]


def _set_acl(names: Named, header: Header, pieces: Sequence[bytes]) -> object:
    """Whether the ACL is what was asked for; not where it is no longer what the guest saw."""
    before = text(header.get("before"), _LARGEST_ACL)
    try:
        after = parse_acl(text(header.get("after"), _LARGEST_ACL))
    except BadAcl as error:
        raise BadFrame(f"no ACL: {error}") from error
    is_as_seen = True

    def change(acl: Acl) -> Acl:
        nonlocal is_as_seen
        is_as_seen = render_acl(acl) == before
        if not is_as_seen:
            raise _Seen
        _check_change(acl, after, names.may_name_all)
        return after

    try:
        names.store.change_acl(names.name(header), change)
    except _Seen:
        pass
    return is_as_seen


def _check_change(before: Acl, after: Acl, may_name_all: bool) -> None:
    """Raises AccessDenied for what no client may do."""
    if len(after.granted) + len(after.withheld) > MOST_ENTRIES:
        raise AccessDenied("There are too many entries")
    for everybody in (ANYONE, AUTHENTICATED):
        if not may_name_all and not after.granted.get(everybody, frozenset()) <= before.granted.get(
            everybody, frozenset()
        ):
            raise AccessDenied("Rights for everybody are the administrator's to give (acl_anyone)")
    if any(not str(each).isprintable() for each in (*after.granted, *after.withheld)):
        raise BadFrame("no identifier")


Answer = Callable[[Named, Header, Sequence[bytes]], Any]
NAMED: Final[Mapping[str, Answer]] = {
    "folders": _folders,
    "exists": _exists,
    "status": _status,
    "create": _create,
    "delete": _delete,
    "rename": _rename,
    "annotations": _annotations,
    "annotate": _annotate,
    "my_rights": _my_rights,
    "acl": _acl,
    "stored_acl": _stored_acl,
    "set_acl": _set_acl,
}
