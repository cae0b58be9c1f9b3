"""A maildir: one file per message, no lock; written here, and read and written by anybody.

How a message gets in is told in `maildir_deposit`.

Reading: messages are named by the part before the colon, flags stand behind it
(`maildir_names`). A message that we have seen stays in `new` until its flags change or the
mailbox is settled, and is served from there: so a delivery costs a scan of `new` alone.

What other programs do shows in the mtimes of `new` and `cur`. An mtime younger than
RACY seconds when it was read may hide a later change in the same clock tick, so it is
not trusted and the directory is read again at the next poll. Our own writes to `cur` do not
cause a scan, and the mtime that one left is trusted at any age; since a foreign change in the very
moment of ours would go unseen, `cur` is read again VERIFY seconds later. A message that seems to be
gone is looked for once more: a file renamed during readdir(3) may be missed.

What `read` gives has CRLF line ends, whatever is stored.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from mailserver.durable import sync_directory
from mailserver.message.header import header_end
from mailserver.store.contract import Flags, MessageGone, NewMessage
from mailserver.store.format import Adopted, Delta, Found, Known, MailboxFormat
from mailserver.store.maildir_deposit import (
    Draft,
    as_stored,
    counter,
    deposit,
    deposit_all,
    harmless,
    make_maildir,
    with_crlf,
)
from mailserver.store.maildir_names import (
    Keywords,
    arrival_order,
    key_of,
    letters_of,
    virtual_size,
)
from mailserver.store.shared_files import check_group, list_of_group
from mailserver.store.uidlist import read_uidlist, uidlist_figures, uidlist_mark, write_uidlist

__all__ = ["MaildirFormat", "as_stored", "deposit", "deposit_all", "make_maildir", "with_crlf"]

RACY: Final = 0.1  # seconds; a file system's clock ticks every 1 to 10 ms
COARSE_RACY: Final = 2.5  # seconds, where mtimes are whole seconds
VERIFY: Final = 30.0  # seconds
_USUAL_SIZE: Final = 1 << 16  # octets that are read at once
_HEADER_BLOCK: Final = 1 << 13  # octets in which a header usually ends
CLEANING: Final = 3600.0  # seconds after which tmp is looked through again
ABANDONED: Final = 36 * 3600  # seconds that a file may stay in tmp

_Mark = tuple[int, int]  # inode and mtime in nanoseconds of a directory


class MaildirFormat(MailboxFormat):
    """See `MailboxFormat`. `control` is where Dovecot's own files lie, the maildir itself where empty.

    `bury` takes a removed message's file out of the maildir and keeps it (`store.graveyard`). `group` is the
    one whose members write here (`store.shared_files`): then nothing that is another's is read.
    """

    keys_are_file_names = True

    def __init__(
        self,
        directory: str,
        hostname: str,
        control: str = "",
        clock: Callable[[], float] = time.time,
        bury: Callable[[str], None] | None = None,
        sync_graves: Callable[[], None] = lambda: None,
        group: int | None = None,
    ) -> None:
        self._group = group
        self._bury = bury
        self._sync_graves = sync_graves
        self._directory = directory
        self._hostname = hostname
        self._control = control or directory
        self._clock = clock
        self._keywords = Keywords(self._control)
        self._forget()

    def _forget(self) -> None:
        self._places: dict[str, str] = {}  # as last reported
        self._flags: dict[str, Flags] = {}  # as last reported or written, where not as in the name
        self._in_new: set[str] = set()
        self._glimpse: dict[str, str] = {}  # places noticed by a read, not yet reported
        self._pending: dict[str, Flags] = {}  # flags that the name should show and does not
        self._marks: dict[str, _Mark | None] = {"new": None, "cur": None}
        self._written: _Mark | None = None  # of cur, after our own last write
        self._token = ""
        self._scanned = False
        self._is_expecting = False
        self._verified = 0.0
        self._wrote = False  # to cur, since it was last read whole
        self._unsynced: set[str] = set()
        self._cleaned = 0.0
        self._settled: dict[str, _Mark | None] | None = None  # marks after which nothing was put off
        self._foreign_uids: Mapping[str, int] = {}

    def load(self, known: Sequence[Known], token: str) -> None:
        """See `MailboxFormat.load`."""
        self._forget()
        self._token = token
        self._keywords.refresh()
        self._places = {key: place for key, place, _ in known}
        self._flags = {key: flags for key, _, flags in known}
        self._in_new = {key for key, place, _ in known if place[:4] == "new/"}

    def adopted(self) -> Adopted:
        """See `MailboxFormat.adopted`."""
        adopted, self._foreign_uids = read_uidlist(self._control)
        return Adopted(adopted.uidvalidity, adopted.uidnext, tuple(self._keywords.names()))

    # Polling.

    def _mark(self, subdirectory: str) -> _Mark:
        try:
            status = os.stat(f"{self._directory}/{subdirectory}")
        except FileNotFoundError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def _is_settled(self, mark: _Mark, now: float) -> bool:
        """Whether a change after now would give the directory another mark."""
        racy = COARSE_RACY if mark[1] % 10**9 == 0 else RACY
        return not 0 <= now - mark[1] / 10**9 < racy

    def poll(self) -> Delta | None:
        """See `MailboxFormat.poll`."""
        now = self._clock()
        marks: dict[str, _Mark | None] = {name: self._mark(name) for name in ("new", "cur")}
        if not self._scanned and self._token and self._token == _token(marks):
            self._marks, self._scanned, self._verified = marks, True, now
            return None
        whole = not self._scanned or marks["cur"] != self._marks["cur"] or self._is_due(now)
        is_expecting, self._is_expecting = self._is_expecting, False
        if not whole and marks["new"] == self._marks["new"] and not is_expecting:
            return None
        delta = None if whole else self._read_new()
        if delta is None:
            whole = True
            delta = self._read_all()
        for name in ("new", "cur") if whole else ("new",):
            mark = marks[name]
            self._marks[name] = (
                mark if mark and (mark == self._written or self._is_settled(mark, now)) else None
            )
        if whole:
            self._scanned, self._verified, self._wrote = True, now, marks["cur"] == self._written
        if not (delta.added or delta.removed or delta.flags or delta.places):
            return None
        return self._with_token(delta)

    def has_news(self) -> bool:
        """See `MailboxFormat.has_news`."""
        marks = self._marks
        is_known = self._scanned and self._mark("new") == marks["new"] and self._mark("cur") == marks["cur"]
        return self._is_expecting or not is_known or self._is_due(self._clock())

    def is_at(self, token: str) -> bool:
        """See `MailboxFormat.is_at`."""
        return token == _token({name: self._mark(name) for name in ("new", "cur")}) != "-"

    def needs_settling(self) -> bool:
        """See `MailboxFormat.needs_settling`."""
        is_clean = 0 <= self._clock() - self._cleaned < CLEANING
        return bool(self._pending or self._unsynced or self._settled != self._marks or not is_clean)

    def expect_news(self, path: str) -> None:
        """See `MailboxFormat.expect_news`. The mtime that our own write left in `new` may hide a delivery."""
        if path == os.path.join(self._directory, "new"):
            self._is_expecting = True

    def _is_due(self, now: float) -> bool:
        return self._wrote and not 0 <= now - self._verified < VERIFY

    def _with_token(self, delta: Delta) -> Delta:
        token = "" if self._unsynced else _token(self._marks)
        return Delta(delta.added, delta.removed, delta.flags, delta.places, token)

    def _sync(self) -> None:
        """Renames of ours are durable."""
        while self._unsynced:
            name = next(iter(self._unsynced))
            sync_directory(os.path.join(self._directory, name))
            self._unsynced.discard(name)

    def _list(self, subdirectory: str) -> dict[str, str]:
        """Place by key of what lies in the subdirectory."""
        try:
            path = os.path.join(self._directory, subdirectory)
            names = os.listdir(path) if self._group is None else list_of_group(path, self._group)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        prefix = subdirectory + "/"
        return {name.partition(":")[0]: prefix + name for name in names if name[0] != "."}

    def _list_all(self) -> dict[str, str]:
        # new first: what is moved to cur meanwhile is then seen twice, not never
        found = self._list("new")
        found.update(self._list("cur"))
        return found

    def _read_new(self) -> Delta | None:
        """What came into new; None where something left it, so that cur must be read too."""
        found = self._list("new")
        if not self._in_new <= found.keys():
            return None
        fresh = [key for key in found if key not in self._places]
        return self._report({key: found[key] for key in fresh}, [], [])

    def _read_all(self) -> Delta:
        self._keywords.refresh()
        found = self._list_all()
        missing = self._places.keys() - found.keys()
        if missing:
            again = self._list_all()
            found.update((key, again[key]) for key in missing & again.keys())
        differing = found.items() - self._places.items()
        moved = [(key, place) for key, place in differing if key in self._places]
        added = {key: place for key, place in differing if key not in self._places}
        if not self._scanned:
            self._find_unwritten(found)
        return self._report(added, [key for key in missing if key not in found], moved)

    def _find_unwritten(self, found: Mapping[str, str]) -> None:
        """Names that never got their flags, because of a crash, will get them."""
        for key, flags in self._flags.items():
            place = self._places[key]
            if found.get(key) == place and self._shown(flags) != self._keywords.flags(letters_of(place)):
                self._pending[key] = flags

    def _shown(self, flags: Flags) -> Flags:
        return frozenset(flag for flag in flags if self._keywords.can_show(flag))

    def _report(
        self, added: Mapping[str, str], removed: Sequence[str], moved: Sequence[tuple[str, str]]
    ) -> Delta:
        self._glimpse = {}
        for key in removed:
            self._drop(key)
        flags: dict[str, Flags] = {}
        for key, place in moved:
            old = self._flags_of(key)
            new = self._keywords.flags(letters_of(place)) | {
                flag for flag in old if not self._keywords.can_show(flag)
            }
            if new != old:
                flags[key] = self._flags[key] = new
            self._pending.pop(key, None)
            self._place(key, place)
        found = [self._found(key, added[key]) for key in sorted(added, key=self._order)]
        whole = [message for message in found if message is not None]
        return Delta(whole, removed, flags, dict(moved))

    def _order(self, key: str) -> tuple[int, tuple[int, int, str]]:
        return self._foreign_uids.get(key, 2**32), arrival_order(key)

    def _found(self, key: str, place: str) -> Found | None:
        try:
            status = os.lstat(f"{self._directory}/{place}")
        except FileNotFoundError:
            return None  # moved on already: the next poll sees it
        if not stat.S_ISREG(status.st_mode):
            return None
        self._place(key, place)
        flags = self._keywords.flags(letters_of(place))
        self._flags[key] = flags
        size = virtual_size(place)
        return Found(key, place, flags, int(status.st_mtime), self._foreign_uids.get(key, 0), size)

    def _place(self, key: str, place: str) -> None:
        self._places[key] = place
        if place.startswith("new/"):
            self._in_new.add(key)
        else:
            self._in_new.discard(key)

    def _drop(self, key: str) -> None:
        self._places.pop(key, None)
        self._flags.pop(key, None)
        self._pending.pop(key, None)
        self._in_new.discard(key)

    def _flags_of(self, key: str) -> Flags:
        return self._flags[key] if key in self._flags else self._keywords.flags(letters_of(self._places[key]))

    # Reading.

    def read(self, key: str) -> bytes:
        """See `MailboxFormat.read`."""
        return with_crlf(self._follow(key, self._read_file))

    def contents(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """See `MailboxFormat.contents`."""
        for key in keys:
            try:
                yield with_crlf(self._read_file(f"{self._directory}/{self._places[key]}"))
            except (KeyError, FileNotFoundError):
                yield from super().contents([key])

    def headers(self, keys: Iterable[str]) -> Iterator[bytes | None]:
        """See `MailboxFormat.headers`: of a message with a usual header no more is read than a block."""
        for key in keys:
            try:
                path = f"{self._directory}/{self._places[key]}"
                start = self._read_file(path, _HEADER_BLOCK)
                yield header_in(start) or _header_of(self._read_file(path))
            except (KeyError, FileNotFoundError):
                yield from super().headers([key])

    def _follow(self, key: str, act: Callable[[str], bytes]) -> bytes:
        """`act(path)` where the message lies now. Raises MessageGone."""
        for look_again in (False, True):
            if look_again:
                self._glimpse = self._list_all()
            place = self._glimpse.get(key) or (None if look_again else self._places.get(key))
            if place is not None:
                try:
                    return act(f"{self._directory}/{place}")
                except FileNotFoundError:
                    continue
        raise MessageGone("The message is gone")

    def _read_file(self, path: str, most: int = 0) -> bytes:
        """What the file holds, as it is stored; where `most` is given, its first so many octets."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if self._group is not None:
                check_group(descriptor, self._group)
            content = os.read(descriptor, most or _USUAL_SIZE)
            if most:
                return content
            if len(content) < _USUAL_SIZE and not os.read(descriptor, 1):
                return content
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                file.seek(0)
                return file.readall()
        finally:
            os.close(descriptor)

    # Writing.

    @contextmanager
    def _writing(self, *subdirectories: str) -> Iterator[None]:
        """Our own changes of the subdirectories do not look like others'."""
        unchanged = [name for name in subdirectories if self._marks[name] == self._mark(name)]
        for name in subdirectories:
            self._marks[name] = None  # where this fails half way, the next poll reads all
        yield
        for name in unchanged:
            self._marks[name] = self._mark(name)
        self._written, self._wrote = self._mark("cur"), True

    def append(self, messages: Sequence[NewMessage]) -> tuple[Sequence[Found], Delta | None]:
        """See `MailboxFormat.append`."""
        self._keywords.provide(flag for message in messages for flag in message.flags)
        drafts: list[Draft] = []
        try:
            for message in messages:
                draft = Draft(self._directory, self._hostname)
                drafts.append(draft)
                draft.write(as_stored(message.content))
                draft.finish(message.internal_date)
            with self._writing("cur"):
                names = [
                    self._publish(draft, message.flags)
                    for draft, message in zip(drafts, messages, strict=True)
                ]
                sync_directory(os.path.join(self._directory, "cur"))
        except BaseException:
            for draft in drafts:
                draft.discard()
            raise
        return [self._take(name, message.flags) for name, message in zip(names, messages, strict=True)], None

    def _publish(self, draft: Draft, flags: Flags) -> str:
        name = f"{draft.name()}:2,{self._keywords.letters(flags)}"
        draft.publish("cur", name)
        return name

    def _take(self, name: str, flags: Flags) -> Found:
        """The new file of ours in cur, known."""
        key, place = key_of(name), "cur/" + name
        status = os.stat(os.path.join(self._directory, place))
        self._place(key, place)
        self._flags[key] = flags
        return Found(key, place, flags, int(status.st_mtime), 0, virtual_size(name))

    def link(self, source: MailboxFormat, flags: Mapping[str, Flags]) -> Sequence[Found] | None:
        """See `MailboxFormat.link`: hard links, so that nothing is read, written or fsynced but the names."""
        if not isinstance(source, MaildirFormat) or source._group is not None or self._group is not None:
            return None  # what is a group's has a mode of its own
        self._keywords.provide(flag for each in flags.values() for flag in each)
        linked: list[tuple[str, Flags]] = []
        try:
            make_maildir(self._directory)
            with self._writing("cur"):
                for key, wanted in flags.items():
                    linked.append((self._link(source, key, wanted), wanted))
                sync_directory(os.path.join(self._directory, "cur"))
        except BaseException as error:
            for name, _ in linked:
                os.unlink(os.path.join(self._directory, "cur", name))
            if isinstance(error, OSError) and error.errno in _CANNOT_LINK:
                return None
            raise
        return [self._take(name, wanted) for name, wanted in linked]

    def _link(self, source: MaildirFormat, key: str, flags: Flags) -> str:
        now = time.time_ns()
        sizes = "".join(re.findall(r",[SW]=[0-9]+", key))
        unique = f"{now // 10**9}.M{now // 1000 % 10**6:06}P{os.getpid()}Q{next(counter)}.{self._hostname}"
        name = f"{harmless(unique)}{sizes}:2,{self._keywords.letters(flags)}"

        def link(path: str) -> bytes:
            os.link(path, os.path.join(self._directory, "cur", name), follow_symlinks=False)
            return b""

        source._follow(key, link)
        return name

    def write_flags(self, flags: Mapping[str, Flags]) -> Delta | None:
        """See `MailboxFormat.write_flags`: files are renamed at once, durably when settled."""
        try:
            self._keywords.provide(flag for each in set(flags.values()) for flag in each)
        except OSError:
            pass  # another program holds dovecot-keywords; the keywords stay in state.db
        places: dict[str, str] = {}
        with self._writing("new", "cur"):
            for key, wanted in flags.items():
                if key in self._places:
                    self._flags[key] = wanted
                    place = self._rename(key, wanted)
                    if place is not None:
                        places[key] = place
        return Delta(places=places) if places else None

    def _rename(self, key: str, flags: Flags) -> str | None:
        """The file's name shows the flags; its place, None where that did not change or it is gone."""
        self._pending.pop(key, None)
        old = self._places[key]
        place = self._place_for(key, old, flags)
        if place == old and key not in self._glimpse:
            return None
        try:
            os.rename(f"{self._directory}/{old}", f"{self._directory}/{place}")
        except FileNotFoundError:
            found = self._rename_elsewhere(key, flags)
            if found is None:
                return None
            place = found
        self._glimpse.pop(key, None)
        self._unsynced |= _BOTH if old.startswith("new/") else _CUR
        self._place(key, place)
        return place

    def _rename_elsewhere(self, key: str, flags: Flags) -> str | None:
        """As `_rename`, of a file that another program renamed or removed."""
        place = ""

        def rename(path: str) -> bytes:
            nonlocal place
            place = self._place_for(key, path[len(self._directory) + 1 :], flags)
            os.rename(path, f"{self._directory}/{place}")
            return b""

        try:
            self._follow(key, rename)
        except MessageGone:
            return None
        return place

    def _place_for(self, key: str, old: str, flags: Flags) -> str:
        return f"cur/{key}{self._keywords.ending(flags, old[_PREFIX + len(key) :])}"

    def remove(self, keys: Sequence[str], keeps: bool = True) -> Delta | None:
        """See `MailboxFormat.remove`."""
        touched: set[str] = set()
        new = f"{self._directory}/new/"
        remove = self._keep if keeps and self._bury is not None else os.unlink

        def take_away(path: str) -> bytes:
            remove(path)
            touched.add("new" if path.startswith(new) else "cur")
            return b""

        with self._writing("new", "cur"):
            for key in keys:
                try:
                    self._follow(key, take_away)
                except MessageGone:
                    pass
            if keeps:
                self._sync_graves()
            for name in touched:
                sync_directory(os.path.join(self._directory, name))
        for key in keys:
            self._drop(key)
        return None

    def _keep(self, path: str) -> None:
        """The file is out of the maildir, buried if possible: a full disk must not hinder removal."""
        assert self._bury is not None
        try:
            self._bury(path)
        except FileNotFoundError:
            raise
        except OSError:
            os.unlink(path)  # another file system, no room, no right: then it is gone for good

    def settle(self) -> Delta | None:
        """See `MailboxFormat.settle`: seen messages move to cur, old files leave tmp."""
        self._clean_tmp()
        waiting = {key: self._flags_of(key) for key in self._in_new}
        waiting.update(self._pending)
        delta = self.write_flags(waiting) if waiting else None
        self._sync()
        marks: dict[str, _Mark | None] = dict(self._marks)
        now = self._clock()
        trusted = all(mark and self._is_settled(mark, now) for mark in marks.values())
        self._settled = marks if trusted else None
        return Delta(places=delta.places if delta else None, token=_token(marks) if trusted else "-")

    def _clean_tmp(self) -> None:
        self._cleaned = self._clock()
        limit = self._cleaned - ABANDONED
        try:
            with os.scandir(os.path.join(self._directory, "tmp")) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if max(status.st_mtime, status.st_ctime) < limit and stat.S_ISREG(status.st_mode):
                        os.unlink(entry.path)
        except FileNotFoundError:
            pass

    def export(self, uidvalidity: int, uidnext: int, uids: Mapping[str, int]) -> None:
        """See `MailboxFormat.export`."""
        write_uidlist(self._control, uidvalidity, uidnext, uids)

    def is_exported(self, uidvalidity: int, uidnext: int) -> bool:
        """See `MailboxFormat.is_exported`."""
        return uidlist_figures(self._control) == (uidvalidity, uidnext)

    def foreign_mark(self) -> str:
        """See `MailboxFormat.foreign_mark`: that of dovecot-uidlist."""
        return uidlist_mark(self._control)

    def foreign_uids(self) -> Mapping[str, int]:
        """See `MailboxFormat.foreign_uids`; those that `adopted` has just read."""
        return self._foreign_uids

    def watched_paths(self) -> Sequence[str]:
        """See `MailboxFormat.watched_paths`."""
        return [os.path.join(self._directory, name) for name in ("new", "cur")]


def header_in(start: bytes) -> bytes | None:
    """The header of the message that begins so, CRLF line ends; None where its end is not there."""
    end = start.find(b"\n\n") + 2 if b"\r" not in start else len(start)
    text = with_crlf(start[:end])
    end = header_end(text)
    return text[:end] if text.startswith(b"\r\n") or text.endswith(b"\r\n\r\n", 0, end) else None


def _header_of(content: bytes) -> bytes:
    text = with_crlf(content)
    return text[: header_end(text)]


_PREFIX: Final = len("cur/")  # as long as "new/"
_CUR: Final = frozenset({"cur"})
_BOTH: Final = frozenset({"cur", "new"})
_CANNOT_LINK: Final = (1, 18, 31, 95)  # EPERM, EXDEV, EMLINK, EOPNOTSUPP


def _token(marks: Mapping[str, _Mark | None]) -> str:
    new, cur = marks["new"], marks["cur"]
    if new is None or cur is None:
        return "-"  # nothing that a later poll could match
    return f"maildir {new[0]}.{new[1]} {cur[0]}.{cur[1]}"
