r"""A mailbox behind its ACL: every path to its messages goes through the rights of one user.

It stands in front of the mailbox that all its users share. What may be read at any time (`messages`,
`uids` and so on) looks at the rights as they were known last, which a change by this process
brings up to date at once; blocking methods look at the ACL itself. RFC 4314 §4.

Where a flag may not be changed: STORE changes those that may be (AccessDenied where none may), APPEND
and COPY leave the others out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from mailserver.store.acl import FLAG_RIGHTS, Rights
from mailserver.store.contract import (
    DELETED,
    SEEN,
    AccessDenied,
    AccessRevoked,
    Flags,
    FlagsChanged,
    Mailbox,
    Modseq,
    NewMessage,
    Reader,
    Sleeping,
    StoreMode,
    Target,
    Uid,
)
from mailserver.store.mailbox_view import MailboxView

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


class GuardedMailbox(MailboxView):
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
        super().__init__(inner)
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

    def _at_hand(self) -> Mailbox:
        """The mailbox, where its user may read it as far as is known."""
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

    def _now(self) -> Mailbox:
        """The mailbox, where the ACL lets its user read it now."""
        self.check_rights()
        return self._at_hand()

    def as_target(self) -> Target:
        """See `Mailbox.as_target`."""
        target = self._allowed("i").as_target()
        rights = self._rights
        return replace(target, keep=lambda flags: permitted(target.keep(flags), rights))

    def seen_by(self, reader: Reader) -> Mailbox:
        """See `Mailbox.seen_by`: it is its user's already."""
        return self

    # Reading.

    @property
    def name(self) -> str:  # type: ignore[override]
        """See `Mailbox`."""
        return self._local_name(self._inner.name)

    @property
    def sleeping(self) -> Sleeping | None:  # type: ignore[override]
        """See `Mailbox`."""
        return self._at_hand().sleeping

    def is_current(self) -> bool:
        """See `Mailbox.is_current`: the ACL has to be looked at."""
        return False

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
        inner = self._now()
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
        return self._now().copy(uids, target)

    def move(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.move`. RFC 6851 §3.2: what STORE, EXPUNGE and COPY take."""
        return self._allowed("rte").move(uids, target)
