"""The folders of an account on disk: which there are, and making, moving and removing them.

Three layouts, one interface. INBOX is no folder here; the AccountStore knows it.

Maildir++      root/.Work.2024         every folder a directory of the root; parents need not exist
directories    root/Work/2024          maildirs within maildirs (LAYOUT=fs)
mbox           root/Work               a file; with children it becomes root/Work/mBoX-MeSsAgEs

An mbox cannot have children, as Dovecot's documentation says, unless its messages lie in a named
file of its directory (DIRNAME). We change a mailbox to that form when it gets its first child
and read both forms; Dovecot without DIRNAME shows `Work/mBoX-MeSsAgEs`, so nothing is out of
reach. The change goes over `.Work.nesting`: a directory of that name left by a crash is finished at
the next listing.

Removal renames first, to a name that no listing shows, so that a crash leaves no half folder.
Symbolic links are not followed out of the root: what is no real directory or regular file
is no folder.
"""

from __future__ import annotations

import abc
import os
import shutil
import stat
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final

from mailserver.durable import sync_directory
from mailserver.store.layout import Kind, Layout
from mailserver.store.maildir_deposit import make_maildir
from mailserver.store.names import INBOX, RESERVED, dotted, from_dotted, from_plain, plain
from mailserver.store.shared_files import make_directory, share_file

_TRASH: Final = "..removed-"  # no Maildir++ folder and no plain one begins with two dots
_NESTING: Final = ".nesting"


class Folders(abc.ABC):
    """See the module. Names are checked (`names.checked_name`). All methods block and raise OSError."""

    @abc.abstractmethod
    def names(self) -> Mapping[str, bool]:
        """Every folder and whether it holds messages; false for a level with children only."""

    @abc.abstractmethod
    def path(self, name: str) -> str:
        """Where the folder's messages lie, whether it exists or not."""

    @abc.abstractmethod
    def exists(self, name: str) -> bool:
        """Whether the folder is there and holds messages."""

    @abc.abstractmethod
    def create(self, *names: str) -> None:
        """The folders are there, durably."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """The folder's messages are gone, its children stay."""

    @abc.abstractmethod
    def rename(self, old: str, new: str) -> None:
        """The folder and its children have the new name. What has it already is left alone."""


def folders_of(layout: Layout) -> Folders:
    """The folders of that layout."""
    if layout.kind is Kind.MBOX:
        return MboxFolders(layout.root, layout.dirname, layout.utf8)
    is_shared = not layout.inbox
    if layout.plain:
        return MaildirDirectories(layout.root, is_shared, layout.utf8)
    return MaildirPlusPlus(layout.root, is_shared, layout.utf8)


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _spelt(directory: str, usual: str, name: str, name_of: Callable[[str], str | None]) -> str:
    """How the entry of that name is spelt in the directory: as `usual` where there is none.

    Another program, or we before, may have written it otherwise (`names`).
    """
    if os.path.lexists(os.path.join(directory, usual)):
        return usual
    try:
        return next((entry for entry in sorted(os.listdir(directory)) if name_of(entry) == name), usual)
    except (FileNotFoundError, NotADirectoryError):
        return usual


def make_directories(path: str, is_shared: bool = False) -> None:
    """The directory and its parents are there, durably; new ones belong to a group where `is_shared`."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_directories(parent, is_shared)
    try:
        make_directory(path, is_shared)
    except FileExistsError:
        return
    sync_directory(parent)


def _discard(root: str, path: str) -> None:
    """The tree is gone: renamed out of sight first."""
    hidden = os.path.join(root, f"{_TRASH}{os.getpid()}-{os.lstat(path).st_ino}")
    os.rename(path, hidden)
    sync_directory(os.path.dirname(path))
    _sweep(root)


def _sweep(root: str) -> None:
    """What was renamed out of sight, now or before a crash, is removed."""
    for name in os.listdir(root):
        if name.startswith(_TRASH):
            path = os.path.join(root, name)
            if _is_directory(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


class MaildirPlusPlus(Folders):
    """Maildir++: `.Work.2024` in the root."""

    def __init__(self, root: str, is_shared: bool = False, utf8: bool = False) -> None:
        self._root = root
        self._is_shared = is_shared
        self._utf8 = utf8

    def names(self) -> Mapping[str, bool]:
        """See `Folders.names`."""
        try:
            with os.scandir(self._root) as entries:
                directories = [each.name for each in entries if each.name[0] == "." and _is_real(each)]
        except FileNotFoundError:
            return {}
        found = {name: True for name in map(self._name, directories) if name and name != INBOX}
        return _with_parents(found)

    def _name(self, directory: str) -> str | None:
        return from_dotted(directory, self._utf8)

    def path(self, name: str) -> str:
        """See `Folders.path`."""
        return os.path.join(self._root, _spelt(self._root, dotted(name, self._utf8), name, self._name))

    def exists(self, name: str) -> bool:
        """See `Folders.exists`."""
        return _is_directory(self.path(name))

    def create(self, *names: str) -> None:
        """See `Folders.create`."""
        paths = [self.path(name) for name in names]
        make_directories(self._root)
        make_maildir(*paths, is_shared=self._is_shared)
        for path in paths:
            marker = os.path.join(path, "maildirfolder")
            descriptor = os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                share_file(descriptor, path)
            finally:
                os.close(descriptor)

    def delete(self, name: str) -> None:
        """See `Folders.delete`."""
        if self.exists(name):
            _discard(self._root, self.path(name))

    def rename(self, old: str, new: str) -> None:
        """See `Folders.rename`."""
        for name in self.names():
            if name == old or name.startswith(old + "/"):
                target = self.path(new + name[len(old) :])
                if self.exists(name) and not os.path.lexists(target):
                    os.rename(self.path(name), target)
        sync_directory(self._root)


def _is_real(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _with_parents(found: Mapping[str, bool]) -> Mapping[str, bool]:
    names = dict(found)
    for name in found:
        while "/" in name:
            name = name.rpartition("/")[0]
            names.setdefault(name, False)
    return names


class _Plain(Folders):
    """What both layouts of plain directories share. `reserved` are names that are no mailboxes."""

    def __init__(self, root: str, is_shared: bool, utf8: bool, reserved: Container[str]) -> None:
        self._root = root
        self._is_shared = is_shared
        self._utf8 = utf8
        self._reserved = reserved

    def _name(self, levels: Sequence[str]) -> str | None:
        return from_plain(levels, self._utf8, self._reserved)

    def _levels(self, name: str) -> list[str]:
        levels: list[str] = []
        for depth, usual in enumerate(plain(name, self._utf8, self._reserved), 1):
            above = "/".join(name.split("/")[:depth])
            directory = os.path.join(self._root, *levels)
            levels.append(_spelt(directory, usual, above, lambda entry: self._name([*levels, entry])))
        return levels

    def _level(self, name: str) -> str:
        return os.path.join(self._root, *self._levels(name))

    def _walk(self, levels: list[str]) -> Mapping[str, bool]:
        """The folders below a level; `levels` are names on disk."""
        found: dict[str, bool] = {}
        directory = os.path.join(self._root, *levels)
        try:
            with os.scandir(directory) as scanned:
                entries = list(scanned)
        except FileNotFoundError:
            return found
        for entry in entries:
            name = self._name([*levels, entry.name])
            if name is None:
                continue
            is_directory = entry.is_dir(follow_symlinks=False)
            if name == INBOX:
                pass
            elif is_directory or (entry.is_file(follow_symlinks=False) and self._is_mailbox_file(entry.name)):
                found[name] = self.exists(name)
            if is_directory and len(levels) < 16:
                found.update(self._walk([*levels, entry.name]))
        return found

    def _is_mailbox_file(self, name: str) -> bool:
        return False

    def names(self) -> Mapping[str, bool]:
        """See `Folders.names`."""
        return self._walk([])

    def rename(self, old: str, new: str) -> None:
        """See `Folders.rename`."""
        source, target = self._level(old), self._level(new)
        if not os.path.lexists(source) or os.path.lexists(target):
            return
        self._make_parent(new)
        os.rename(source, target)
        sync_directory(os.path.dirname(source))
        sync_directory(os.path.dirname(target))

    def _make_parent(self, name: str) -> None:
        make_directories(os.path.dirname(self._level(name)), self._is_shared)


class MaildirDirectories(_Plain):
    """Maildirs in plain directories: `Work/2024/cur`."""

    def __init__(self, root: str, is_shared: bool = False, utf8: bool = False) -> None:
        super().__init__(root, is_shared, utf8, RESERVED)

    def path(self, name: str) -> str:
        """See `Folders.path`."""
        return self._level(name)

    def exists(self, name: str) -> bool:
        """See `Folders.exists`."""
        return _is_directory(os.path.join(self._level(name), "cur"))

    def create(self, *names: str) -> None:
        """See `Folders.create`."""
        for name in names:
            self._make_parent(name)
        make_maildir(*map(self._level, names), is_shared=self._is_shared)

    def delete(self, name: str) -> None:
        """See `Folders.delete`."""
        path = self._level(name)
        for part in ("cur", "new", "tmp"):
            if _is_directory(os.path.join(path, part)):
                _discard(self._root, os.path.join(path, part))
        if _is_directory(path) and not self._walk(self._levels(name)):
            _discard(self._root, path)


class MboxFolders(_Plain):
    """mbox files: `Work`, or `Work/mBoX-MeSsAgEs` where it has children."""

    def __init__(self, root: str, dirname: str, utf8: bool = False) -> None:
        super().__init__(root, False, utf8, frozenset({dirname}))
        self._dirname = dirname

    def _is_mailbox_file(self, name: str) -> bool:
        return name != self._dirname

    def path(self, name: str) -> str:
        """See `Folders.path`."""
        level = self._level(name)
        return os.path.join(level, self._dirname) if _is_directory(level) else level

    def exists(self, name: str) -> bool:
        """See `Folders.exists`."""
        return _is_file(self.path(name))

    def names(self) -> Mapping[str, bool]:
        """See `Folders.names`."""
        self._finish_nesting(self._root)
        return super().names()

    def create(self, *names: str) -> None:
        """See `Folders.create`."""
        changed: set[str] = set()
        for name in names:
            self._make_parent(name)
            path = self.path(name)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            changed.add(os.path.dirname(path))
        for directory in changed:
            sync_directory(directory)

    def _make_parent(self, name: str) -> None:
        make_directories(self._root)
        levels = name.split("/")
        for depth in range(1, len(levels)):
            level = self._level("/".join(levels[:depth]))
            if _is_file(level):
                self._nest(level)
            make_directories(level)

    def _nest(self, level: str) -> None:
        """The mbox becomes a directory that holds it."""
        parent, base = os.path.split(level)
        nesting = os.path.join(parent, f".{base}{_NESTING}")
        os.mkdir(nesting, 0o700)
        os.rename(level, os.path.join(nesting, self._dirname))
        os.rename(nesting, level)
        sync_directory(level)
        sync_directory(parent)

    def _finish_nesting(self, directory: str) -> None:
        try:
            with os.scandir(directory) as scanned:
                entries = [entry.name for entry in scanned if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return
        for name in entries:
            path = os.path.join(directory, name)
            if name.startswith(".") and name.endswith(_NESTING):
                final = os.path.join(directory, name[1 : -len(_NESTING)])
                if not os.listdir(path):
                    os.rmdir(path)
                elif not os.path.lexists(final):
                    os.rename(path, final)
            elif not name.startswith("."):
                self._finish_nesting(path)

    def delete(self, name: str) -> None:
        """See `Folders.delete`."""
        path = self.path(name)
        if _is_file(path):
            _discard(self._root, path)
        level = self._level(name)
        if _is_directory(level) and not os.listdir(level):
            os.rmdir(level)
