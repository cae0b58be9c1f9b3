"""One mailbox in one mbox file, shared with every other mail program of the box.

The file is the truth, and anybody may append to it, flag in it, or rename another over it at any time.
A message is known again by a digest of all but its status fields (`store.mbox_fields`), so whatever
the others did, unchanged messages keep their names. Where the file merely grew, only the new end is read:
the last octets before it must be as they were. Then a status field that another program changed
in place, further up, at the same moment, is seen at the next complete scan, or before we write to it.

Flags. The index holds them durably. Here they are written in place where the fields have room,
else they wait (`settle`, `remove`) for the file to be written anew. The flags that were last seen in the
file are part of a message's place, so after a crash waiting flags are told from changes
that others made. What was written in place is synced before the index learns of it durably, by a token,
not at once: until then the flags count as waiting, whether the file has them after a power cut or not.
Where another program changed a message's flags since, theirs are taken, and what waits, or the caller
changes now, is applied to them.

Locks: `store.locking`; a reader takes the shared one to scan, and none to read a message, since its
digest is checked. Crashes: `store.mbox_append`, `store.mbox_rewrite`. Extended attributes and
ACLs of the file are lost when it is rewritten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Final

from mailserver.durable import write_all
from mailserver.store import dotlock, locking, mbox_journal
from mailserver.store.contract import SEEN, Flags, MailboxBusy, MessageGone, NewMessage
from mailserver.store.format import Adopted, Delta, Found, Known, MailboxFormat
from mailserver.store.maildir import as_stored, with_crlf
from mailserver.store.mbox_append import (
    deposit,
    deposit_all,
    looks_new,
    restored_on_error,
    separator,
    show_as_new,
    show_as_read,
    undo_unfinished,
)
from mailserver.store.mbox_fields import (
    Place,
    header_length,
    key_of,
    message_text,
    split_fields,
    with_base,
    with_flags,
    with_uid,
)
from mailserver.store.mbox_in_place import Refit, Sync, refitted
from mailserver.store.mbox_lines import from_line, quoted, unquoted
from mailserver.store.mbox_messages import foreign_uids, found_message, merged_flags, named_messages
from mailserver.store.mbox_open import create_mailbox, open_mailbox
from mailserver.store.mbox_rewrite import make_draft, plan, rewritten
from mailserver.store.mbox_scan import Mark, Scanned, pread_all, scan, tail_digest

__all__ = ["MboxFormat", "create_mailbox", "deposit", "deposit_all"]

_HEADER: Final = 64 * 1024  # octets of a message in which its header usually ends
_UNFINISHED: Final = 10.0  # seconds that the end of a message is waited for while somebody may be writing it
_LARGEST_FOREIGN_UID: Final = 2**31  # a larger one would leave us none: it is not believed
_AT_ONCE: Final = 64  # messages whose flags are written in place together
_SETTLE_LIMIT: Final = 64 * 1024 * 1024  # octets; a larger file is rewritten only to remove something


class MboxFormat(MailboxFormat):
    """See `MailboxFormat`. `journals` is a directory of the owner's, for rewrites in place."""

    def __init__(
        self,
        path: str,
        journals: str,
        *,
        mboxrd: bool = False,
        rules: locking.LockRules = locking.USUAL_RULES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._journal = mbox_journal.journal_path(journals, path)
        self._mboxrd = mboxrd
        self._rules = rules
        self._now = now
        self._known: Sequence[Known] = ()
        self._places: dict[str, Place] = {}
        self._waiting: dict[str, Flags] = {}  # flags that the file does not have yet
        self._mark: Mark | None = None
        self._before: tuple[dict[str, Place], dict[str, Flags], Mark | None, Iterable[str]]
        # How often the file merely grew; how often it had when it was scanned whole (-1: not since `load`),
        # and when a message's flags were last compared: where that differs, they are asked for.
        self._growth, self._scanned_at = 0, -1
        self._compared_at: dict[str, int] = {}
        self._times_due = False  # flags changed in place: whether there is new mail is to be settled
        self._sync = Sync.DONE  # of flags changed in place
        self._elsewhere: tuple[Mark, dict[str, Place]] | None = None  # for `read` ahead of `poll`

    def load(self, known: Sequence[Known], token: str) -> None:
        """See `MailboxFormat.load`."""
        self._known = known
        self._places, self._waiting = {}, {}
        self._mark = Mark.decode(token)
        if not token:
            self._sync_is_due()  # the places may be what another format reported last

    def _sync_is_due(self) -> None:
        """The file has flags that may not be durable there."""
        if self._sync is Sync.DONE:
            self._sync = Sync.DUE

    def _decode_known(self) -> None:
        """The places that `load` was given are in `_places`: done when they are first needed."""
        for message in self._known:
            place = Place.decode(message.place)
            self._places[message.key] = place
            if message.flags != place.flags:
                self._waiting[message.key] = message.flags
        self._known = ()

    def adopted(self) -> Adopted:
        """See `MailboxFormat.adopted`."""
        words = self._base()
        return Adopted(int(words[0]), int(words[1]) + 1, tuple(words[2:])) if words else Adopted()

    def _base(self) -> list[bytes]:
        """The words of X-IMAPbase: UIDVALIDITY, the last UID, keywords; none where they are not to be had."""
        try:
            descriptor = open_mailbox(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return []
        try:
            text = message_text(pread_all(descriptor, _HEADER, 0))
        finally:
            os.close(descriptor)
        words = split_fields(text[: header_length(text)])[1].base.split()
        is_base = len(words) >= 2 and words[0].isdigit() and words[1].isdigit()
        return words if is_base and int(words[1]) <= _LARGEST_FOREIGN_UID else []

    def foreign_mark(self) -> str:
        """See `MailboxFormat.foreign_mark`: UIDVALIDITY and last UID of X-IMAPbase."""
        return " ".join(word.decode() for word in self._base()[:2])

    def foreign_uids(self) -> Mapping[str, int]:
        """See `MailboxFormat.foreign_uids`."""
        self._decode_known()
        try:
            with self._shared() as descriptor:
                messages = scan(descriptor, 0, os.fstat(descriptor).st_size, self._mboxrd)
                named = named_messages(messages, known=self._places)
        except FileNotFoundError:
            return {}
        uids = foreign_uids(named.values(), self.adopted().uidnext)
        return {
            key: uids[message.place.offset] for key, message in named.items() if message.place.offset in uids
        }

    def leave(
        self, uidvalidity: int, uidnext: int, uids: Mapping[str, int], keywords: Sequence[bytes]
    ) -> Delta | None:
        """See `MailboxFormat.leave`: X-UID in each message, X-IMAPbase in the first.

        Where UW imapd's pseudo message is the first, its X-IMAP is put right instead.
        """
        self._decode_known()
        base = b" ".join((b"%d %010d" % (uidvalidity, uidnext - 1), *keywords))
        try:
            with self._exclusive() as held:
                noticed = self._catch_up(held.descriptor, is_locked=True) or Delta()
                noticed = self._with_theirs(held.descriptor, noticed, self._places)
                self._waiting = {key: self._waiting.get(key, p.flags) for key, p in self._places.items()}
                first = min(self._places, key=lambda key: self._places[key].offset, default="")
                size = self._places[first].offset if first else os.fstat(held.descriptor).st_size
                start = with_base(pread_all(held.descriptor, size, 0), base) if size < _HEADER else None

                def numbered(key: str, header: bytes) -> bytes:
                    is_base = key == first and start is None  # only the file's first message has one
                    return with_uid(header, uids[key], base if is_base else b"") if key in uids else header

                places = self._rewrite(held, set(), numbered, start) if first or start else {}
                if self._base()[:2] != (base.split()[:2] if first or start else []):
                    raise OSError(errno.EACCES, "no file can be made beside it", self._path)
                token = self._token(held.descriptor)
        except FileNotFoundError:
            return self._vanished()
        added = [replace(found, place=self._places[found.key].encode()) for found in noticed.added]
        places = {**(noticed.places or {}), **places}
        return replace(noticed, added=added, places=places or None, token=token)

    # Seeing what others did

    def poll(self) -> Delta | None:
        """See `MailboxFormat.poll`."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return self._vanished()
        if self._mark is not None and self._mark.fits(found):
            return None
        try:
            if self._was_interrupted():
                with self._exclusive() as held:
                    return self._catch_up(held.descriptor, is_locked=True)
            with locking.shared(
                self._path, lambda: open_mailbox(self._path, os.O_RDONLY), self._rules
            ) as opened:
                return self._catch_up(opened)
        except FileNotFoundError:
            return self._vanished()
        except MailboxBusy:
            if self._mark is None:
                raise
            return None  # somebody is writing: it is news when it is done

    def has_news(self) -> bool:
        """See `MailboxFormat.has_news`."""
        return self._mark is None or not self._mark.fits(os.stat(self._path))

    def is_at(self, token: str) -> bool:
        """See `MailboxFormat.is_at`."""
        mark = Mark.decode(token)
        try:
            return mark is not None and mark.fits(os.stat(self._path))
        except FileNotFoundError:
            return False

    def needs_settling(self) -> bool:
        """See `MailboxFormat.needs_settling`. Before the places are decoded it is not known."""
        return bool(self._known or self._waiting or self._times_due or self._sync is not Sync.DONE)

    def _was_interrupted(self) -> bool:
        """Whether one of us was killed while it wrote: the exclusive lock repairs that."""
        lock = self._path + ".lock"
        return os.path.exists(self._journal) or dotlock.is_left_behind(lock, self._rules.stale_after)

    def _vanished(self) -> Delta | None:
        self._decode_known()
        removed = tuple(self._places)
        self._places, self._waiting, self._mark, self._sync = {}, {}, None, Sync.DONE
        return Delta(removed=removed) if removed else None

    @contextlib.contextmanager
    def _exclusive(self, create: bool = False) -> Iterator[locking.Held]:
        """The lock for a writer; a rewrite that was interrupted is complete within."""
        open_it = partial(open_mailbox, self._path, os.O_RDWR, create=create)
        with locking.exclusive(self._path, open_it, self._rules) as held:
            undo_unfinished(held)
            mbox_journal.recover(held, self._journal)
            self._before = self._places, dict(self._waiting), self._mark, ()
            try:
                yield held
            except BaseException:
                self._forget_catch_up()
                raise

    def _forget_catch_up(self) -> None:
        """What was noticed before a write failed was not reported: it will be news again."""
        self._places, self._waiting, self._mark, added = self._before
        self._scanned_at = -1
        self._compared_at.clear()
        for key in added:
            self._places.pop(key, None)

    def _shared(self) -> AbstractContextManager[int]:
        return locking.shared(self._path, partial(open_mailbox, self._path, os.O_RDONLY), self._rules)

    def _catch_up(self, descriptor: int, is_locked: bool = False) -> Delta | None:
        """The file as it is now is known; what is new in it, None where nothing was done to it.

        `is_locked`: nobody is writing, so all of it is whole.
        """
        found = os.fstat(descriptor)
        if self._mark is not None and self._mark.fits(found):
            return None
        self._decode_known()
        begin = self._grown_from(descriptor, found.st_size)
        messages = list(scan(descriptor, begin, found.st_size, self._mboxrd))
        end = found.st_size
        if messages and not (is_locked or self._is_whole(descriptor, found)):
            end = messages.pop().place.offset
        is_first = self._mark is None and not self._places
        self._before = self._places, dict(self._waiting), self._mark, ()
        self._mark = Mark.of(descriptor, end)
        delta = self._added(messages) if begin else self._compared(messages, is_first)
        self._before = (*self._before[:3], tuple(found.key for found in delta.added))
        self._note_growth(delta.added, is_complete=not begin)
        return replace(delta, token=self._token(descriptor))

    def _note_growth(self, added: Iterable[Found], is_complete: bool) -> None:
        """Whose flags in the file are known, and whose others may have changed while it grew."""
        if is_complete:
            self._scanned_at = self._growth
            self._compared_at.clear()
            return
        self._growth += 1
        self._compared_at.update((found.key, self._growth) for found in added)

    def _grown_from(self, descriptor: int, size: int) -> int:
        """Where the unknown part of the file begins: 0 unless it was appended to what is known."""
        mark = self._mark
        if mark is None or not 0 < mark.size < size:
            return 0
        joint = pread_all(descriptor, 6, mark.size - 1)
        is_boundary = joint == b"\nFrom "
        return mark.size if is_boundary and tail_digest(descriptor, mark.size) == mark.tail else 0

    def _is_whole(self, descriptor: int, found: os.stat_result) -> bool:
        """Whether the last message is: some programs append under no lock that we could see."""
        return (
            os.pread(descriptor, 3, max(found.st_size - 3, 0)).endswith((b"\n\n", b"\n\r\n"))
            or self._now() - found.st_mtime > _UNFINISHED
            or not locking.is_open_for_writing(descriptor)
        )

    def _added(self, messages: Iterable[Scanned]) -> Delta:
        named = named_messages(messages, self._places)
        self._places.update((key, message.place) for key, message in named.items())
        return Delta(added=[found_message(key, message) for key, message in named.items()])

    def _compared(self, messages: Iterable[Scanned], is_first: bool) -> Delta:
        """What a complete scan shows to be different from what was known."""
        named = named_messages(messages, known=self._places)
        old, self._places = self._places, {key: message.place for key, message in named.items()}
        both = [key for key in self._places if key in old]
        flags = {
            key: merged_flags(old[key].flags, self._waiting.get(key, old[key].flags), self._places[key].flags)
            for key in both
            if self._places[key].flags != old[key].flags
        }
        if flags:
            self._sync_is_due()  # another process of ours may have written them
        self._wait(flags)
        for key in self._waiting.keys() - self._places.keys():
            del self._waiting[key]
        uids = foreign_uids(named.values(), self.adopted().uidnext) if is_first else {}
        return Delta(
            added=[
                found_message(key, m, uids.get(m.place.offset, 0))
                for key, m in named.items()
                if key not in old
            ],
            removed=[key for key in old if key not in named],
            flags=flags or None,
            places={k: self._places[k].encode() for k in both if self._places[k] != old[k]} or None,
        )

    def _with_theirs(self, descriptor: int, noticed: Delta, keys: Iterable[str]) -> Delta:
        """What was noticed, and the flags that others gave these messages in place while the file grew.

        Asked before these messages' status fields are written. Flags that wait are applied to theirs.
        """
        if self._scanned_at == self._growth:
            return noticed
        flags, places = dict(noticed.flags or {}), dict(noticed.places or {})
        for key in keys:
            if self._compared_at.get(key, self._scanned_at) == self._growth:
                continue
            self._compared_at[key] = self._growth
            place = self._places[key]
            text = message_text(pread_all(descriptor, min(place.length, _HEADER), place.offset))
            length = header_length(text)
            theirs = split_fields(text[:length])[1].flags
            if theirs == place.flags or (length == len(text) and place.length > _HEADER):
                continue
            flags[key] = merged_flags(place.flags, self._waiting.get(key, place.flags), theirs)
            self._places[key] = place._replace(flags=theirs)
            places[key] = self._places[key].encode()
            self._wait({key: flags[key]})
            self._sync_is_due()
        return replace(noticed, flags=flags or None, places=places or None)

    # Reading

    def read(self, key: str) -> bytes:
        """See `MailboxFormat.read`."""
        self._decode_known()
        place = self._places.get(key)
        try:
            descriptor = open_mailbox(self._path, os.O_RDONLY)
        except FileNotFoundError:
            raise MessageGone("the mailbox is gone")
        try:
            content = self._content(descriptor, key, place) if place else None
            if content is not None:
                return content
        finally:
            os.close(descriptor)
        return self._read_elsewhere(key)

    def contents(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """See `MailboxFormat.contents`: the file is opened once, and what lies elsewhere now looked for."""
        self._decode_known()
        try:
            descriptor = open_mailbox(self._path, os.O_RDONLY)
        except FileNotFoundError:
            yield from (None for _ in keys)
            return
        try:
            for key in keys:
                place = self._places.get(key)
                content = self._content(descriptor, key, place) if place else None
                if content is not None:
                    yield content
                else:
                    yield from super().contents([key])
        finally:
            os.close(descriptor)

    def _content(self, descriptor: int, key: str, place: Place) -> bytes | None:
        """The message, if it lies there."""
        text = message_text(pread_all(descriptor, place.length, place.offset))
        length = header_length(text)
        shown, _ = split_fields(text[:length])
        if key_of(shown, memoryview(text)[length:]) != key.partition("#")[0]:
            return None
        content = text if len(shown) == length else shown + text[length:]
        return with_crlf(unquoted(content) if self._mboxrd else content)

    def _read_elsewhere(self, key: str) -> bytes:
        """The message, wherever another program put it since the last `poll`, which will report that."""
        with self._shared() as descriptor:
            found = os.fstat(descriptor)
            if self._elsewhere is None or not self._elsewhere[0].fits(found):
                named = named_messages(scan(descriptor, 0, found.st_size, self._mboxrd), known=self._places)
                places = {name: message.place for name, message in named.items()}
                self._elsewhere = (Mark.of(descriptor, found.st_size), places)
            place = self._elsewhere[1].get(key)
            content = self._content(descriptor, key, place) if place else None
        if content is None:
            raise MessageGone("the message was removed by another program")
        return content

    # Writing

    def append(self, messages: Sequence[NewMessage]) -> tuple[Sequence[Found], Delta | None]:
        """See `MailboxFormat.append`."""
        self._decode_known()
        dates = [int(self._now()) if m.internal_date is None else m.internal_date for m in messages]
        with self._exclusive(create=True) as held:
            descriptor = held.descriptor
            noticed = self._catch_up(descriptor, is_locked=True) or Delta()
            old = os.fstat(descriptor).st_size
            if len(messages) == 1:
                held.note_append()
            first = separator(descriptor, old)
            data = first + b"".join(map(self._as_stored, messages, dates))
            with restored_on_error(held, old, lambda: old):
                os.lseek(descriptor, old, os.SEEK_SET)
                held.assure(old)
                write_all(descriptor, data)
                os.fdatasync(descriptor)  # its times need not be durable
                end = old + len(data)
                written = list(scan(descriptor, old + len(first), end, self._mboxrd))
                if len(written) != len(messages):
                    raise OSError(f"{len(messages)} messages were written, {len(written)} found")
            if self._sync is Sync.DUE:
                self._sync = Sync.DONE
            show_as_new(descriptor)
            self._mark = Mark.of(descriptor, end)
            token = self._token(descriptor)
        named = named_messages(written, self._places)
        self._places.update((key, message.place) for key, message in named.items())
        founds = [
            replace(found_message(key, message), internal_date=date)
            for (key, message), date in zip(named.items(), dates, strict=True)
        ]
        return founds, replace(noticed, token=token)

    def _as_stored(self, message: NewMessage, date: int) -> bytes:
        content = as_stored(message.content)
        length = header_length(content)
        header = with_flags(split_fields(content[:length])[0], message.flags)
        body = content[length:] or b"\n"
        text = b"".join(quoted((header, body), self._mboxrd))
        return from_line("", date) + text + (b"\n" if text.endswith(b"\n") else b"\n\n")

    def write_flags(self, flags: Mapping[str, Flags]) -> Delta | None:
        """See `MailboxFormat.write_flags`."""
        self._decode_known()
        places = self._places
        changed = {key: new for key, new in flags.items() if key in places and places[key].flags != new}
        refits = self._worth_locking(changed)
        if refits is None:
            for key in flags.keys() & self._waiting.keys() - changed.keys():
                del self._waiting[key]
            self._waiting.update(changed)
            return None
        before = {key: self._waiting.get(key, places[key].flags) for key in flags if key in places}
        try:
            with self._exclusive() as held:
                noticed = self._catch_up(held.descriptor, is_locked=True) or Delta()
                noticed = self._with_theirs(held.descriptor, noticed, before.keys() & self._places.keys())
                theirs = dict(noticed.flags or {})
                wanted = {key: flags[key] for key in before if key in self._places}
                for key in wanted.keys() & theirs.keys():
                    wanted[key] = theirs[key] = merged_flags(before[key], flags[key], theirs[key])
                written = self._write_in_place(held.descriptor, wanted, refits)
                self._mark = Mark.of(held.descriptor, os.fstat(held.descriptor).st_size)
                token = self._mark.encode() if self._sync is Sync.DONE else ""
        except FileNotFoundError:
            return self._vanished()
        moved = {**(noticed.places or {}), **written}
        return replace(noticed, flags=theirs or None, places=moved or None, token=token)

    def _wait(self, flags: Mapping[str, Flags]) -> None:
        """The flags are written when the file is written anew; those that it has already, never."""
        for key, wanted in flags.items():
            if wanted == self._places[key].flags:
                self._waiting.pop(key, None)
            else:
                self._waiting[key] = wanted

    def _worth_locking(self, changed: Mapping[str, Flags]) -> Mapping[str, Refit] | None:
        """What can be written in place; None where the lock is not worth taking.

        It is not where nobody did anything and nothing fits. Many at once always wait: they come back for the
        price of one rewrite. `changed` are those that the file has otherwise.
        """
        try:
            if self._mark is None or not self._mark.fits(os.stat(self._path)):
                return {}
            if not changed or len(changed) > _AT_ONCE:
                return None
            descriptor = open_mailbox(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return {}
        try:
            refits = {
                key: refitted(self._head(descriptor, key), value, self._places[key].offset)
                for key, value in changed.items()
            }
        finally:
            os.close(descriptor)
        return {key: refit for key, refit in refits.items() if refit is not None} or None

    def _head(self, descriptor: int, key: str) -> bytes:
        """The message's first octets, as they lie in the file: its header, usually."""
        place = self._places[key]
        return pread_all(descriptor, min(place.length, _HEADER), place.offset)

    def _write_in_place(
        self, descriptor: int, flags: Mapping[str, Flags], refits: Mapping[str, Refit]
    ) -> dict[str, str]:
        """Flags with room in the file are there; the others wait. The places that changed.

        `refits` were found before the lock was had, and are used where they still fit.
        """
        places = {}
        was_new = looks_new(descriptor)
        for key, wanted in flags.items():
            place = self._places[key]
            refit = None
            if wanted != place.flags:
                head, refit = self._head(descriptor, key), refits.get(key)
                if refit is None or refit.head != head or refit.flags != wanted:
                    refit = refitted(head, wanted, place.offset)
            if refit is None:
                self._wait({key: wanted})
                continue
            os.pwrite(descriptor, refit.octets, refit.offset)
            self._places[key] = place._replace(flags=wanted)
            places[key] = self._places[key].encode()
            self._waiting.pop(key, None)
        if places:
            if not was_new:
                show_as_read(descriptor)
            self._times_due = True
            self._sync_is_due()
        return places

    def _has_unseen(self, gone: Container[str] = ()) -> bool:
        """Whether there is a message not seen: shells say `You have new mail` then, and only then."""
        places = self._places.items()
        return any(key not in gone and SEEN not in self._waiting.get(key, p.flags) for key, p in places)

    def remove(self, keys: Sequence[str], keeps: bool = True) -> Delta | None:
        """See `MailboxFormat.remove`."""
        self._decode_known()
        try:
            with self._exclusive() as held:
                noticed = self._catch_up(held.descriptor, is_locked=True) or Delta()
                gone = {key for key in keys if key in self._places}
                noticed = self._with_theirs(held.descriptor, noticed, self._waiting.keys() - gone)
                places = self._rewrite(held, gone, self._base_kept(gone)) if gone else {}
                token = self._token(held.descriptor)
        except FileNotFoundError:
            return self._vanished()
        asked = set(keys)
        return replace(
            noticed,
            removed=[key for key in noticed.removed if key not in asked],
            added=[
                replace(found, place=self._places[found.key].encode())
                for found in noticed.added
                if found.key in self._places
            ],
            places={**(noticed.places or {}), **places} or None,
            token=token,
        )

    def _base_kept(self, gone: set[str]) -> Callable[[str, bytes], bytes]:
        """A change that puts X-IMAPbase, where the first message goes that has it, into the next one.

        Without it Dovecot, which shares the mailbox, would give its messages new UIDs.
        """
        places = self._places
        first = min(places, key=lambda key: places[key].offset)
        kept = places.keys() - gone
        base = b" ".join(self._base()) if kept and first in gone and not places[first].offset else b""
        if not base:
            return lambda key, header: header
        heir = min(kept, key=lambda key: places[key].offset)
        self._waiting.setdefault(heir, places[heir].flags)  # so that its header is written anew
        field = b"X-IMAPbase: %b\n" % base
        return lambda key, header: field + header if key == heir else header  # before X-UID

    def _token(self, descriptor: int) -> str:
        """The token: what was written in place is durable. "" where that cannot be: nothing is promised then.

        What could not be synced once never counts as durable: the kernel may have dropped it. The mailbox is
        then compared with the index when it is opened again.
        """
        if self._sync is Sync.DUE:
            self._sync = Sync.FAILED
            with contextlib.suppress(OSError):
                os.fdatasync(descriptor)
                self._sync = Sync.DONE
        return self._mark.encode() if self._mark and self._sync is Sync.DONE else ""

    def _rewrite(
        self,
        held: locking.Held,
        gone: set[str],
        change: Callable[[str, bytes], bytes] = lambda key, header: header,
        start: bytes | None = None,
    ) -> dict[str, str]:
        """The file is without those messages and has the flags that waited; the places that changed."""
        old = self._places
        wanted = plan(held.descriptor, old, gone, self._waiting, change, start)
        draft = make_draft(self._path, held.descriptor)
        if draft is None and wanted.size > os.fstat(held.descriptor).st_size:
            if not gone:
                return {}
            wanted = plan(held.descriptor, old, gone, {})  # in place a mailbox only shrinks
        is_new = looks_new(held.descriptor) and self._has_unseen(gone)
        with rewritten(self._path, held, draft, wanted, self._journal, is_new) as descriptor:
            self._places = dict(wanted.places)
            self._waiting = {
                key: flags
                for key, flags in self._waiting.items()
                if key in self._places and self._places[key].flags != flags
            }
            if not is_new:
                show_as_read(descriptor)
            self._mark = Mark.of(descriptor, wanted.size)
            self._sync = Sync.DONE
        return {key: place.encode() for key, place in self._places.items() if place != old[key]}

    def settle(self) -> Delta | None:
        """See `MailboxFormat.settle`."""
        self._decode_known()
        if not self.needs_settling():
            return None
        try:
            with self._exclusive() as held:
                noticed = self._catch_up(held.descriptor, is_locked=True) or Delta()
                noticed = self._with_theirs(held.descriptor, noticed, list(self._waiting))
                places = self._settle(held)
                token = self._token(held.descriptor)
                if not token:
                    raise OSError(errno.EIO, "what was written cannot be made durable", self._path)
        except FileNotFoundError:
            return self._vanished()
        places = {**(noticed.places or {}), **places}
        added = [replace(found, place=self._places[found.key].encode()) for found in noticed.added]
        return replace(noticed, added=added, places=places or None, token=token)

    def _settle(self, held: locking.Held) -> dict[str, str]:
        """Flags that waited are in the file, unless it is too large for that; the places that changed."""
        self._times_due = False
        if self._waiting and os.fstat(held.descriptor).st_size <= _SETTLE_LIMIT:
            return self._rewrite(held, set())
        if looks_new(held.descriptor) and not self._has_unseen():
            show_as_read(held.descriptor)
            self._mark = Mark.of(held.descriptor, os.fstat(held.descriptor).st_size)
        return {}

    def watched_paths(self) -> Sequence[str]:
        """See `MailboxFormat.watched_paths`. A rename over the file shows in its directory only."""
        return (self._path,)
