"""Files that a group shares: in a directory of mode 2770 what is made belongs to the group as well.

A directory is shared where it has the set-group-ID bit and the group may write: then its files get the
group's rights that it has itself (the kernel gives them the group). Everywhere else what we make is the
owner's alone. Directories are shared in turn only where the caller says so: the mail spool has such a
mode, too, and the maildirs in it are private.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_SHARED: Final = stat.S_ISGID | stat.S_IWGRP


def group_bits(directory: str) -> int:
    """The group's part of the mode that files in the directory get; 0 where it is not shared."""
    mode = os.stat(directory).st_mode
    return mode & 0o070 if mode & _SHARED == _SHARED else 0


def group_of(directory: str) -> int | None:
    """The group that shares the directory; None where none does, or the directory is not there."""
    try:
        return os.stat(directory).st_gid if group_bits(directory) else None
    except OSError:
        return None


def list_of_group(directory: str, group: int) -> list[str]:
    """The names in the directory, which must be the group's. Raises OSError.

    A member could put a link to another's own mail in its place, and have him show it to the group.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:  # a link, to O_NOFOLLOW
        raise PermissionError(errno.EACCES, "no directory of its own", directory) from error
    try:
        check_group(descriptor, group)
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def check_group(descriptor: int, group: int) -> None:
    """PermissionError where the file is not the group's to read."""
    found = os.fstat(descriptor)
    if found.st_gid != group or not found.st_mode & stat.S_IRGRP:
        raise PermissionError(errno.EACCES, "not of the group that shares the mailbox")


def share_file(descriptor: int, directory: str) -> None:
    """The new file is the group's as well, where its directory is shared."""
    bits = group_bits(directory) & 0o060
    if bits:
        os.fchmod(descriptor, 0o600 | bits)


def make_directory(path: str, is_shared: bool) -> None:
    """The new directory is there, and shared as its parent is where `is_shared`. Raises FileExistsError."""
    os.mkdir(path, 0o700)
    bits = group_bits(os.path.dirname(path) or ".") if is_shared else 0
    if bits:
        os.chmod(path, stat.S_ISGID | 0o700 | bits)
