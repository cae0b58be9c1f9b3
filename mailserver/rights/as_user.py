"""Becoming another user for good.

Only ever in a process of its own: `os.seteuid` in a process with threads changes the rights
of all of them, so nothing here is temporary. After `become` the process has the user's uid
and gid three times over, the groups that were named and no others, no capability, umask 077,
and cannot go back; that is tried out, and a process that could go back is ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from typing import Final

NOBODY: Final = 65534
_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_HIGHEST_CAPABILITY: Final = 63
_CAPABILITY_VERSION: Final = 0x20080522  # capset(2), version 3

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to become. `groups` are the supplementary groups: none unless named."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class RightsError(Exception):
    """The process does not have the rights it should have: it must end at once."""


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise RightsError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def become(identity: Identity) -> None:
    """The process is that user and nobody else, for good. Raises RightsError; then end the process.

    The signal that it gets when its parent dies stays, although the kernel drops it with the uid.
    """
    if min(identity.uid, identity.gid, *identity.groups) <= 0:
        raise RightsError(f"{identity.name}: nothing here is done as root")
    parent, death_signal = os.getppid(), _death_signal()
    try:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise RightsError(f"becoming {identity.name}: {error.strerror}") from error
    _verify(identity)
    _prctl(_PR_SET_DUMPABLE, 0)
    os.umask(0o077)
    if death_signal:
        die_with_parent(parent, death_signal)


def _verify(identity: Identity) -> None:
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise RightsError(f"{identity.name}: the ids did not change")
    if set(os.getgroups()) - {identity.gid} != set(identity.groups) - {identity.gid}:
        raise RightsError(f"{identity.name}: groups are left over")
    for regain in (os.setuid, os.setgid):
        try:
            regain(0)
        except PermissionError:
            continue
        raise RightsError(f"{identity.name}: root could be regained")


def become_confined(identity: Identity) -> None:
    """As `become`; further, no program run from here can gain rights, not even a set-uid one.

    For roles that run no commands. The capability bounding set is emptied where the kernel lets us.
    """
    _empty_bounding_set()
    become(identity)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def become_powerless_root(groups: tuple[int, ...]) -> None:
    """The process is uid 0 without a single capability, for good: the owner of root's files, and no more.

    It may not change its uid, nor pass modes or owners that stop others. Raises RightsError.
    """
    _empty_bounding_set()
    try:
        os.setgroups(groups)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    except OSError as error:
        raise RightsError(f"giving up root's rights: {error.strerror}") from error
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise RightsError(f"capset: {os.strerror(ctypes.get_errno())}")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)
    try:
        os.setuid(NOBODY)
    except PermissionError:
        return
    raise RightsError("root: capabilities are left over")


def _empty_bounding_set() -> None:
    for capability in range(_HIGHEST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)


def _death_signal() -> int:
    number = ctypes.c_int()
    if _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0) != 0:
        raise RightsError(f"prctl: {os.strerror(ctypes.get_errno())}")
    return number.value


def die_with_parent(parent: int, death_signal: int = signal.SIGKILL) -> None:
    """This process gets the signal when its parent (whose pid is given) ends; also if it already has.

    A change of uid cancels this, but for that of `become`. prctl(2).
    """
    _prctl(_PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != parent:
        sys.exit("the parent process is gone")
