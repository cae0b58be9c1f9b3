"""Edits of a passwd-file: one at a time, and never half of one.

The file is locked, read, written anew beside itself, fsynced and renamed over, and the
directory fsynced. Mode and owner stay; comments and other lines stay where they are. A
missing file is made with mode 0600.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from mailserver.accounts.names import login_name
from mailserver.durable import replace_file

_NEW_MODE: Final = 0o600
_UNSAFE: Final = re.compile(r"[:\x00-\x1f\x7f]")


class EditError(Exception):
    """The edit cannot be made; the file is as it was. The text says why."""


@contextmanager
def _locked(path: str, is_made: bool = True) -> Iterator[str]:
    """The file's text while nobody else edits it. The lock is on the file that has the name now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if is_made else 0), _NEW_MODE)
        with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                yield file.read()
                return


def _edit(path: str, change: Callable[[list[str]], list[str]], is_made: bool = True) -> None:
    path = os.path.realpath(path)
    with _locked(path, is_made) as text:
        lines = change(text.splitlines())
        replace_file(path, "".join(f"{line}\n" for line in lines))


def _position(lines: list[str], name: str) -> int | None:
    for index, line in enumerate(lines):
        if not line.lstrip().startswith("#") and line.partition(":")[0].strip().lower() == name:
            return index
    return None


def _checked(name: str) -> str:
    lowered = login_name(name)
    if lowered is None:
        raise EditError(f"{name!r} cannot be a login name: use a-z 0-9 . _ - and at most one @")
    return lowered


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def check_new(path: str, name: str) -> None:
    """An account of that name could be added now. Raises EditError, OSError."""
    name = _checked(name)
    if _position(_lines(path), name) is not None:
        raise EditError(f"{name} has an account already")


def check_existing(path: str, name: str) -> None:
    """There is such an account now. Raises EditError, OSError."""
    _existing(_lines(path), name.lower())


def add(path: str, name: str, stored: str, home: str = "") -> None:
    """The account is in the file, durably. Raises EditError where it is there already, OSError."""
    name = _checked(name)
    if _UNSAFE.search(stored) or _UNSAFE.search(home):
        raise EditError("a colon or control character cannot stand in a passwd-file")

    def change(lines: list[str]) -> list[str]:
        if _position(lines, name) is not None:
            raise EditError(f"{name} has an account already")
        return [*lines, f"{name}:{stored}::::{home}::"]

    _edit(path, change)


def set_password(path: str, name: str, stored: str) -> None:
    """The account has the new stored password; its other fields stay. Raises EditError, OSError."""
    name = name.lower()
    if _UNSAFE.search(stored):
        raise EditError("a colon or control character cannot stand in a passwd-file")

    def change(lines: list[str]) -> list[str]:
        index = _existing(lines, name)
        fields = lines[index].split(":", 2)
        rest = fields[2] if len(fields) == 3 else ":::::"
        return [*lines[:index], f"{fields[0]}:{stored}:{rest}", *lines[index + 1 :]]

    _edit(path, change)


def replace_password(path: str, name: str, before: str, stored: str) -> None:
    """The account has the new stored password, if it still had the one before. Raises EditError, OSError."""

    def change(lines: list[str]) -> list[str]:
        index = _existing(lines, name)
        fields = lines[index].split(":", 2)
        if len(fields) < 2 or fields[1].strip() != before:
            raise EditError(f"the password of {name} was changed meanwhile")
        return [*lines[:index], ":".join([fields[0], stored, *fields[2:]]), *lines[index + 1 :]]

    _edit(path, change, is_made=False)


def set_extra(path: str, name: str, field: str, value: str) -> None:
    """The account has the extra field, at the place of an older one. Raises EditError, OSError."""
    if re.search(r"\s", value) or _UNSAFE.search(value.replace(":", "")):
        raise EditError("white space or a control character cannot stand in an extra field")

    def change(lines: list[str]) -> list[str]:
        index = _existing(lines, name.lower())
        fields = lines[index].split(":", 7)
        fields += [""] * (8 - len(fields))
        words = fields[7].split()
        known = [each for each, word in enumerate(words) if word.partition("=")[0] == field]
        where = known[0] if known else len(words)
        words[where : where + 1] = [f"{field}={value}"]
        return [*lines[:index], ":".join([*fields[:7], " ".join(words)]), *lines[index + 1 :]]

    _edit(path, change, is_made=False)


def remove(path: str, name: str) -> None:
    """The account is not in the file any more; its mail is untouched. Raises EditError, OSError."""

    def change(lines: list[str]) -> list[str]:
        index = _existing(lines, name.lower())
        return [*lines[:index], *lines[index + 1 :]]

    _edit(path, change)


def _existing(lines: list[str], name: str) -> int:
    index = _position(lines, name)
    if index is None:
        raise EditError(f"{name} has no account in this file")
    return index
