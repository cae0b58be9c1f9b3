"""passwd entries through the system's own name service (files, LDAP, systemd, …).

Python's `pwd` gives KeyError both for "no such user" and for "the directory server is
down"; a mail server must not bounce mail for the second, so getpwnam_r(3) is called directly.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.account import TemporaryAccountFailure

_BUFFER_SIZE: Final = 65_536
# getpwnam_r(3) ERRORS: these mean "not found", on one system or another.
_NOT_FOUND: Final = frozenset({0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM, errno.EWOULDBLOCK})


@dataclass(frozen=True, slots=True)
class PasswdEntry:
    """One user of the system. passwd(5)."""

    name: str
    password: str
    uid: int
    gid: int
    gecos: str
    home: str
    shell: str


class _Passwd(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("uid", ctypes.c_uint),
        ("gid", ctypes.c_uint),
        ("gecos", ctypes.c_char_p),
        ("home", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    ]


_libc: Final = ctypes.CDLL(None, use_errno=True)


def passwd_entry(name: str) -> PasswdEntry | None:
    """The user of that name, None where there is none. Raises TemporaryAccountFailure."""
    if "\0" in name:
        return None
    entry, found = _Passwd(), ctypes.POINTER(_Passwd)()
    buffer = ctypes.create_string_buffer(_BUFFER_SIZE)
    status = _libc.getpwnam_r(
        os.fsencode(name), ctypes.byref(entry), buffer, ctypes.c_size_t(_BUFFER_SIZE), ctypes.byref(found)
    )
    if found:
        return _copy(entry)
    if status in _NOT_FOUND:
        return None
    raise TemporaryAccountFailure(f"passwd: looking up a user failed: {os.strerror(status)}")


def _copy(entry: _Passwd) -> PasswdEntry:
    def text(value: bytes | None) -> str:
        return os.fsdecode(value or b"")

    return PasswdEntry(
        text(entry.name),
        text(entry.password),
        entry.uid,
        entry.gid,
        text(entry.gecos),
        text(entry.home),
        text(entry.shell),
    )
