"""A mailbox as one of its users sees it: the answers of another mailbox, but where the view has its own.

Whatever changes the mailbox is left to the views: none of them lets a change through that it did not
think of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mailserver.store.contract import Changes, Mailbox, Message, Modseq, Uid


class MailboxView(Mailbox):
    """See the module.

    A view that has something to settle before the other mailbox is asked does it in `_at_hand`, where the
    question may be asked at any time, and in `_now`, where it blocks.
    """

    def __init__(self, inner: Mailbox) -> None:
        self._inner = inner

    def _at_hand(self) -> Mailbox:
        """Whom to ask for what is in memory. Does not block."""
        return self._inner

    def _now(self) -> Mailbox:
        """Whom to ask for what is read. *Blocking.*"""
        return self._inner

    # What may be known of a mailbox by whoever has it open.

    @property
    def name(self) -> str:  # type: ignore[override]
        """See `Mailbox`."""
        return self._inner.name

    @property
    def uidvalidity(self) -> int:  # type: ignore[override]
        """See `Mailbox`."""
        return self._inner.uidvalidity

    @property
    def mailbox_id(self) -> str:  # type: ignore[override]
        """See `Mailbox`."""
        return self._inner.mailbox_id

    def subscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.subscribe`: a bare hint says nothing."""
        self._inner.subscribe(listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """See `Mailbox.unsubscribe`."""
        self._inner.unsubscribe(listener)

    # What may be read at any time.

    @property
    def uidnext(self) -> Uid:  # type: ignore[override]
        """See `Mailbox`."""
        return self._at_hand().uidnext

    @property
    def highest_modseq(self) -> Modseq:  # type: ignore[override]
        """See `Mailbox`."""
        return self._at_hand().highest_modseq

    @property
    def messages(self) -> Mapping[Uid, Message]:  # type: ignore[override]
        """See `Mailbox`."""
        return self._at_hand().messages

    @property
    def uids(self) -> Sequence[Uid]:  # type: ignore[override]
        """See `Mailbox`."""
        return self._at_hand().uids

    @property
    def keywords(self) -> Sequence[bytes]:  # type: ignore[override]
        """See `Mailbox`."""
        return self._at_hand().keywords

    def wake(self) -> None:
        """See `Mailbox.wake`."""
        self._at_hand().wake()

    def changes_since(self, modseq: Modseq) -> Changes:
        """See `Mailbox.changes_since`."""
        return self._at_hand().changes_since(modseq)

    def expunged_message(self, uid: Uid) -> Message | None:
        """See `Mailbox.expunged_message`."""
        return self._at_hand().expunged_message(uid)

    def is_current(self) -> bool:
        """See `Mailbox.is_current`."""
        return self._at_hand().is_current()

    def peek_recent(self) -> Uid:
        """See `Mailbox.peek_recent`."""
        return self._at_hand().peek_recent()

    # Reading.

    def refresh(self) -> bool:
        """See `Mailbox.refresh`."""
        return self._now().refresh()

    def claim_recent(self) -> range:
        """See `Mailbox.claim_recent`."""
        return self._now().claim_recent()

    def read(self, uid: Uid) -> bytes:
        """See `Mailbox.read`."""
        return self._now().read(uid)

    def read_batch(self, uids: Sequence[Uid], most: int) -> tuple[int, Mapping[Uid, bytes]]:
        """See `Mailbox.read_batch`."""
        return self._now().read_batch(uids, most)

    def sizes(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """See `Mailbox.sizes`."""
        return self._now().sizes(uids)

    def save_dates(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """See `Mailbox.save_dates`."""
        return self._now().save_dates(uids)

    def file_names(self, uids: Sequence[Uid]) -> Mapping[Uid, str]:
        """See `Mailbox.file_names`."""
        return self._now().file_names(uids)

    def facts(
        self, uids: Sequence[Uid], make: Callable[[bytes], bytes], kind: str, of_header: bool = False
    ) -> Mapping[Uid, bytes]:
        """See `Mailbox.facts`."""
        return self._now().facts(uids, make, kind, of_header)

    def known_facts(self, uids: Sequence[Uid], kind: str) -> Mapping[Uid, bytes]:
        """See `Mailbox.known_facts`."""
        return self._now().known_facts(uids, kind)

    def search_text(
        self, uids: Sequence[Uid], needle: str, with_header: bool
    ) -> tuple[Sequence[Uid], Sequence[Uid]]:
        """See `Mailbox.search_text`."""
        return self._now().search_text(uids, needle, with_header)

    def may_hold(
        self, uids: Sequence[Uid], pieces: Sequence[Sequence[str]], with_header: bool
    ) -> Sequence[Uid]:
        """See `Mailbox.may_hold`."""
        return self._now().may_hold(uids, pieces, with_header)

    def texts(self, uids: Sequence[Uid]) -> Mapping[Uid, tuple[str, str]]:
        """See `Mailbox.texts`."""
        return self._now().texts(uids)
