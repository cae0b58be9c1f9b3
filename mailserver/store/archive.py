"""Mail outside a store: maildirs and mboxes in a directory, a file or a tar, read and written.

    maildir   a Maildir++ tree with Dovecot's own files in it: dovecot-uidlist (UIDs and
              UIDVALIDITY), dovecot-keywords, subscriptions; mutt and Dovecot can use it as it is
    mbox      one file per mailbox, with Status, X-Status, X-Keywords, X-UID and X-IMAPbase; below a
              directory with the levels of the name, or one file alone

Nothing here writes into a mailbox that is in use. A tar is read once, from a stream, into a
directory of its own: only regular files, only below it.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, RawIOBase
from typing import IO, Any, Final, Protocol

from mailserver.store.contract import Flags, NewMessage, Uid
from mailserver.store.folders import MaildirDirectories, MaildirPlusPlus, MboxFolders
from mailserver.store.format import MailboxFormat
from mailserver.store.layout import MBOX_DIRNAME
from mailserver.store.maildir import MaildirFormat, as_stored
from mailserver.store.maildir_names import KEYWORD_FILE, Keywords
from mailserver.store.mbox import MboxFormat
from mailserver.store.mbox_fields import header_length, split_fields, status_fields, with_uid
from mailserver.store.mbox_lines import from_line, quoted
from mailserver.store.names import INBOX, dotted, plain
from mailserver.store.uidlist import UIDLIST

_KEYWORD_NUMBERS: Final = 26
_UNSAFE: Final = re.compile(r"(^|/)\.\.(/|$)|\0")


class Readable(Protocol):
    """A stream of which only this is asked."""

    def read(self, size: int, /) -> bytes:
        """The next octets, at most `size`."""


class NoMail(Exception):
    """The source holds nothing that could be read as mail. The text says what was looked for."""


@dataclass(frozen=True, slots=True)
class Box:
    """A mailbox in an archive. UIDVALIDITY and UIDNEXT are 0 where it names none."""

    name: str
    form: MailboxFormat
    uidvalidity: int = 0
    uidnext: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in an archive, not read yet. `uid` is 0 where it has none."""

    key: str
    flags: Flags
    internal_date: int
    uid: int = 0


@dataclass(frozen=True, slots=True)
class Copied:
    """A message on its way into an archive; content with CRLF line ends."""

    uid: Uid
    flags: Flags
    internal_date: int
    content: bytes


# Reading.


def boxes_in(path: str, name: str = INBOX, mboxrd: bool = False) -> Sequence[Box]:
    """The mailboxes of a directory or an mbox file, which is called `name`. Raises NoMail, OSError."""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            if file.read(5) not in (b"From ", b""):
                raise NoMail(f"{path}: no mbox: it does not begin with a From_ line")
        return [_box(name, MboxFormat(path, "", mboxrd=mboxrd))]
    root = _mail_root(path)
    if os.path.isdir(os.path.join(root, "cur")):
        folders = MaildirPlusPlus(root), MaildirDirectories(root)
        paths = {each: form.path(each) for form in folders for each, real in form.names().items() if real}
        forms = {each: MaildirFormat(where, "localhost") for each, where in {INBOX: root, **paths}.items()}
        return [_box(each, form) for each, form in forms.items()]
    found = _mbox_files(root)
    return [_box(each, MboxFormat(where, "", mboxrd=mboxrd)) for each, where in found.items()]


def _mail_root(path: str) -> str:
    """The directory itself, or the only one below it that holds mail: tars often begin with one."""
    if os.path.isdir(os.path.join(path, "cur")):
        return path
    for directory, names, _ in os.walk(path):
        names.sort()
        if "cur" in names:
            return directory
    return path


def _mbox_files(root: str) -> Mapping[str, str]:
    folders = MboxFolders(root, MBOX_DIRNAME)
    found = {name: folders.path(name) for name, real in folders.names().items() if real}
    for each in os.listdir(root):
        if each.upper() == INBOX and os.path.isfile(os.path.join(root, each)):
            found[INBOX] = os.path.join(root, each)
    mboxes = {name: path for name, path in found.items() if _is_mbox(path)}
    if not mboxes:
        raise NoMail(f"{root}: neither a maildir (with cur, new and tmp) nor mbox files")
    return mboxes


def _is_mbox(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(5) in (b"From ", b"")


def _box(name: str, form: MailboxFormat) -> Box:
    form.load([], "")
    adopted = form.adopted()
    return Box(name, form, adopted.uidvalidity, adopted.uidnext)


def letters(box: Box) -> Sequence[Letter]:
    """The messages of the mailbox, in order. Raises OSError."""
    delta = box.form.poll()
    if delta is None:
        return []
    return [Letter(found.key, found.flags, found.internal_date, found.uid) for found in delta.added]


def message(box: Box, letter: Letter) -> NewMessage:
    """The message with its content. Raises MessageGone, OSError."""
    return NewMessage(box.form.read(letter.key), letter.flags, letter.internal_date)


def unpack(stream: Readable, directory: str) -> None:
    """What the tar, compressed or not, holds is below the directory. Raises tarfile.TarError, OSError."""
    with tarfile.open(fileobj=stream, mode="r|*") as tar:  # type: ignore[call-overload]
        for member in tar:
            name = member.name.removeprefix("./")
            if not member.isfile() or name.startswith("/") or _UNSAFE.search(name):
                continue
            path = os.path.join(directory, name)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with open(path, "xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            os.utime(path, (member.mtime, member.mtime))


# Writing.


class _Counted(RawIOBase):
    """What tarfile asks of a file that it writes once through, for a stream that cannot tell."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0

    def tell(self) -> int:
        """Octets written."""
        return self._position

    def write(self, data: Any) -> int:
        """All of it is written."""
        view = memoryview(data)
        self._stream.write(view)
        self._position += view.nbytes
        return view.nbytes


class TarWriter:
    """A tar on a stream, written as it comes."""

    def __init__(self, stream: IO[bytes], when: float) -> None:
        self._tar = tarfile.TarFile(fileobj=_Counted(stream), mode="w", format=tarfile.PAX_FORMAT)
        self._when = int(when)

    def add(self, name: str, content: bytes, when: int | None = None) -> None:
        """A file of that name and content is in the tar."""
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o600
        member.mtime = self._when if when is None else when
        self._tar.addfile(member, BytesIO(content))

    def add_directory(self, name: str) -> None:
        """An empty directory is in the tar."""
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.mtime = tarfile.DIRTYPE, 0o700, self._when
        self._tar.addfile(member)

    def close(self) -> None:
        """The tar is whole; the stream stays open."""
        self._tar.close()


def write_maildir(
    tar: TarWriter, root: str, name: str, uidvalidity: int, uidnext: int, copies: Iterable[Copied]
) -> int:
    """The mailbox is a maildir below `root` in the tar; how many messages it has."""
    directory = root if name == INBOX else f"{root}/{dotted(name)}"
    for part in ("cur", "new", "tmp"):
        tar.add_directory(f"{directory}/{part}")
    keywords = _Letters()
    lines = [b"3 V%d N%d\n" % (uidvalidity, uidnext)]
    for copied in copies:
        content = as_stored(copied.content)
        key = f"{copied.internal_date}.M0P{uidvalidity}Q{copied.uid}.archive"
        key += f",S={len(content)},W={len(copied.content)}"
        tar.add(f"{directory}/cur/{key}:2,{keywords.letters(copied.flags)}", content, copied.internal_date)
        lines.append(b"%d :%b\n" % (copied.uid, key.encode()))
    tar.add(f"{directory}/{UIDLIST}", b"".join(lines))
    if keywords.names:
        numbered = [b"%d %b\n" % each for each in enumerate(keywords.names)]
        tar.add(f"{directory}/{KEYWORD_FILE}", b"".join(numbered))
    return len(lines) - 1


class _Letters:
    """Flag letters of one maildir in an archive; keywords after the 26th have none."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self._plain = Keywords("/nonexistent")

    def letters(self, flags: Flags) -> str:
        """The letters for the flags."""
        keywords = [flag for flag in sorted(flags) if not self._plain.can_show(flag)]
        for keyword in keywords:
            if keyword not in self.names and len(self.names) < _KEYWORD_NUMBERS:
                self.names.append(keyword)
        shown = {chr(ord("a") + self.names.index(word)) for word in keywords if word in self.names}
        return "".join(sorted({*self._plain.letters(flags), *shown}))


def mbox_name(name: str, names: Iterable[str]) -> str:
    """Where a mailbox lies in a tar of mbox files with those `names`."""
    if name == INBOX:
        return INBOX
    has_children = any(other.startswith(name + "/") for other in names)
    return "/".join([*plain(name), MBOX_DIRNAME] if has_children else plain(name))


def mbox_pieces(uidvalidity: int, uidnext: int, copies: Iterable[Copied], mboxrd: bool) -> Iterator[bytes]:
    """The mailbox as an mbox file."""
    base = b"%d %010d" % (uidvalidity, uidnext - 1)
    for copied in copies:
        content = as_stored(copied.content)
        end = header_length(content)
        header = split_fields(content[:end])[0]
        if header and not header.endswith(b"\n"):
            header += b"\n"
        header = with_uid(header + status_fields(copied.flags), copied.uid, base)
        base = b""
        text = b"".join(quoted((header, content[end:] or b"\n"), mboxrd))
        yield from_line("", copied.internal_date) + text + (b"\n" if text.endswith(b"\n") else b"\n\n")
