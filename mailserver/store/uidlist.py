"""Dovecot's dovecot-uidlist: UIDs of a maildir's messages, taken over from it and left for it.

Version 3 (1 is read too), in the maildir or its CONTROL directory:

    3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1
    25006 W1294 :1276528487.M364837P9451.kurkku,S=1355,W=1394:2,
    25017 :1276533073.M242911P3632.kurkku:2,F

`V` is UIDVALIDITY, `N` UIDNEXT, `G` the mailbox's GUID; a message is the same where the name
up to the colon is equal. A file that cannot be understood, or whose UIDs do not ascend, is taken for
absent, as Dovecot takes it: clients download again, nothing else. It is written, under Dovecot's lock,
when nobody uses the mailbox any more, so that Dovecot finds the UIDs that our clients know.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from typing import Final

from mailserver.store.format import Adopted
from mailserver.store.maildir_names import replace_under_lock

UIDLIST: Final = "dovecot-uidlist"
_LONGEST_HEADER: Final = 1000  # octets
_LARGEST_FILE: Final = 256 << 20  # octets; a million messages take a third of it
_HEADER: Final = re.compile(rb"3(?: [VNG][0-9A-Za-z]+)+")
_OLD_HEADER: Final = re.compile(rb"1 ([0-9]{1,10}) ([0-9]{1,10})")
_GUID: Final = re.compile(rb" G([0-9a-f]{32})(?= |\Z)")
_ENTRY: Final = re.compile(rb"([0-9]{1,10})(?:(?: [A-Z][^ :\n]*)* :| )([^:/\n]+)(?::[^\n]*)?")


def read_small_file(path: str, limit: int = _LARGEST_FILE) -> bytes:
    """The start of the file; b"" where there is none. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        return file.read(limit)


def read_uidlist(directory: str) -> tuple[Adopted, Mapping[str, int]]:
    """UIDVALIDITY, UIDNEXT and UID by key that a dovecot-uidlist holds. Raises OSError."""
    header, end, rest = read_small_file(os.path.join(directory, UIDLIST)).partition(b"\n")
    uidvalidity, uidnext = _header(header) if end else (0, 0)  # a number may be cut short
    if not 0 < uidvalidity < 2**32:
        return Adopted(), {}
    uids: dict[str, int] = {}
    last = 0
    for line in rest.split(b"\n")[:-1]:  # without a line that was cut short
        entry = _ENTRY.fullmatch(line)
        if entry is None or not last < int(entry[1]) < 2**32 - 1:
            return Adopted(), {}
        last = uids[os.fsdecode(entry[2])] = int(entry[1])
    return Adopted(uidvalidity, max(uidnext, max(uids.values(), default=0) + 1)), uids


def uidlist_figures(directory: str) -> tuple[int, int]:
    """UIDVALIDITY and UIDNEXT as the list has them; zeros where there is none. Raises OSError."""
    header = read_small_file(os.path.join(directory, UIDLIST), _LONGEST_HEADER)
    return _header(header.partition(b"\n")[0])


def uidlist_mark(directory: str) -> str:
    """Changes when the list does; "" where there is none."""
    return file_mark(os.path.join(directory, UIDLIST))


def file_mark(path: str) -> str:
    """Changes when the file does; "" where there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return ""
    return f"{found.st_ino} {found.st_mtime_ns} {found.st_size}"


def _header(header: bytes) -> tuple[int, int]:
    old = _OLD_HEADER.fullmatch(header)
    if old:
        return int(old[1]), int(old[2])
    if not _HEADER.fullmatch(header):
        return 0, 0
    fields = {field[:1]: field[1:] for field in header.split(b" ")[1:]}
    numbers = [fields.get(name, b"0") for name in (b"V", b"N")]
    if not all(number.isdigit() and len(number) <= 10 for number in numbers):
        return 0, 0
    return int(numbers[0]), int(numbers[1])


def write_uidlist(directory: str, uidvalidity: int, uidnext: int, uids: Mapping[str, int]) -> None:
    """The uidlist holds these UIDs by key, ascending; the mailbox's GUID is kept. Raises OSError.

    Where UIDVALIDITY and UIDNEXT stand in it already it is left alone: it lacks nobody, and
    Dovecot drops those that are gone.
    """
    path = os.path.join(directory, UIDLIST)
    header = read_small_file(path, _LONGEST_HEADER).partition(b"\n")[0]
    if _header(header) == (uidvalidity, uidnext):
        return
    old = _GUID.search(header)
    guid = old[1] if old else secrets.token_hex(16).encode()
    lines = [b"3 V%d N%d G%s\n" % (uidvalidity, uidnext, guid)]
    lines += [b"%d :%s\n" % (uid, os.fsencode(key)) for key, uid in uids.items() if "\n" not in key]
    replace_under_lock(path, b"".join(lines))
