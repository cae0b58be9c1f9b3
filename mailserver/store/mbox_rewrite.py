"""Writing an mbox file anew, without some messages or with other status fields.

Usually beside the old one: a hidden file `.NAME.rewrite` with the old one's owner and mode, synced, locked,
renamed over the mailbox, the directory synced. At any moment one of the two, whole, bears the name. A
kill before the rename leaves the hidden file, which the next rewrite replaces.

Where the directory does not let us make that file (a spool of mode 0755, or group mail not
ours), in place: what the file is to hold from the first change on is written to a *journal* in
a directory of our own first, and synced; then it is copied over the old text, the file cut, synced, and the
journal removed. After a kill the journal is there, and `recover` repeats the copy before
anybody of us looks at the mailbox again; what other programs appended meanwhile is kept
(`store.mbox_journal`). In place a mailbox only ever shrinks; flags that would make it grow wait.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from mailserver.durable import sync_directory, write_all
from mailserver.store import locking, mbox_journal
from mailserver.store.contract import Flags
from mailserver.store.mbox_fields import Place, header_length, with_flags
from mailserver.store.mbox_scan import pread_all

_DRAFT: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_MAY_NOT: Final = (errno.EACCES, errno.EPERM, errno.EROFS)

Span = tuple[int, int]  # offset and length in the old file


@dataclass(frozen=True, slots=True)
class Plan:
    """What the new file consists of, in order, and where the messages will lie."""

    parts: Sequence[Span | bytes]
    places: Mapping[str, Place]
    size: int


def plan(
    descriptor: int,
    places: Mapping[str, Place],
    removed: set[str],
    flags: Mapping[str, Flags],
    change: Callable[[str, bytes], bytes] = lambda key, header: header,
    start: bytes | None = None,
) -> Plan:
    """The file without the `removed` messages, and with `flags` in those that they are given for.

    `places` are all messages of the file. `change` makes more of the header of a message that gets flags.
    `start`, where given, takes the place of what stands before the first.
    """
    size = os.fstat(descriptor).st_size
    ordered = sorted(places.items(), key=lambda item: item[1].offset)
    at = ordered[0][1].offset if ordered else size
    parts: list[Span | bytes] = [(0, at)]
    if start is not None:
        parts, at = [start], len(start)
    fresh: dict[str, Place] = {}
    for key, place in ordered:
        if key in removed:
            continue
        if key in flags:
            header, rest = _reflagged(descriptor, place, flags[key], partial(change, key))
            parts += [header, rest]
            fresh[key] = Place(at, len(header) + rest[1], flags[key])
        else:
            _extend(parts, place.offset, place.length)
            fresh[key] = place._replace(offset=at)
        at += fresh[key].length
    return Plan(parts, fresh, at)


def _extend(parts: list[Span | bytes], offset: int, length: int) -> None:
    last = parts[-1]
    if isinstance(last, tuple) and last[0] + last[1] == offset:
        parts[-1] = (last[0], last[1] + length)
    else:
        parts.append((offset, length))


def _reflagged(
    descriptor: int, place: Place, flags: Flags, change: Callable[[bytes], bytes]
) -> tuple[bytes, Span]:
    """The message's `From ` line and header with these flags, and the span of the rest."""
    raw = pread_all(descriptor, place.length, place.offset)
    start = raw.find(b"\n") + 1
    end = start + header_length(raw[start:])
    header = change(with_flags(raw[start:end], flags))
    return raw[:start] + header, (place.offset + end, place.length - end)


@contextlib.contextmanager
def rewritten(
    path: str, held: locking.Held, draft: int | None, wanted: Plan, journal: str, is_new: bool
) -> Iterator[int]:
    """The mailbox holds what was planned, durable; within, its descriptor, locked.

    `draft` is the answer of `make_draft`, closed here. `is_new`: the file's times say that there is new
    mail, and shall go on to say so. `journal` is the path of its journal.
    Raises OSError, and the mailbox is as it was.
    """
    if draft is None:
        mbox_journal.replace(held, journal, wanted.parts, wanted.size)
        yield held.descriptor
        return
    try:
        _replace(path, held, draft, wanted.parts, is_new)
        yield draft
    finally:
        os.close(draft)


def _draft_path(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.rewrite")


def make_draft(path: str, descriptor: int) -> int | None:
    """A new file beside the mailbox, with its owner and mode, locked; None where we may not make it."""
    try:
        return _draft(_draft_path(path), os.fstat(descriptor))
    except OSError as error:
        if error.errno not in _MAY_NOT:
            raise
        return None


def _draft(name: str, old: os.stat_result) -> int:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)  # left by a kill: we hold the mailbox's lock
    draft = os.open(name, _DRAFT, 0o600)
    try:
        made = os.fstat(draft)
        if (made.st_uid, made.st_gid) != (old.st_uid, old.st_gid):
            os.fchown(draft, old.st_uid, old.st_gid)
        os.fchmod(draft, old.st_mode & 0o7777)
        locking.lock_descriptor(draft, exclusive=True)
    except BaseException:
        os.unlink(name)
        os.close(draft)
        raise
    return draft


def _replace(path: str, held: locking.Held, draft: int, parts: Sequence[Span | bytes], is_new: bool) -> None:
    name = _draft_path(path)
    size = os.fstat(held.descriptor).st_size
    try:
        for part in parts:
            if isinstance(part, bytes):
                write_all(draft, part)
            else:
                mbox_journal.copy(held, held.descriptor, part[0], draft, part[1])
        if is_new:
            times = os.fstat(held.descriptor)
            os.utime(draft, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.fsync(draft)
        held.assure(size)
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_directory(os.path.dirname(path))
    _empty(held.descriptor)


def _empty(descriptor: int) -> None:
    """The file that bore the name is empty, unless it has another: whoever has it open sees that it is over.

    mutt would take what was appended to it for the end of the new one, and write at places of the old.
    """
    with contextlib.suppress(OSError):  # the mailbox is the new one already
        if not os.fstat(descriptor).st_nlink:
            os.ftruncate(descriptor, 0)
