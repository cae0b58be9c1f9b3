"""Reading files that users write and the server obeys: .forward and :include: lists.

The file is opened once, never waited for, and judged by its descriptor: whoever swaps it for
another one meanwhile gains nothing. Call with the owner's rights. RELIABILITY B8.

A .forward counts where it is a regular file of the user or of root, not too large, in a
directory that others cannot write, with exactly the mode that `forward_file_mode` names. Without
such a mode Postfix's rule holds: anything but writable by others. What does not count is
passed over with a warning that names the cure.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from mailserver.delivery.job import Forward, Owner

LONGEST_FORWARD: Final = 64 * 1024  # octets
LONGEST_INCLUDE: Final = 16 * 1024 * 1024
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)


class _Unusable(Exception):
    """The file is there and does not count; the text is the warning."""


def read_forward(
    owner: Owner, paths: tuple[str, ...], mode: int | None
) -> tuple[Forward | None, tuple[str, ...]]:
    """The first of `paths` that counts, and warnings for those before it that do not. Raises OSError."""
    warnings = []
    for path in paths:
        try:
            text = _read_one(owner, path, mode)
        except _Unusable as unusable:
            warnings.append(str(unusable))
            continue
        if text is not None:
            return Forward(path, text), tuple(warnings)
    return None, tuple(warnings)


def _read_one(owner: Owner, path: str, mode: int | None) -> bytes | None:
    """The text; None where there is no such file."""
    try:
        os.lstat(path)  # nearly nobody has one
    except OSError as error:
        if error.errno in _ABSENT:
            return None
    directory, name = os.path.split(path)
    try:
        place = os.open(directory or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    try:
        descriptor, is_readable = _open_beneath(place, name, path)
        if descriptor is None:
            return None
        try:
            _judge_directory(path, os.fstat(place))
            _judge(owner, path, os.fstat(descriptor), mode)
            if not is_readable:
                raise _Unusable(f"cannot open file {path}: Permission denied: chmod u+r {path}")
            return _read_whole(descriptor, path, LONGEST_FORWARD)
        finally:
            os.close(descriptor)
    finally:
        os.close(place)


def _open_beneath(place: int, name: str, path: str) -> tuple[int | None, bool]:
    """A descriptor to judge the file by, None where there is none, and whether it can be read."""
    try:
        return os.open(name, _READ | os.O_NOFOLLOW, dir_fd=place), True
    except OSError as error:
        if error.errno in _ABSENT:
            return None, False
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise _Unusable(f"file {path} is not a regular file")
        if error.errno != errno.EACCES:
            raise
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place), False


def _judge_directory(path: str, found: os.stat_result) -> None:
    if found.st_mode & stat.S_IWOTH:
        directory = os.path.dirname(path)
        raise _Unusable(f"file {path} is ignored: its directory is world writable; chmod o-w {directory}")


def _judge(owner: Owner, path: str, found: os.stat_result, mode: int | None) -> None:
    permissions = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        raise _Unusable(f"file {path} is not a regular file")
    if found.st_uid not in (owner.uid, 0):
        raise _Unusable(f"file {path} has bad owner uid {found.st_uid}: chown {owner.name} {path}")
    if mode is not None and permissions != mode:
        raise _Unusable(
            f"file {path} has mode {permissions:04o}, must be {mode:04o}: chmod {mode:04o} {path}"
        )
    if permissions & stat.S_IWOTH:
        raise _Unusable(f"file {path} is world writable: chmod o-w {path}")


def _read_whole(descriptor: int, path: str, limit: int) -> bytes:
    """All of the file. An empty answer of read(2) is its end; raises _Unusable where it is too long."""
    blocks, length = [], 0
    while block := os.read(descriptor, limit + 1 - length):
        blocks.append(block)
        length += len(block)
        if length > limit:
            raise _Unusable(f"file {path} is larger than {limit} bytes")
    return b"".join(blocks)


def read_include(path: str) -> bytes:
    """The text of an :include: file. Raises OSError where it cannot be used, with the reason."""
    descriptor = os.open(path, _READ)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
        if found.st_mode & stat.S_IWOTH:
            raise OSError(errno.EPERM, "is world writable", path)
        return _read_whole(descriptor, path, LONGEST_INCLUDE)
    except _Unusable as unusable:
        raise OSError(errno.EFBIG, str(unusable), path)
    finally:
        os.close(descriptor)
