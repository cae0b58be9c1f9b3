"""Opening a mailbox file so that nobody can point us at another one.

A spool may be writable by others (mode 1777, 2775), so a name may be a symbolic link, a hard
link, a FIFO, or somebody else's file. What was opened is judged by its descriptor and
compared with the name; locks come afterwards (`store.locking` compares once more). Opened
without updating the access time where that is allowed: reading by IMAP must not hide new
mail from the shell's `You have new mail`. RELIABILITY 8.2; Postfix's mbox_open does the same,
except that it follows links made by root.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from mailserver.durable import sync_directory

_COMMON: Final = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafeMailbox(OSError):
    """What bears the name is not a mailbox that we may use. `is_permanent`: nobody will repair that."""

    def __init__(self, path: str, text: str, is_permanent: bool = False) -> None:
        super().__init__(errno.EPERM, text, path)
        self.text = text
        self.is_permanent = is_permanent


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOATIME, 0o600)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    return os.open(path, flags, 0o600)  # O_NOATIME is for the owner alone


def _open_or_create(path: str, flags: int, create: bool) -> tuple[int, bool]:
    while True:
        try:
            return _open(path, flags), False
        except FileNotFoundError:
            if not create:
                raise
        try:
            return _open(path, flags | os.O_CREAT | os.O_EXCL), True
        except FileExistsError:
            continue


def open_mailbox(path: str, access: int, owner: int | None = None, create: bool = False) -> int:
    """The mailbox's descriptor; made with mode 0600, its name durable, where `create` and it was missing.

    `access` is O_RDONLY or O_RDWR, with O_APPEND where wished. `owner`, where given, must own it.
    Raises UnsafeMailbox, OSError.
    """
    try:
        descriptor, is_new = _open_or_create(path, access | _COMMON, create)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise UnsafeMailbox(path, f"destination {path} is not a regular file", True)
        raise
    try:
        _judge(path, os.fstat(descriptor), owner)
        if is_new:
            sync_directory(os.path.dirname(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _judge(path: str, opened: os.stat_result, owner: int | None) -> None:
    if not stat.S_ISREG(opened.st_mode):
        raise UnsafeMailbox(path, f"destination {path} is not a regular file", True)
    if owner is not None and opened.st_uid != owner:
        raise UnsafeMailbox(path, f"destination {path} is not owned by recipient")
    if opened.st_nlink > 1:
        raise UnsafeMailbox(path, f"destination {path} has {opened.st_nlink} hard links")


def create_mailbox(path: str, uid: int, gid: int) -> None:
    """The mailbox exists, empty if it was missing, then owned by uid and gid: for a role that is root.

    Needed where the user may not make files in the spool. What exists is left alone.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _COMMON, 0o600)
    except FileExistsError:
        return
    try:
        os.fchown(descriptor, uid, gid)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(os.path.dirname(path))
