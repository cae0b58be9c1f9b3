"""The index of a mailbox: how it is opened, asleep or awake, and how it learns what others did.

Who opens it first numbers it, as another server did or anew; later it is as state.db has it, if that can be
true. A mailbox that nobody touched since it was settled is opened without its messages (`sleep`). The changes
themselves are `mailbox_changes`'.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mailserver.store.contract import (
    Changes,
    MailboxStatus,
    Modseq,
    Sleeping,
    StoreFailure,
    Uid,
)
from mailserver.store.format import Adopted, Delta, Found
from mailserver.store.mailbox_changes import Change, MailboxChanges
from mailserver.store.sleep import may_sleep, sleeping, with_checksum
from mailserver.store.state import (
    Figures,
    MailboxRow,
    MessageTuple,
)


class MailboxIndex(MailboxChanges):
    """The half of `Mailbox` that knows: what is there, what others changed, who listens."""

    # Opening.

    def _open(self) -> None:
        row = self._state.mailbox(self.name)
        if row is None:
            self._first_contact()
            return
        figures = self._state.figures(self.name)
        if figures is not None and may_sleep(row, figures, self._format, self._state):
            self._fall_asleep(row, figures)
            return
        rows = self._load(row)
        if self._contradicts_itself():  # unless another process wrote meanwhile
            with self._state.transaction():
                self._empty()
                row = self._state.mailbox(self.name) or row
                rows = self._load(row)
                is_damaged = self._contradicts_itself()
            if is_damaged:
                self._start_again("its state contradicts itself", may_adopt=False)
                return
        self._log_floor = self.highest_modseq
        count, _, token = row.token.partition("|")
        is_whole = count == str(len(rows))  # else rows are missing: look again
        self._format.load(self._known(), token if is_whole else "")
        mark = self._format.foreign_mark()
        if mark and mark != self._state.foreign_mark(self._id):
            self._take_over(mark)
        self.refresh()

    # Asleep.

    def _fall_asleep(self, row: MailboxRow, figures: Figures) -> None:
        """The mailbox is open without its messages."""
        self._take_row(row)
        self._spell_from(self._state.keywords(row.id))
        self._state_version = self._state.version()
        self.sleeping = sleeping(row.uidnext, figures)

    def _is_undisturbed(self) -> bool:
        """Whether the format lies as it did when the mailbox fell asleep: a stat or two."""
        return self._format.is_at(self._kept_token.partition("|")[2])

    def wake(self) -> None:
        """See `Mailbox.wake`. Raises MailboxReplaced where what was told of it was wrong."""
        if self.sleeping is not None:
            with self._working():
                pass

    def _wake(self, asleep: Sleeping) -> None:
        """The messages are in memory, as state.db has them now; what was told meanwhile holds."""
        with self._state.transaction():  # other processes wait
            row = self._state.mailbox_by_id(self._id)
            if row is None or row.uidvalidity != self.uidvalidity:
                self._vanish()
            self._empty()
            self._log_floor = row.modseq  # before that modseq can be seen
            self._load(row)
            is_sound = not self._contradicts_itself()
            gone = self._state.expunged(self._id, asleep.modseq)
        then = array("I", self._uids)
        if self.highest_modseq != asleep.modseq:  # another process was here
            then = array("I", sorted({uid for uid in (*self._uids, *gone) if uid < asleep.uidnext}))
        if not is_sound or len(then) != asleep.messages:
            self._warn(f"mailbox {self.name}: its messages are not those that were counted")
            with self._state.transaction():
                self._state.forget_figures(self._id)  # whoever opens it next looks at all of it
            self._vanish()
        self._format.load(self._known(), row.token.partition("|")[2])
        asleep.uids = then
        self.sleeping = None
        if self.highest_modseq != asleep.modseq:
            self._tell()

    def _load(self, row: MailboxRow) -> Sequence[MessageTuple]:
        """What state.db knows of the mailbox is in memory; its messages."""
        self._take_row(row)
        self._spell_from(self._state.keywords(row.id))
        self._state_version = self._state.version()
        rows = self._state.messages(row.id)
        self._show(rows)
        return rows

    def _contradicts_itself(self) -> bool:
        seal = self._state.seal(self._id)
        if seal is not None and seal != self._seal(self.uidnext, self.highest_modseq, self._uid_sum):
            return True
        uids = self._uids
        return bool(uids) and (uids[-1] >= self.uidnext or len(self._uid_of) != len(uids))

    def _first_contact(self) -> None:
        """A mailbox that we never saw: number it as another server did, or anew. One transaction."""
        self._format.load([], "")
        mark = self._format.foreign_mark()
        adopted = self._format.adopted()
        delta = self._format.poll() or Delta()
        with self._state.transaction():
            is_adopted = self._state.may_adopt(self.name, adopted.uidvalidity)
            if not is_adopted:
                adopted = Adopted(keywords=adopted.keywords)
            validity = self._state.next_uidvalidity(adopted.uidvalidity)
            self._take_row(self._state.create_mailbox(self.name, validity, max(adopted.uidnext, 1)))
            self._spell_from([])
            self._keep_keywords(adopted.keywords)
            change = self._absorbing(delta)
            if is_adopted:
                change.uids = list(_adopted_uids(delta.added))
                if change.uids:
                    self.uidnext = Uid(max(self.uidnext, change.uids[-1] + 1))
            self._write(change)
            self._state.set_foreign_mark(self._id, mark)
        self._log_floor = self.highest_modseq
        self._state_version = self._state.version()
        self._remember(change)

    def _take_over(self, mark: str) -> None:
        """Another server has given UIDs since we last looked: they are ours too, unless they contradict.

        With our UIDVALIDITY each message must have one UID in both minds; a new message's must be one
        that we never gave. Otherwise some client saw that UID on other content, and UIDVALIDITY rises.
        A higher UIDVALIDITY of theirs is adopted as at first contact. A lower one is old.
        """
        adopted = self._format.adopted()
        if adopted.uidvalidity < self.uidvalidity:
            with self._state.transaction():
                self._state.set_foreign_mark(self._id, mark)
            return
        theirs = self._format.foreign_uids()
        delta = self._format.poll() or Delta()
        numbered = {found.key: theirs[found.key] for found in delta.added if found.key in theirs}
        if adopted.uidvalidity > self.uidvalidity:
            self._start_again("another server gave it new UIDs")
        elif any(self._uid_of.get(key, uid) != uid for key, uid in theirs.items()) or any(
            uid < self.uidnext for uid in numbered.values()
        ):
            self._start_again("another server gave it other UIDs")
        else:
            added = sorted(delta.added, key=lambda found: numbered.get(found.key, 2**32))
            self._note_places(delta)
            self._change(partial(self._taking_over, replace(delta, added=added), numbered, adopted, mark))

    def _taking_over(self, delta: Delta, uids: Mapping[str, int], adopted: Adopted, mark: str) -> Change:
        self.uidnext = Uid(max(self.uidnext, adopted.uidnext))
        self._write_row(self.uidnext, self.highest_modseq, self._uid_sum)
        self._state.set_foreign_mark(self._id, mark)
        self._keep_keywords(adopted.keywords)
        change = self._absorbing(delta)
        numbered = [replace(found, uid=uids.get(found.key, 0)) for found, _ in change.added]
        change.uids = list(_adopted_uids(numbered))
        return change

    def _start_again(self, reason: str, may_adopt: bool = True) -> None:
        """All messages are numbered anew under a higher UIDVALIDITY: no UID moves. RELIABILITY §2.7.

        Where `may_adopt`, it may be one that another server gave.
        """
        self._warn(f"mailbox {self.name}: {reason}; it gets a higher UIDVALIDITY")
        with self._state.transaction():
            self._state.delete_mailbox(self.name)
            if not may_adopt:
                self._state.retire(self.name)
        self._empty()
        self._first_contact()

    # News.

    def changes_since(self, modseq: Modseq) -> Changes:
        """See `Mailbox.changes_since`."""
        return self._recent_changes(modseq) or self._old_changes(modseq)

    def _old_changes(self, modseq: Modseq) -> Changes:
        messages = sorted(self.messages.copy().items())
        changed = [uid for uid, message in messages if message.modseq > modseq]
        row = self._state.mailbox_by_id(self._id)
        if row is not None and row.forgotten <= modseq:
            return Changes(self.highest_modseq, changed, self._state.expunged(self._id, modseq))
        missing = [Uid(uid) for uid in range(1, self.uidnext) if uid not in self.messages]
        return Changes(self.highest_modseq, changed, missing, complete=False)

    def refresh(self) -> bool:
        """See `Mailbox.refresh`."""
        with self._holding():
            before = self.highest_modseq
            if self.sleeping is not None and not self._is_undisturbed():
                self._wake(self.sleeping)
            if self.sleeping is None:
                self._absorb(self._format.poll())
            if self._state.version() != self._state_version:
                with self._state.lock:
                    self._catch_up()
            return self.highest_modseq != before

    def expect_news(self, path: str) -> None:
        """See `MailboxFormat.expect_news`."""
        self._format.expect_news(path)

    def is_current(self) -> bool:
        """See `Mailbox.is_current`."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self._replaced or self._has_news():
                return False
            return self._state.version_at_once() == self._state_version
        except (OSError, StoreFailure):
            return False
        finally:
            self.lock.release()

    def may_have_news(self) -> bool | None:
        """Whether `refresh` may find what another program did; None while the mailbox is at work.

        Does not wait for anything.
        """
        if not self.lock.acquire(blocking=False):
            return None
        try:
            return self._has_news()
        except OSError:
            return True
        finally:
            self.lock.release()

    def _has_news(self) -> bool:
        return self._format.has_news() if self.sleeping is None else not self._is_undisturbed()

    # Recent.

    def peek_recent(self) -> Uid:
        """See `Mailbox.peek_recent`."""
        return self._recent

    def claim_recent(self) -> range:
        """See `Mailbox.claim_recent`."""
        with self._holding():
            if self._recent >= self.uidnext:
                return range(self._recent, self._recent)
            with self._state.transaction():
                self._catch_up()
                recent = self._recent
                self._state.set_recent(self._id, self.uidnext)
            self._recent = self.uidnext
            return range(recent, self._recent)

    # Figures.

    def figures(self, with_size: bool) -> MailboxStatus:
        """The mailbox's figures as it was last seen; `size` also None where it is not known of a message."""
        with self.lock:
            asleep = self.sleeping
            if asleep is not None:
                counts, recent = (asleep.messages, asleep.unseen, asleep.deleted), 0
                size = asleep.size
            else:
                counts = len(self._uids), *self._counts()
                recent = len(self._uids) - bisect_left(self._uids, self._recent)
                size = self._octets() if with_size else None
            return MailboxStatus(
                counts[0],
                recent,
                self.uidnext,
                self.uidvalidity,
                counts[1],
                self.highest_modseq,
                counts[2],
                size if with_size else None,
                self.mailbox_id,
            )

    def needs_settling(self) -> bool:
        """Whether `settle` would do anything. Blocks for nothing."""
        if self.sleeping is not None:
            return False
        is_waiting = self._unwritten or self._new_sizes or self._moved or self._token is not None
        is_kept = self._kept_figures is not None and self._kept_figures[0] == self.highest_modseq
        return bool(is_waiting or not is_kept or self._format.needs_settling())

    def _keep(self) -> None:
        """The token and the figures that go with it are durable, where they are not yet."""
        token = self._token if self._token is not None else "" if self._moved else None
        if token is not None and not self._moved and f"{len(self.uids)}|{token}" == self._kept_token:
            token = self._token = None
        if token is not None or self._kept_figures != (self.highest_modseq, self._octets()):
            self._kept_figures = None
            self._change(lambda: self._keeping(token))
            self._kept_figures = self.highest_modseq, self._octets()

    def _keeping(self, token: str | None) -> Change:
        figures = self.figures(with_size=True)
        kept = Figures(
            self.highest_modseq,
            figures.messages,
            figures.unseen,
            figures.deleted,
            figures.size,
            self._uid_sum,
            self._first_unseen(),
        )
        self._state.set_figures(self._id, with_checksum(self.uidvalidity, self.uidnext, kept))
        return Change(token=token)


def _adopted_uids(added: Sequence[Found]) -> Iterator[Uid]:
    """The UIDs that another server gave, as long as they ascend; the rest is numbered anew."""
    last = 0
    for found in added:
        if not last < found.uid < 2**32 - 1:
            return
        last = found.uid
        yield Uid(last)
