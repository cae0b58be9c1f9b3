"""What Dovecot left beside the mail: UIDs of a maildir, and subscriptions. Read at first contact.

dovecot-uidlist, version 3 (also 1), in the maildir or its CONTROL directory:

    3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1
    25006 W1294 :1276528487.M364837P9451.kurkku,S=1355,W=1394:2,
    25017 :1276533073.M242911P3632.kurkku:2,F

`V` is UIDVALIDITY, `N` UIDNEXT; a message is the same where the name up to the colon is equal.

subscriptions (`.subscriptions` for mbox): either `V\\t2`, an empty line, and names with tabs between
levels, or one name a line with the layout's separator. Names are modified UTF-7.

A file that cannot be understood is taken for absent: clients download again, nothing else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from mailserver.store.contract import BadMailboxName
from mailserver.store.format import Adopted
from mailserver.store.layout import Kind, Layout
from mailserver.store.names import checked_name
from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_mailbox import decode_modified_utf7

UIDLIST: Final = "dovecot-uidlist"
_LARGEST_FILE: Final = 256 << 20  # octets; a million messages take a third of it
_HEADER: Final = re.compile(rb"3(?: [VNG][0-9A-Za-z]+)+")
_OLD_HEADER: Final = re.compile(rb"1 ([0-9]{1,10}) ([0-9]{1,10})")
_ENTRY: Final = re.compile(rb"([0-9]{1,10})(?: [A-Z][^ :\n]*)* :?([^:/\n ]+)(?::[^\n]*)?")


def _read(path: str) -> bytes:
    """The file's content; b"" where there is none, or none of a bearable size. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    return content if len(content) <= _LARGEST_FILE else b""


def read_uidlist(directory: str) -> tuple[Adopted, Mapping[str, int]]:
    """UIDVALIDITY, UIDNEXT and UID by key that a dovecot-uidlist holds. Raises OSError."""
    header, end, rest = _read(os.path.join(directory, UIDLIST)).partition(b"\n")
    uidvalidity, uidnext = _header(header) if end else (0, 0)  # a number may be cut short
    if not 0 < uidvalidity < 2**32:
        return Adopted(), {}
    uids: dict[str, int] = {}
    for line in rest.splitlines():
        entry = _ENTRY.fullmatch(line)
        if entry:
            uids[os.fsdecode(entry[2])] = int(entry[1])
    return Adopted(uidvalidity, max(uidnext, max(uids.values(), default=0) + 1)), uids


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


def read_subscriptions(layout: Layout) -> Sequence[str]:
    """The subscribed names that Dovecot left for the account. Raises OSError."""
    name = ".subscriptions" if layout.kind is Kind.MBOX else "subscriptions"
    content = _read(os.path.join(layout.control or layout.root, name))
    separator = b"/" if layout.plain else b"."
    if content.startswith(b"V\t2\n"):
        content, separator = content[4:], b"\t"
    lines = filter(None, content.split(b"\n"))
    names = [_subscribed(line.split(separator)) for line in lines]
    return [name for name in names if name]


def _subscribed(levels: Sequence[bytes]) -> str | None:
    try:
        return checked_name("/".join(_level(level) for level in levels))
    except (BadMailboxName, ImapSyntaxError, UnicodeError):
        return None


def _level(raw: bytes) -> str:
    return decode_modified_utf7(raw) if raw.isascii() else raw.decode()
