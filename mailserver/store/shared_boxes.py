"""Who shares something with whom: an index, so that LIST need not look at every account.

The file is Dovecot's `acl_shared_dict`, its keys and values line by line:

    shared/shared-boxes/user/alice/bob          bob shares something with alice
    1
    shared/shared-boxes/group/staff/bob         with the group staff
    1
    shared/shared-boxes/anyone/bob              with everybody
    1

It only says where to look; the ACLs decide. An entry too many costs a look, one too few hides a
mailbox from LIST until its owner changes an ACL, or `mailserver acl recalc` makes the index anew.

With system accounts each has an index of its own in its state directory, which says whom it shares with
(`guests.sharers`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from mailserver.store.acl import RIGHTS, Acl, Identifier, Kind, Person
from mailserver.store.contract import MailboxBusy, StoreFailure
from mailserver.store.locked_file import LockHeld, update_under_lock
from mailserver.store.uidlist import read_small_file

OWN_INDEX: Final = "shared-mailboxes"  # in the state directory of an account that has one of its own
_PREFIX: Final = "shared/shared-boxes/"
_LARGEST: Final = 64 * 1024 * 1024
_Entry = tuple[str, str]  # "user/alice", "group/staff" or "anyone"; the owner


class SharedBoxes:
    """The index at `path`; the file need not exist. Methods block.

    It has who may look up a mailbox; `of_any_right`: also who may do anything else with one, say post to it.
    """

    def __init__(self, path: str, of_any_right: bool = False) -> None:
        self._path = path
        self._needed = RIGHTS if of_any_right else "l"
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._owners: dict[str, set[str]] = {}

    def owners_for(self, person: Person) -> Collection[str]:
        """The accounts that may share something with that one, sorted."""
        with self._lock:
            self._refresh()
            found = set[str]().union(*(self._owners.get(key, ()) for key in keys_of(person)))
        return sorted(found - {person.name})

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            self._owners, self._stamp = {}, None
            return
        except OSError as error:
            raise StoreFailure("The list of shared mailboxes cannot be read") from error
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == self._stamp:
            return
        try:
            entries = parse_index(read_small_file(self._path, _LARGEST))
        except OSError as error:
            raise StoreFailure("The list of shared mailboxes cannot be read") from error
        owners: dict[str, set[str]] = {}
        for key, owner in entries:
            owners.setdefault(key, set()).add(owner)
        self._owners, self._stamp = owners, stamp

    def set(self, owner: str, acls: Iterable[Acl]) -> None:
        """The index says of the owner what these ACLs, of all that account's mailboxes, say. Durable."""
        wanted = {(key, owner) for acl in acls for key in self._keys(acl)}

        def change(content: bytes) -> bytes:
            others = [entry for entry in parse_index(content) if entry[1] != owner]
            return _render([*others, *sorted(wanted)])

        with self._lock:
            try:
                known = parse_index(read_small_file(self._path, _LARGEST))
                if {entry for entry in known if entry[1] == owner} != wanted:
                    os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                    update_under_lock(self._path, change)
            except LockHeld as error:
                raise MailboxBusy("Another program is changing the list of shared mailboxes") from error
            except OSError as error:
                raise StoreFailure("The list of shared mailboxes cannot be written") from error

    def _keys(self, acl: Acl) -> Iterator[str]:
        for identifier, rights in acl.granted.items():
            if not rights.isdisjoint(self._needed) and identifier.kind is not Kind.OWNER:
                yield _key(identifier)


def keys_of(person: Person) -> list[str]:
    """The keys of entries that concern the person."""
    keys = ["anyone", f"user/{_escaped(person.name)}"]
    return keys + [f"group/{_escaped(group)}" for group in person.groups]


def _key(identifier: Identifier) -> str:
    if identifier.kind is Kind.USER:
        return f"user/{_escaped(identifier.name)}"
    if identifier.kind in (Kind.GROUP, Kind.GROUP_OVERRIDE):
        return f"group/{_escaped(identifier.name)}"
    return "anyone"


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("/", "\\|")


def parse_index(content: bytes) -> list[_Entry]:
    """The entries of an index: a key and an owner each."""
    lines = content.decode("utf-8", "replace").split("\n")
    entries = []
    for line in lines[::2]:
        if line.startswith(_PREFIX):
            key, _, owner = line[len(_PREFIX) :].rpartition("/")
            entries.append((key, owner))
    return entries


def _render(entries: Iterable[_Entry]) -> bytes:
    return "".join(f"{_PREFIX}{key}/{owner}\n1\n" for key, owner in entries).encode("utf-8")
