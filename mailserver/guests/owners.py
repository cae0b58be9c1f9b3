"""Other users' mailboxes, as this user may use them: a connection to each owner's host, made when needed.

An owner whose host cannot be reached, or does not answer, is left alone for a while: a LIST does not wait for
him again and again.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from mailserver.guests.connection import SHORT_PATIENCE, Connection, lost
from mailserver.guests.frames import BadFrame
from mailserver.guests.mailbox import GuestMailbox
from mailserver.guests.values import (
    mapping,
    number,
    text,
    truth,
    unpack_acl,
    unpack_folders,
    unpack_rights,
    unpack_status,
)
from mailserver.store.acl import Acl, BadAcl, Rights, parse_acl, render_acl
from mailserver.store.contract import (
    Folder,
    MailboxBusy,
    MailboxStatus,
    NoSuchMailbox,
    StoreError,
)

_LONGEST_ACL: Final = 256 * 1024
_PAUSE: Final = 60.0  # seconds in which an owner who could not be reached is left alone
_TRIES: Final = 5  # to change an ACL that others change too
# A stream to the owner's session host. Raises NoSuchMailbox where that owner shares nothing, StoreFailure.
Visit = Callable[[str], socket.socket]


class OwnersMailboxes:
    """The mailboxes of one owner. All methods are *blocking*, and raise what `AccountStore`'s do."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self.connection = connection
        self._prefix = prefix

    def _ask(
        self, op: str, pieces: Sequence[bytes] = (), patience: float | None = None, **arguments: object
    ) -> Any:
        return self.connection.ask(op, arguments, pieces, patience=patience)[0]

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except BadFrame as error:
            self.connection.close()
            raise lost() from error

    def folders(self) -> Sequence[Folder]:
        """Those that may be looked up, and levels above them."""
        found = self._ask("folders", patience=SHORT_PATIENCE)
        with self._checked():
            return [*unpack_folders(found, self._prefix)]

    def exists(self, name: str) -> bool:
        """See `AccountStore.exists`."""
        found = self._ask("exists", name=name)
        with self._checked():
            return truth(found)

    def open(self, name: str, is_selected: bool) -> GuestMailbox:
        """The mailbox, until its `leave`."""
        mailbox = GuestMailbox(self.connection, self._prefix, is_selected)
        op = "open" if is_selected else "borrow"
        done, _ = self.connection.ask(op, {"name": name}, hearer=mailbox)
        with self._checked():
            mailbox.handle = number(done, least=1)
            if not mailbox.name:
                raise BadFrame("nothing is known of the mailbox")
        self.connection.attach(mailbox.handle, mailbox)
        return mailbox

    def status(self, name: str, with_size: bool) -> MailboxStatus:
        """See `AccountStore.status`."""
        found = self._ask("status", name=name, with_size=with_size)
        with self._checked():
            return unpack_status(found)

    def create(self, name: str, special_use: bytes) -> None:
        """See `AccountStore.create`."""
        self._ask("create", name=name, has_use=bool(special_use))

    def delete(self, name: str) -> None:
        """See `AccountStore.delete`."""
        self._ask("delete", name=name)

    def rename(self, old: str, new: str) -> None:
        """See `AccountStore.rename`."""
        self._ask("rename", old=old, new=new)

    def annotations(self, name: str) -> Mapping[str, bytes]:
        """See `AccountStore.annotations`."""
        found = self._ask("annotations", name=name)
        with self._checked():
            try:
                return {
                    entry: text(value, 2**20).encode("latin-1")
                    for entry, value in mapping(found).items()
                    if entry.isascii() and entry.isprintable() and not set(entry) & set(' "\\(){%*')
                }
            except UnicodeEncodeError as error:
                raise BadFrame("no octets") from error

    def annotate(self, name: str, values: Mapping[str, bytes | None]) -> None:
        """See `AccountStore.annotate`."""
        pieces = [value or b"" for value in values.values()]
        removed = [value is None for value in values.values()]
        self._ask("annotate", pieces, name=name, entries=[*values], removed=removed)

    def my_rights(self, name: str) -> Rights:
        """See `AccountStore.my_rights`."""
        found = self._ask("my_rights", name=name)
        with self._checked():
            return unpack_rights(found)

    def acl(self, name: str) -> Acl:
        """See `AccountStore.acl`."""
        found = self._ask("acl", name=name)
        with self._checked():
            return unpack_acl(found)

    def change_acl(self, name: str, change: Callable[[Acl], Acl]) -> None:
        """See `AccountStore.change_acl`."""
        for _ in range(_TRIES):
            before = self._ask("stored_acl", name=name)
            with self._checked():
                try:
                    acl = parse_acl(text(before, _LONGEST_ACL))
                except BadAcl as error:
                    raise BadFrame("no ACL") from error
            is_done = self._ask("set_acl", name=name, before=before, after=render_acl(change(acl)))
            if is_done is True:
                return
        raise MailboxBusy("Others are changing the ACL: try again")


class Owners:
    """All owners, each with a connection while it is used. Safe in threads."""

    def __init__(self, visit: Visit, prefix_of: Callable[[str], str]) -> None:
        self._visit = visit
        self._prefix_of = prefix_of
        self._guard = threading.Lock()
        self._known: dict[str, OwnersMailboxes] = {}
        self._idle: set[str] = set()  # as of the last `sweep`
        self._away: dict[str, float] = {}  # until when
        self._opening: dict[str, threading.Lock] = {}

    def of(self, owner: str) -> OwnersMailboxes:
        """The owner's mailboxes. *Blocking.* Raises NoSuchMailbox where nothing is shared, StoreFailure."""
        with self._guard:
            opening = self._opening.setdefault(owner, threading.Lock())
        with opening:
            found = self._at_hand(owner)
            if found is None:
                found = OwnersMailboxes(Connection(self._stream(owner)), self._prefix_of(owner))
                with self._guard:
                    self._known[owner] = found
            return found

    def _at_hand(self, owner: str) -> OwnersMailboxes | None:
        with self._guard:
            self._idle.discard(owner)
            found = self._known.get(owner)
            if found is not None and found.connection.is_open:
                return found
            if time.monotonic() < self._away.get(owner, 0.0):
                raise lost()
        return None

    def _stream(self, owner: str) -> socket.socket:
        try:
            return self._visit(owner)
        except NoSuchMailbox:
            with self._guard:  # there may be no such owner: nothing of the name is kept
                self._opening.pop(owner, None)
            raise
        except StoreError:
            self.leave_alone(owner)
            raise

    def leave_alone(self, owner: str) -> None:
        """He could not be reached: nobody tries for a while."""
        with self._guard:
            self._away = {name: until for name, until in self._away.items() if until > time.monotonic()}
            self._away[owner] = time.monotonic() + _PAUSE

    def sweep(self) -> None:
        """Connections that nobody used since the last time are closed, so that the owners' hosts may end."""
        with self._guard:
            known = {owner: each for owner, each in self._known.items() if each.connection.is_open}
            idle = {owner for owner, each in known.items() if each.connection.is_idle}
            over = [known.pop(owner) for owner in idle & self._idle]
            self._known, self._idle = known, idle - self._idle
        for each in over:
            each.connection.close()

    def shut(self) -> None:
        """All connections are closed."""
        with self._guard:
            known, self._known = self._known, {}
        for each in known.values():
            each.connection.close()
