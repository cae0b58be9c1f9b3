"""Stopping real code at any of its system calls, in a child process.

The child's `os` functions are counted; the n-th call kills the process, after half of the data
where it writes, or fails with an error. Nothing else is replaced.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

CALLS: Final = (
    "open",
    "write",
    "pwrite",
    "sendfile",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "link",
    "unlink",
    "utime",
)
KILLED: Final = 77
_NOBODY: Final = 65534


def in_child(act: Callable[[], None]) -> int:
    """The exit status of a child that did this: 0 done, 1 raised, KILLED."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        act()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)


def _at(call: int, happen: Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]) -> None:
    """The call of that number, counted from 1, is answered by `happen`."""
    count = 0

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            return happen(name, real, args) if count == call else real(*args, **named)

        return counted

    for name in CALLS:
        setattr(os, name, wrap(name, getattr(os, name)))


def _half(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Half of what a writing call would have written is written."""
    if name in ("write", "pwrite"):
        real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
    elif name == "sendfile":
        real(*args[:3], args[3] // 2)


def killed_at(call: int, act: Callable[[], None]) -> int:
    """The exit status of a child that is killed at its n-th call."""

    def die(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
        _half(name, real, args)
        os._exit(KILLED)

    def run() -> None:
        _at(call, die)
        act()

    return in_child(run)


def failing_at(call: int, number: int, act: Callable[[], None]) -> int:
    """The exit status of a child whose n-th call fails with that errno; 1 where `act` raised."""

    def fail(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
        _half(name, real, args)
        raise OSError(number, os.strerror(number))

    def run() -> None:
        _at(call, fail)
        act()

    return in_child(run)


def every_kill(prepare: Callable[[], None], act: Callable[[], None]) -> Iterator[int]:
    """`prepare`, then `act` killed at its first call, again at its second …; the last time it is not killed.

    Yields the child's exit status each time.
    """
    for call in range(1, 500):
        prepare()
        status = killed_at(call, act)
        yield status
        if status != KILLED:
            return
    raise AssertionError("the act never ends")


def become_nobody() -> None:
    """In a child of root: the process has nobody's rights. Otherwise nothing changes."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def give_to_nobody(path: Path, mode: int) -> None:
    """The file is the user's that `become_nobody` makes."""
    path.chmod(mode)
    if os.getuid() == 0:
        os.chown(path, _NOBODY, _NOBODY)


@contextlib.contextmanager
def make_closed_spool(*names: str) -> Iterator[Path]:
    """A directory with empty mailboxes whose owner (nobody, for root) may make no files there."""
    directory = Path(tempfile.mkdtemp(prefix="spool-"))
    try:
        for name in names:
            mailbox = directory / name
            mailbox.touch()
            give_to_nobody(mailbox, 0o600)
        directory.chmod(0o555)
        yield directory
    finally:
        directory.chmod(0o700)
        shutil.rmtree(directory)


@contextlib.contextmanager
def make_open_directory() -> Iterator[Path]:
    """A directory of the user that `become_nobody` makes."""
    directory = Path(tempfile.mkdtemp(prefix="home-"))
    directory.chmod(0o755)
    if os.getuid() == 0:
        os.chown(directory, _NOBODY, _NOBODY)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextlib.contextmanager
def writable(directory: Path) -> Iterator[None]:
    """Within, the owner of a closed spool may make files in it."""
    directory.chmod(0o755)
    yield
    directory.chmod(0o555)
