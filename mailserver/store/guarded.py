r"""A mailbox behind its ACL: every path to its messages goes through the rights of one user.

It stands in front of the mailbox that all its users share. What may be read at any time (`messages`,
`uids` and so on) looks at the rights as they were known last, which a change by this process
brings up to date at once; blocking methods look at the ACL itself. RFC 4314 §4.

Where a flag may not be changed: STORE changes those that may be (AccessDenied where none may), APPEND
and COPY leave the others out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from mailserver.store.acl import FLAG_RIGHTS, Rights
from mailserver.store.contract import (
    DELETED,
    SEEN,
    AccessDenied,
    AccessRevoked,
    Changes,
    Flags,
    FlagsChanged,
    Mailbox,
    Message,
    Modseq,
    NewMessage,
    Reader,
    Sleeping,
    StoreMode,
    Target,
    Uid,
)

_FLAG_RIGHTS: Final = {SEEN: "s", DELETED: "t"}


def right_of(flag: bytes) -> str:
    r"""The right that changing the flag takes: `s` for \Seen, `t` for \Deleted, else `w`."""
    return _FLAG_RIGHTS.get(flag, "w")


def permitted(flags: Flags, rights: Flags | Rights) -> Flags:
    """Those of the flags that somebody with these rights may change."""
    return frozenset(flag for flag in flags if right_of(flag) in rights)


def denied() -> AccessDenied:
    """The same for whatever is denied."""
    return AccessDenied("Permission denied")


class GuardedMailbox(Mailbox):
    """See the module.

    `look` gives the rights as the ACL says them now (it blocks); `generation` is a number
    that differs after every change that this process made. `name` is the user's name for the mailbox.
    """

    is_guarded = True

    def __init__(
        self,
        inner: Mailbox,
        local_name: Callable[[str], str],
        look: Callable[[], Rights],
        generation: Callable[[], int],
        leave: Callable[[], None],
    ) -> None:
        self._inner = inner
        self._local_name = local_name
        self._look = look
        self._generation = generation
        self._known_at = generation()
        self._rights = look()
        self._was_readable = "r" in self._rights
        self.leave = leave

    # Rights.

    @property
    def rights(self) -> Rights:  # type: ignore[override]
        """See `Mailbox.rights`."""
        if self._generation() != self._known_at:
            self.check_rights()
        return self._rights

    def check_rights(self) -> None:
        """See `Mailbox.check_rights`."""
        self._known_at = self._generation()
        self._rights = self._look()
        self._was_readable = self._was_readable or "r" in self._rights

    def _readable(self) -> Mailbox:
        if "r" not in self.rights:
            if self._was_readable:
                raise AccessRevoked("Permission to read the mailbox was taken back")
            raise denied()
        return self._inner

    def _allowed(self, needed: str) -> Mailbox:
        """The mailbox, where the ACL grants all of these rights now. Blocks."""
        self.check_rights()
        if not set(needed) <= self._rights:
            raise denied()
        return self._inner

    def _read_now(self) -> Mailbox:
        self.check_rights()
        return self._readable()

    def as_target(self) -> Target:
        """See `Mailbox.as_target`."""
        target = self._allowed("i").as_target()
        rights = self._rights
        return replace(target, keep=lambda flags: permitted(target.keep(flags), rights))

    def seen_by(self, reader: Reader) -> Mailbox:
        """See `Mailbox.seen_by`: it is its user's already."""
        return self

    # What may be read at any time.

    @property
    def name(self) -> str:  # type: ignore[override]
        """See `Mailbox`."""
        return self._local_name(self._inner.name)

    @property
    def uidvalidity(self) -> int:  # type: ignore[override]
        """See `Mailbox`."""
        return self._inner.uidvalidity

    @property
    def mailbox_id(self) -> str:  # type: ignore[override]
        """See `Mailbox`."""
        return self._inner.mailbox_id

    @property
    def uidnext(self) -> Uid:  # type: ignore[override]
        """See `Mailbox`."""
        return self._readable().uidnext

    @property
    def highest_modseq(self) -> Modseq:  # type: ignore[override]
        """See `Mailbox`."""
        return self._readable().highest_modseq

    @property
    def messages(self) -> Mapping[Uid, Message]:  # type: ignore[override]
        """See `Mailbox`."""
        return self._readable().messages

    @property
    def sleeping(self) -> Sleeping | None:  # type: ignore[override]
        """See `Mailbox`."""
        return self._readable().sleeping

    def wake(self) -> None:
        """See `Mailbox.wake`."""
        self._readable().wake()

    @property
    def uids(self) -> Sequence[Uid]:  # type: ignore[override]
        """See `Mailbox`."""
        return self._readable().uids

    @property
    def keywords(self) -> Sequence[bytes]:  # type: ignore[override]
        """See `Mailbox`."""
        return self._readable().keywords

    def subscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.subscribe`: a bare hint says nothing."""
        self._inner.subscribe(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.unsubscribe`."""
        self._inner.unsubscribe(listener)

    def changes_since(self, modseq: Modseq) -> Changes:
        """See `Mailbox.changes_since`."""
        return self._readable().changes_since(modseq)

    # Reading.

    def refresh(self) -> bool:
        """See `Mailbox.refresh`."""
        return self._read_now().refresh()

    def is_current(self) -> bool:
        """See `Mailbox.is_current`: the ACL has to be looked at."""
        return False

    def claim_recent(self) -> range:
        """See `Mailbox.claim_recent`."""
        return self._read_now().claim_recent()

    def peek_recent(self) -> Uid:
        """See `Mailbox.peek_recent`."""
        return self._readable().peek_recent()

    def read(self, uid: Uid) -> bytes:
        """See `Mailbox.read`."""
        return self._read_now().read(uid)

    def read_batch(self, uids: Sequence[Uid], most: int) -> tuple[int, Mapping[Uid, bytes]]:
        """See `Mailbox.read_batch`."""
        return self._read_now().read_batch(uids, most)

    def sizes(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """See `Mailbox.sizes`."""
        return self._read_now().sizes(uids)

    def expunged_message(self, uid: Uid) -> Message | None:
        """See `Mailbox.expunged_message`."""
        return self._readable().expunged_message(uid)

    def save_dates(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """See `Mailbox.save_dates`."""
        return self._read_now().save_dates(uids)

    def known_facts(self, uids: Sequence[Uid], kind: str) -> Mapping[Uid, bytes]:
        """See `Mailbox.known_facts`."""
        return self._read_now().known_facts(uids, kind)

    def file_names(self, uids: Sequence[Uid]) -> Mapping[Uid, str]:
        """See `Mailbox.file_names`."""
        return self._read_now().file_names(uids)

    def facts(self, uids: Sequence[Uid], make: Callable[[bytes], bytes], kind: str) -> Mapping[Uid, bytes]:
        """See `Mailbox.facts`."""
        return self._read_now().facts(uids, make, kind)

    def search_text(
        self, uids: Sequence[Uid], needle: str, with_header: bool
    ) -> tuple[Sequence[Uid], Sequence[Uid]]:
        """See `Mailbox.search_text`."""
        return self._read_now().search_text(uids, needle, with_header)

    def may_hold(
        self, uids: Sequence[Uid], pieces: Sequence[Sequence[str]], with_header: bool
    ) -> Sequence[Uid]:
        """See `Mailbox.may_hold`."""
        return self._read_now().may_hold(uids, pieces, with_header)

    def texts(self, uids: Sequence[Uid]) -> Mapping[Uid, tuple[str, str]]:
        """See `Mailbox.texts`."""
        return self._read_now().texts(uids)

    # Writing.

    def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        """See `Mailbox.append`."""
        inner, rights = self._allowed("i"), self._rights
        return inner.append([replace(each, flags=permitted(each.flags, rights)) for each in messages])

    def change_flags(
        self,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None = None,
    ) -> FlagsChanged:
        """See `Mailbox.change_flags`, and the module."""
        inner = self._read_now()
        rights = self._rights
        mine = permitted(flags, rights)
        if not rights & FLAG_RIGHTS or (flags and not mine):
            raise denied()
        if mode is not StoreMode.REPLACE or rights >= FLAG_RIGHTS:
            return inner.change_flags(uids, mine, mode, unchanged_since)
        done = inner.change_flags(uids, mine, StoreMode.ADD, unchanged_since)
        refused = set(done.modified)
        there = [message for uid in uids if uid not in refused and (message := inner.messages.get(uid))]
        others = frozenset[bytes]().union(*(message.flags for message in there)) - mine
        removed = inner.change_flags(
            [message.uid for message in there], permitted(others, rights), StoreMode.REMOVE
        )
        return FlagsChanged(sorted({*done.changed, *removed.changed}), done.modified)

    def expunge(self, uids: Sequence[Uid] | None = None) -> Sequence[Uid]:
        """See `Mailbox.expunge`."""
        return self._allowed("re").expunge(uids)

    def remove(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        """See `Mailbox.remove`."""
        return self._allowed("rte").remove(uids)

    def copy(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.copy`."""
        return self._read_now().copy(uids, target)

    def move(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.move`. RFC 6851 §3.2: what STORE, EXPUNGE and COPY take."""
        return self._allowed("rte").move(uids, target)
