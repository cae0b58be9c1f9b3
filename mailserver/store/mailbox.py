"""The Mailbox contract over any MailboxFormat: reading and writing.

`mailbox_index` has the half that numbers and notices; here is what a client asks for.

Order of the two stores, so that a crash between them costs nothing:

    append, copy   file first, then index: a crash leaves a new message without an answer
    flags          index first, then file: the format writes what it lacks at the next open
    expunge        file first, then index: the next poll sees that it is gone
    move           copy durable in the target, then removal: a crash leaves a duplicate

Two mailboxes' locks are always taken in one order, that of `id`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from mailserver.store.contract import (
    DELETED,
    SEEN,
    Flags,
    FlagsChanged,
    Mailbox,
    MailboxReplaced,
    MessageGone,
    Modseq,
    NewMessage,
    Reader,
    StoreMode,
    Target,
    Uid,
)
from mailserver.store.format import Delta, Found
from mailserver.store.mailbox_changes import Change
from mailserver.store.mailbox_index import MailboxIndex
from mailserver.store.own_seen import SeenChange
from mailserver.store.private_seen import Messages, PrivateSeenMailbox, SharedMailbox, with_seen, without_seen
from mailserver.store.state_readers import Said
from mailserver.store.text_builder import index_batch, missing_batches

_BATCH: Final = 500  # messages that are read, or whose sizes are learnt, before that is written down
_BATCH_OCTETS: Final = 1 << 20
_RECENT: Final = b"\\recent"


class IndexedMailbox(MailboxIndex, SharedMailbox):
    """See `Mailbox`."""

    def seen_by(self, reader: Reader) -> Mailbox:
        """See `Mailbox.seen_by`."""
        return PrivateSeenMailbox(self, reader)

    # Reading.

    def read(self, uid: Uid) -> bytes:
        """See `Mailbox.read`."""
        with self._working():
            key = self._keys.get(uid)
            if key is None:
                raise MessageGone("The message is gone")
            try:
                content = self._format.read(key)
            except MessageGone:
                self._reload_format()  # whatever hides it, all that is there will be known
                self.refresh()
                raise
            if self._sizes.get(uid) != len(content):
                self._note_size(uid, len(content))
            return content

    def read_batch(self, uids: Sequence[Uid], most: int) -> tuple[int, Mapping[Uid, bytes]]:
        """See `Mailbox.read_batch`."""
        with self._working():
            taken, contents = self._gather(uids, most, self._format.contents)
            sizes = self._sizes
            for uid, content in contents.items():
                if sizes.get(uid) != len(content):
                    self._note_size(uid, len(content))
        return taken, contents

    def _read_headers(self, uids: Sequence[Uid], most: int) -> tuple[int, Mapping[Uid, bytes]]:
        """As `read_batch`, of the headers."""
        with self._working():
            return self._gather(uids, most, self._format.headers)

    def _gather(
        self, uids: Sequence[Uid], most: int, read: Callable[[Iterable[str]], Iterator[bytes | None]]
    ) -> tuple[int, dict[Uid, bytes]]:
        """See `read_batch`. `read` gives what is wanted of each key's message, None for one that is gone."""
        contents: dict[Uid, bytes] = {}
        octets, taken, is_short = 0, len(uids), False
        there = [(uid, key) for uid in uids if (key := self._keys.get(uid)) is not None]
        for (uid, _), content in zip(there, read([key for _, key in there]), strict=True):
            if content is None:
                is_short = True
                continue
            contents[uid] = content
            octets += len(content)
            if octets >= most:
                taken = uids.index(uid) + 1
                break
        if is_short:
            self._reload_format()  # whatever hides them, all that is there will be known
            self.refresh()
        return taken, contents

    def _note_size(self, uid: Uid, size: int) -> None:
        """The size is known; durable before long, since it could be found out again."""
        self._sizes[uid] = self._new_sizes[uid] = size
        if len(self._new_sizes) >= _BATCH:
            self._keep_sizes()

    def _keep_sizes(self) -> None:
        """The sizes that were found out are durable."""
        if self._new_sizes:
            with self._state.transaction():
                self._state.set_sizes(self._id, self._new_sizes)
            self._new_sizes = {}

    def sizes(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """See `Mailbox.sizes`."""
        known = self._sizes
        missing = [uid for uid in uids if uid not in known and uid in self.messages]
        while missing:
            taken, _ = self.read_batch(missing[:_BATCH], _BATCH_OCTETS)  # which notes the sizes
            missing = missing[taken:]
        with self._working():
            self._keep_sizes()
        return {uid: known[uid] for uid in uids if uid in known}

    def save_dates(self, uids: Sequence[Uid]) -> Mapping[Uid, int]:
        """See `Mailbox.save_dates`."""
        known = self._state.save_dates(self._id, min(uids), max(uids)) if uids else {}
        return {uid: known[uid] for uid in uids if uid in known}

    def file_names(self, uids: Sequence[Uid]) -> Mapping[Uid, str]:
        """See `Mailbox.file_names`."""
        self.wake()
        keys = self._keys if self._format.keys_are_file_names else {}
        return {uid: key for uid in uids if (key := keys.get(uid)) is not None}

    def facts(
        self, uids: Sequence[Uid], make: Callable[[bytes], bytes], kind: str, of_header: bool = False
    ) -> Mapping[Uid, bytes]:
        """See `Mailbox.facts`."""
        ordered = sorted(uids)
        known = self._cache.get(self.mailbox_id, self.uidvalidity, kind, ordered)
        missing = [uid for uid in ordered if uid not in known and uid in self.messages]
        while missing:
            read = self._read_headers if of_header else self.read_batch
            taken, contents = read(missing[:_BATCH], _BATCH_OCTETS)
            made = {uid: make(content) for uid, content in contents.items()}
            self._cache.put(self.mailbox_id, self.uidvalidity, kind, made)
            known.update(made)
            missing = missing[taken:]
        messages = self.messages
        return {uid: known[uid] for uid in uids if uid in known and uid in messages}

    def known_facts(self, uids: Sequence[Uid], kind: str) -> Mapping[Uid, bytes]:
        """See `Mailbox.known_facts`."""
        known = self._cache.get(self.mailbox_id, self.uidvalidity, kind, sorted(uids))
        messages = self.messages
        return {uid: known[uid] for uid in uids if uid in known and uid in messages}

    def search_text(
        self, uids: Sequence[Uid], needle: str, with_header: bool
    ) -> tuple[Sequence[Uid], Sequence[Uid]]:
        """See `Mailbox.search_text`."""
        if self._texts is None:
            return [], uids
        found, decided = self._texts.index.search(self.mailbox_id, self.uidvalidity, needle, with_header)
        self._is_searched = True
        if len(decided) < len(self.uids):
            self._texts.want(self)
        return [uid for uid in uids if uid in found], [uid for uid in uids if uid not in decided]

    def may_hold(
        self, uids: Sequence[Uid], pieces: Sequence[Sequence[str]], with_header: bool
    ) -> Sequence[Uid]:
        """See `Mailbox.may_hold`."""
        if self._texts is None:
            return uids
        found, decided = self._texts.index.candidates(self.mailbox_id, self.uidvalidity, pieces, with_header)
        self._is_searched = True
        if len(decided) < len(self.uids):
            self._texts.want(self)
        return [uid for uid in uids if uid in found or uid not in decided]

    def texts(self, uids: Sequence[Uid]) -> Mapping[Uid, tuple[str, str]]:
        """See `Mailbox.texts`."""
        if self._texts is None:
            return super().texts(uids)
        known = self._texts.index.texts(self.mailbox_id, self.uidvalidity, uids)
        return {**known, **super().texts([uid for uid in uids if uid not in known])}

    def index_texts(self, advance: Callable[[int], None] = lambda count: None) -> int:
        """The text index has all messages; how many it lacked. *Blocking*, for long."""
        count = 0
        if self._texts is not None:
            for uids in missing_batches(self._texts.index, self):
                index_batch(self._texts.index, self, uids)
                count += len(uids)
                advance(len(uids))
        return count

    # Writing.

    def append(self, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        """See `Mailbox.append`."""
        self._check_room(sum(len(message.content) for message in messages), len(messages))
        return self._append(messages)

    def append_for(self, reader: str, messages: Sequence[NewMessage]) -> Sequence[Uid]:
        """See `SharedMailbox.append_for`."""
        self._check_room(sum(len(message.content) for message in messages), len(messages))
        return self._append(messages, reader)

    def _check_room(self, octets: int, messages: int) -> None:
        """Asked before any lock is taken: to answer, other mailboxes may have to be read."""
        if self._quota is not None and messages:
            self._quota.check(octets, messages, self.name)

    def _append(self, messages: Sequence[NewMessage], reader: str | None = None) -> Sequence[Uid]:
        if not messages:
            return []
        kept = [_without_recent(message) for message in messages]
        if reader is not None:
            kept = [replace(message, flags=without_seen(message.flags)) for message in kept]
        with self._working():
            found, delta = self._format.append(kept)
            return self._number(found, delta, reader, [message.flags for message in messages])

    def _number(
        self, found: Sequence[Found], delta: Delta | None, reader: str | None, flags: Sequence[Flags]
    ) -> Sequence[Uid]:
        r"""The messages that the format just stored have UIDs, after those of others.

        Of their flags \Seen is the reader's, where one is named.
        """
        own = None
        if reader is not None:
            keys = [each.key for each, its in zip(found, flags, strict=True) if SEEN in its]
            own = SeenChange(reader, keys=frozenset(keys))
        self._absorb(delta, added=found, own=own)
        return [self._uid_of[each.key] for each in found]

    def change_flags(
        self,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None = None,
    ) -> FlagsChanged:
        """See `Mailbox.change_flags`."""
        return self._change_flags(None, uids, flags, mode, unchanged_since)

    def change_flags_for(
        self,
        view: PrivateSeenMailbox,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None,
    ) -> FlagsChanged:
        """See `SharedMailbox.change_flags_for`."""
        return self._change_flags(view, uids, flags, mode, unchanged_since)

    def _change_flags(
        self,
        view: PrivateSeenMailbox | None,
        uids: Sequence[Uid],
        flags: Flags,
        mode: StoreMode,
        unchanged_since: Modseq | None,
    ) -> FlagsChanged:
        modified: list[Uid] = []
        changed: list[Uid] = []

        def plan() -> Change:
            named = self._spell([flag for flag in flags if flag.lower() != _RECENT])
            known = self.messages if view is None else view.messages
            wanted = _changed_flags(known, uids, named, mode, unchanged_since, modified)
            changed.extend(sorted(wanted))
            return Change(flags=wanted) if view is None else self._apart(view, known, wanted)

        with self._working():
            if view is not None:
                view.wake()
            change = self._change(plan)
            keys = self._keys
            self._write_flags({keys[uid]: new for uid, new in change.flags.items()})
        return FlagsChanged(changed, sorted(modified))

    def _apart(self, view: PrivateSeenMailbox, known: Messages, wanted: Mapping[Uid, Flags]) -> Change:
        r"""The change that gives the messages the flags that are `wanted` for the reader."""
        change = Change(own=SeenChange(view.reader.name))
        assert change.own is not None
        for uid, new in wanted.items():
            if (SEEN in new) != (SEEN in known[uid].flags):
                change.own.seen[uid] = SEEN in new
            old = self.messages[uid].flags
            common = with_seen(new) if SEEN in old else without_seen(new)
            if common != old:
                change.flags[uid] = common
        return change

    def _write_flags(self, flags: Mapping[str, Flags]) -> None:
        """The format has the flags too, or will get them: they are durable already."""
        self._unwritten.update(flags)
        if not self._unwritten:
            return
        try:
            delta = self._format.write_flags(self._unwritten)
        except (OSError, MailboxReplaced) as error:
            self._warn(f"mailbox {self.name}: flags are not stored beside the messages yet: {error}")
            return
        self._unwritten = {}
        self._absorb(delta)

    def expunge(self, uids: Sequence[Uid] | None = None) -> Sequence[Uid]:
        """See `Mailbox.expunge`."""
        with self._holding():
            self.refresh()
            if uids is None and self.sleeping is not None and not self.sleeping.deleted:
                return []
            chosen = self.uids if uids is None else uids
            return self.remove(
                [uid for uid in chosen if uid in self.messages and DELETED in self.messages[uid].flags]
            )

    def remove(self, uids: Sequence[Uid]) -> Sequence[Uid]:
        """See `Mailbox.remove`."""
        return self._remove(uids, keeps=True)

    def _remove(self, uids: Sequence[Uid], keeps: bool) -> Sequence[Uid]:
        with self._working():
            there = sorted({uid for uid in uids if uid in self.messages})
            if not there:
                return []
            keys = [self._keys[uid] for uid in there]
            self._absorb(self._format.remove(keys, keeps), expunged=there)
            return there

    def copy(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.copy`."""
        return self.transfer(uids, target, lambda: self.messages, moves=False)

    def move(self, uids: Sequence[Uid], target: Mailbox) -> Sequence[tuple[Uid, Uid]]:
        """See `Mailbox.move`."""
        return self.transfer(uids, target, lambda: self.messages, moves=True)

    def transfer(
        self, uids: Sequence[Uid], target: Mailbox, known: Callable[[], Messages], moves: bool
    ) -> Sequence[tuple[Uid, Uid]]:
        """See `SharedMailbox.transfer`."""
        goal = target.as_target()
        if moves and not isinstance(goal.mailbox, IndexedMailbox):
            pairs = self._copy_elsewhere(uids, goal, known())
            self._remove([source for source, _ in pairs], keeps=False)
            return pairs
        if moves:
            with self._both(goal.mailbox):
                pairs = self._copy(uids, goal, known())
                self._remove([source for source, _ in pairs], keeps=False)
                return pairs
        if isinstance(goal.mailbox, IndexedMailbox) and goal.mailbox._quota is not None:
            goal.mailbox._check_room(sum(self.sizes(uids).values()), len(uids))
        return self._copy(uids, goal, known())

    def _copy(self, uids: Sequence[Uid], goal: Target, known: Messages) -> Sequence[tuple[Uid, Uid]]:
        target = goal.mailbox
        if not isinstance(target, IndexedMailbox):
            return self._copy_elsewhere(uids, goal, known)
        with self._both(target):
            sources = [uid for uid in uids if uid in known]
            if not sources:
                return []
            flags = [goal.keep(known[uid].flags) for uid in sources]
            found = self._linked(
                sources, target, flags if goal.reader is None else [*map(without_seen, flags)]
            )
            if found is None:
                return self._copy_elsewhere(sources, goal, known)
            return list(zip(sources, target._number(found, None, goal.reader, flags), strict=True))

    def _linked(
        self, sources: Sequence[Uid], target: IndexedMailbox, flags: Sequence[Flags]
    ) -> Sequence[Found] | None:
        wanted = {self._keys[uid]: each for uid, each in zip(sources, flags, strict=True)}
        if len(wanted) != len(sources):
            return None
        with target._faults():
            return target._format.link(self._format, wanted)

    def _copy_elsewhere(
        self, uids: Sequence[Uid], goal: Target, known: Messages
    ) -> Sequence[tuple[Uid, Uid]]:
        with self.lock:
            copied = [uid for uid in uids if uid in known]
            _, contents = self.read_batch(copied, sys.maxsize)
            if len(contents) < len(copied):
                raise MessageGone("One of the messages is gone")  # all or none
            messages = [
                NewMessage(contents[uid], goal.keep(known[uid].flags), known[uid].internal_date)
                for uid in copied
            ]
        target = goal.mailbox
        if isinstance(target, IndexedMailbox):
            return list(zip(copied, target._append(messages, goal.reader), strict=True))
        return list(zip(copied, target.append(messages), strict=True))

    @contextmanager
    def _both(self, target: Mailbox) -> Iterator[None]:
        boxes = [box for box in (self, target) if isinstance(box, IndexedMailbox)]
        with ExitStack() as stack:
            for box in sorted(boxes, key=id):
                stack.enter_context(box.lock)
            for box in boxes:
                stack.enter_context(box._working())
            yield

    # Bringing back.

    def restore(self, messages: Sequence[tuple[Uid, NewMessage]], uidvalidity: int) -> Sequence[Uid]:
        """The messages are in the mailbox, as after `append`; with these ascending UIDs where they can be.

        They can where all are new here and of this UIDVALIDITY. A mailbox that never gave a UID
        takes over the UIDVALIDITY. *Blocking.*
        """
        if not messages:
            return []
        with self._working():
            self.refresh()
            keeps = messages[0][0] >= self.uidnext and self._adopts(uidvalidity)
            found, delta = self._format.append([_without_recent(message) for _, message in messages])
            self._absorb(delta, added=found, uids=[uid for uid, _ in messages] if keeps else ())
            return [self._uid_of[each.key] for each in found]

    def _adopts(self, uidvalidity: int) -> bool:
        """Whether the mailbox has that UIDVALIDITY, if need be from now on."""
        if self.uidvalidity == uidvalidity or self.uidnext > 1:
            return self.uidvalidity == uidvalidity
        with self._state.transaction():
            if not self._state.may_adopt(self.name, uidvalidity):
                return False
            self._state.set_uidvalidity(self._id, self._state.next_uidvalidity(uidvalidity))
            self.uidvalidity = uidvalidity
            self._write_row(self.uidnext, self.highest_modseq, self._uid_sum)
        return True

    def restore_seen(self, said: Said) -> None:
        """What readers said of messages is kept, where they have not said otherwise since. *Blocking.*"""
        for reader, seen in said.items():

            def plan(reader: str = reader, seen: Mapping[Uid, bool] = seen) -> Change:
                since = {uid for uid, *_ in self._state.own_seen(self._id, reader)}
                kept = {uid: it for uid, it in seen.items() if uid in self.messages and uid not in since}
                return Change(own=SeenChange(reader, kept))

            with self._working():
                self._change(plan)

    def raise_to(self, uidnext: int, modseq: int) -> None:
        """UIDs and modseqs that were given before a backup was made are not given again. *Blocking.*"""
        with self._working(), self._state.transaction():
            self._catch_up()
            self.uidnext = Uid(max(self.uidnext, uidnext))
            self.highest_modseq = Modseq(max(self.highest_modseq, modseq))
            self._write_row(self.uidnext, self.highest_modseq, self._uid_sum)

    # Rest.

    def settle(self) -> None:
        """What was put off is done and durable; called when the last session is gone."""
        with self._holding():
            if self.sleeping is not None:
                return
            self._write_flags({})
            self._keep_sizes()
            delta = self._format.settle()
            self._absorb(delta)
            self._keep()

    def export(self) -> None:
        """Other servers' own index has our UIDs, unless it changed meanwhile (`_take_over`). *Blocking.*"""
        with self._holding():
            if self.sleeping is not None and self._format.is_exported(self.uidvalidity, self.uidnext):
                return
        with self._working():
            if self._format.foreign_mark() == self._state.foreign_mark(self._id):
                self._format.export(self.uidvalidity, self.uidnext, self._numbers())
                self._remember_foreign()

    def leave(self) -> None:
        """Other servers will find our UIDs, in the mailbox itself where they look there. *Blocking.*"""
        with self._working():
            self.refresh()
            self._absorb(self._format.leave(self.uidvalidity, self.uidnext, self._numbers(), self.keywords))
            self._remember_foreign()

    def _numbers(self) -> Mapping[str, int]:
        return {self._keys[uid]: uid for uid in self.uids}

    def _remember_foreign(self) -> None:
        mark = self._format.foreign_mark()
        if mark != self._state.foreign_mark(self._id):
            with self._state.transaction():
                self._state.set_foreign_mark(self._id, mark)

    def rescan(self) -> int:
        """The whole mailbox was read anew; how many messages it held otherwise than was known. *Blocking.*"""
        with self._working():
            self.refresh()
            before = self.highest_modseq
            self._reload_format()
            self.refresh()
            changes = self.changes_since(before)
            return len(changes.changed) + len(changes.expunged)

    def watched_paths(self) -> Sequence[str]:
        """Files and directories whose change means that `refresh` has news."""
        return self._format.watched_paths()


def _changed_flags(
    known: Messages,
    uids: Sequence[Uid],
    named: Flags,
    mode: StoreMode,
    unchanged_since: Modseq | None,
    modified: list[Uid],
) -> dict[Uid, Flags]:
    """The flags of those messages that get others; who fails UNCHANGEDSINCE is in `modified`."""
    wanted: dict[Flags, Flags] = {}
    changed: dict[Uid, Flags] = {}
    for uid in uids:
        message = known.get(uid)
        if message is None:
            continue
        if unchanged_since is not None and message.modseq > unchanged_since:
            modified.append(uid)
            continue
        old = message.flags
        new = wanted.get(old)
        if new is None:
            new = wanted[old] = _combine(old, named, mode)
        if new != old:
            changed[uid] = new
    return changed


def _combine(old: Flags, named: Flags, mode: StoreMode) -> Flags:
    if mode is StoreMode.ADD:
        return old | named
    return old - named if mode is StoreMode.REMOVE else named


def _without_recent(message: NewMessage) -> NewMessage:
    if any(flag.lower() == _RECENT for flag in message.flags):
        flags = frozenset(flag for flag in message.flags if flag.lower() != _RECENT)
        return NewMessage(message.content, flags, message.internal_date)
    return message
