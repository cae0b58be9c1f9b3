"""File names in a maildir: unique names, sizes, flag letters, and the keyword file.

    1700000000.V801I2a3M123456.host,S=1024,W=1050:2,FSa
    |______________ key _________________________| |_|
                                                  letters

The part before the colon names the message for ever (its `key`). `S` is the file's size in
octets, `W` the size with CRLF line ends, as Dovecot writes and reads them. After `:2,` stand
the flags in ASCII order: D draft, F flagged, P passed (`$Forwarded`), R replied, S seen,
T trashed; `a` to `z` are keywords 0 to 25 of the file `dovecot-keywords` beside `cur`. A flag
letter that we do not know is kept.

Sources: maildir(5), Dovecot's MailboxFormat.Maildir, Postfix's maildir.c for the unique part.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mailserver.durable import write_all
from mailserver.store.contract import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, Flags
from mailserver.store.shared_files import share_file

FORWARDED: Final = b"$Forwarded"
KEYWORD_FILE: Final = "dovecot-keywords"
_STALE_LOCK: Final = 120  # seconds; Dovecot's own limit for dotlocks
_LETTERS: Final[Mapping[str, bytes]] = {
    "D": DRAFT,
    "F": FLAGGED,
    "P": FORWARDED,
    "R": ANSWERED,
    "S": SEEN,
    "T": DELETED,
}
_LETTER_OF: Final = {flag: letter for letter, flag in _LETTERS.items()}
_MOST_SPELT: Final = 4096  # sets of flags whose letters are remembered
_MOST_KEYWORDS: Final = 26
_VIRTUAL_SIZE: Final = re.compile(r",W=([0-9]{1,18})(?=,|\Z)")
_SECONDS: Final = re.compile(r"([0-9]{1,18})\.")
_MICROSECONDS: Final = re.compile(r"M([0-9]{1,6})")


def unique_name(seconds: int, microseconds: int, status: os.stat_result, hostname: str) -> str:
    """The unique part of a name, as Postfix makes it: time, device, inode, host."""
    host = hostname.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")
    return f"{seconds}.V{status.st_dev:x}I{status.st_ino:x}M{microseconds:06}.{host}"


def key_of(name: str) -> str:
    """The part of a file name that outlives flag changes."""
    return name.partition(":")[0]


def virtual_size(name: str) -> int | None:
    """The size with CRLF line ends that the name claims."""
    found = _VIRTUAL_SIZE.search(key_of(name))
    return int(found[1]) if found else None


def arrival_order(key: str) -> tuple[int, int, str]:
    """Sorts names by the time they carry; those that carry none come first."""
    seconds = _SECONDS.match(key)
    microseconds = _MICROSECONDS.search(key)
    return int(seconds[1]) if seconds else 0, int(microseconds[1]) if microseconds else 0, key


def letters_of(name: str) -> str:
    """What stands after `:2,`, "" where nothing does."""
    mark, _, letters = name.partition(":")[2].partition(",")
    return letters.partition(",")[0] if mark == "2" else ""


class Keywords:
    """The file dovecot-keywords of one maildir: lines `0 $Junk`, read when it changed.

    Dovecot locks it with `dovecot-keywords.lock` and renames that into place; so do we. Where
    it cannot be written or is full, keywords stay in state.db alone.
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, KEYWORD_FILE)
        self._mark: tuple[int, int, int] | None = None
        self._numbers: dict[int, bytes] = {}
        self._letters: dict[bytes, str] = {}
        self._meanings: dict[str, Flags] = {}
        self._spelt: dict[tuple[Flags, str], str] = {}
        self._endings: dict[tuple[Flags, str], str] = {}

    def refresh(self) -> bool:
        """The file's present content is known; true where it changed."""
        try:
            status = os.stat(self._path)
            mark = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            mark = None
        if mark == self._mark:
            return False
        numbers = _parse_keywords(self._path) if mark else {}
        self._numbers = numbers
        self._letters = {name: chr(ord("a") + number) for number, name in numbers.items()}
        self._mark = mark
        self._meanings, self._spelt, self._endings = {}, {}, {}
        return True

    def names(self) -> Sequence[bytes]:
        """The keywords, by number."""
        return [name for _, name in sorted(self._numbers.items())]

    def flags(self, letters: str) -> Flags:
        """The flags that the letters stand for."""
        known = self._meanings.get(letters)
        if known is None:
            flags = (self._flag(letter) for letter in letters)
            known = self._meanings[letters] = frozenset(flag for flag in flags if flag)
        return known

    def _flag(self, letter: str) -> bytes | None:
        if letter in _LETTERS:
            return _LETTERS[letter]
        return self._numbers.get(ord(letter) - ord("a")) if "a" <= letter <= "z" else None

    def can_show(self, flag: bytes) -> bool:
        """Whether there is a letter for the flag."""
        return flag in self._letters or flag in _LETTER_OF

    def letters(self, flags: Flags, old: str = "") -> str:
        """The letters for the flags, and those of `old` that mean nothing to us."""
        spelt = self._spelt.get((flags, old))
        if spelt is None:
            if len(self._spelt) >= _MOST_SPELT:
                self._spelt.clear()
            letters = {self._letters.get(flag) or _LETTER_OF.get(flag, "") for flag in flags}
            strange = {letter for letter in old if self._flag(letter) is None}
            spelt = self._spelt[flags, old] = "".join(sorted((letters | strange) - {""}))
        return spelt

    def ending(self, flags: Flags, old: str) -> str:
        """What stands behind the key in a file's name, for the flags, where `old` stands there now."""
        ending = self._endings.get((flags, old))
        if ending is None:
            if len(self._endings) >= _MOST_SPELT:
                self._endings.clear()
            ending = self._endings[flags, old] = ":2," + self.letters(flags, letters_of(old))
        return ending

    def provide(self, flags: Iterable[bytes]) -> None:
        """Each keyword has a letter, while there are letters. Raises OSError."""
        missing = [flag for flag in flags if not self.can_show(flag)]
        if not missing or len(self._numbers) >= _MOST_KEYWORDS:
            return
        self.refresh()
        numbers = dict(self._numbers)
        free = iter(number for number in range(_MOST_KEYWORDS) if number not in numbers)
        for keyword in sorted(set(missing)):
            number = next(free, None)
            if number is not None and not self.can_show(keyword):
                numbers[number] = keyword
        if numbers != self._numbers:
            _write_keywords(self._path, numbers)
            self.refresh()


def _parse_keywords(path: str) -> dict[int, bytes]:
    numbers: dict[int, bytes] = {}
    with open(path, "rb") as file:
        for line in file.read(65536).split(b"\n"):
            number, _, name = line.partition(b" ")
            if number.isdigit() and int(number) < _MOST_KEYWORDS and name and not name.split()[1:]:
                numbers[int(number)] = name
    return numbers


def _write_keywords(path: str, numbers: Mapping[int, bytes]) -> None:
    replace_under_lock(path, b"".join(b"%d %s\n" % each for each in sorted(numbers.items())))


def replace_under_lock(path: str, content: bytes) -> None:
    """A file of Dovecot's has the content, durably. Raises OSError, also where another holds its lock."""
    lock = path + ".lock"
    descriptor = _open_lock(lock)
    try:
        write_all(descriptor, content)
        os.fsync(descriptor)
        os.rename(lock, path)
    except BaseException:
        os.unlink(lock)
        raise
    finally:
        os.close(descriptor)


def _open_lock(lock: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        descriptor = os.open(lock, flags, 0o600)
    except FileExistsError:
        if time.time() - os.lstat(lock).st_mtime < _STALE_LOCK:
            raise
        os.unlink(lock)
        descriptor = os.open(lock, flags, 0o600)
    share_file(descriptor, os.path.dirname(lock))
    return descriptor
