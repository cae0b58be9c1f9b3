"""Makes the N-th system call of a kind fail, or kills the process before it runs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CALLS = (
    "open",
    "write",
    "pwrite",
    "fsync",
    "fdatasync",
    "fchmod",
    "rename",
    "unlink",
    "ftruncate",
    "utime",
    "close",
)
KILLED = 9


@contextmanager
def hooked(before: Callable[[str], None], calls: tuple[str, ...] = CALLS) -> Iterator[None]:
    """`before(name)` runs ahead of each of these calls, and may raise or exit instead."""
    originals = {name: getattr(os, name) for name in calls}

    def hook(name: str) -> Callable[..., Any]:
        original = originals[name]

        def call(*arguments: Any, **named: Any) -> Any:
            before(name)
            return original(*arguments, **named)

        return call

    for name in calls:
        setattr(os, name, hook(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


class Nth:
    """Acts at the N-th call, counted from 1; `reached` tells whether it came to that."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.left = number
        self.act = act
        self.reached = False

    def __call__(self, name: str) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached = True
            self.act()


def fail_with(code: int) -> Callable[[], None]:
    """An action that raises that error."""

    def act() -> None:
        raise OSError(code, errno.errorcode[code])

    return act


def in_child(
    work: Callable[[Callable[[str], None]], None], before: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Exit status of a child that ran `work(tell)` with the hook in place, and what it told."""
    reader, writer = os.pipe()
    tell_write, leave = os.write, os._exit
    pid = os.fork()
    if pid == 0:
        try:
            with hooked(before):
                work(lambda text: tell_write(writer, text.encode() + b"\n") and None)
            leave(0)
        except BaseException:
            import traceback

            tell_write(2, traceback.format_exc().encode())
        finally:
            leave(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        lines = told.read().decode().split()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), lines


def die() -> None:
    """As SIGKILL would: nothing is cleaned up."""
    os._exit(KILLED)
