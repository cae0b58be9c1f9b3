"""Mailbox names: which may be, and how a level of one is spelt on disk.

A name is `str`, levels separated by `/`. On disk each level is modified UTF-7 as Dovecot
writes it, or UTF-8 where its `:UTF-8` says so, and characters that mean something to the layout are
written `\\HH`, as Dovecot's listescape plugin writes them: `.` in Maildir++; a leading `.` or `~`, a trailing
`.lock` and reserved names in plain directories; a backslash where what follows would make it such an
escape. So no name is refused for the layout's sake, and none can leave the mailbox root. RELIABILITY B9.

What other programs spelt otherwise is a mailbox too: `from_dotted` and `from_plain` read UTF-8 beside
modified UTF-7, and any escape.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Container, Sequence
from typing import Final

from mailserver.store.contract import BadMailboxName
from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_mailbox import decode_modified_utf7, encode_modified_utf7

INBOX: Final = "INBOX"
LONGEST_NAME: Final = 240  # octets in UTF-8
LONGEST_LEVEL: Final = 250  # octets on disk: a file name has 255
DEEPEST_NAME: Final = 16  # levels
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_ESCAPED: Final = re.compile(r"\\([0-9a-fA-F]{2})")
_LIKE_ESCAPE: Final = re.compile(r"\\(?=[0-9a-fA-F]{2})")
RESERVED: Final = frozenset({"cur", "new", "tmp"})  # what a maildir consists of


def checked_name(name: str) -> str:
    """The name in its one spelling: NFC, INBOX in capitals. Raises BadMailboxName."""
    name = unicodedata.normalize("NFC", name)
    levels = name.split("/")
    if levels[0].upper() == INBOX:
        levels[0] = INBOX
    if not name:
        raise BadMailboxName("Mailbox name is empty")
    if _CONTROL.search(name):
        raise BadMailboxName("Mailbox name contains control characters")
    if len(name.encode()) > LONGEST_NAME or len(levels) > DEEPEST_NAME:
        raise BadMailboxName("Mailbox name is too long or too deep")
    if any(level in ("", ".", "..") for level in levels) or name.startswith("~"):
        raise BadMailboxName("Mailbox name has an empty or reserved level")
    return "/".join(levels)


def _escape(character: str) -> str:
    return f"\\{ord(character):02x}"


def _encode(level: str, utf8: bool) -> str:
    text = level if utf8 else encode_modified_utf7(level).decode("ascii")
    return _LIKE_ESCAPE.sub(r"\\5c", text)


def _fitting(level: str) -> str:
    if len(os.fsencode(level)) > LONGEST_LEVEL:
        raise BadMailboxName("Mailbox name is too long for the disk")
    return level


def dotted(name: str, utf8: bool = False) -> str:
    """The directory of a Maildir++ folder below the root: `.Work.2024`."""
    levels = (_encode(level, utf8).replace(".", "\\2e") for level in name.split("/"))
    return _fitting("." + ".".join(levels))


def from_dotted(directory: str, utf8: bool = False) -> str | None:
    """The name of a Maildir++ folder; None for a directory that is none."""
    if not directory.startswith(".") or directory.startswith(".."):
        return None
    return _checked([_decoded(level, utf8) for level in directory[1:].split(".")])


def plain(name: str, utf8: bool = False, reserved: Container[str] = RESERVED) -> list[str]:
    """The path of a mailbox below the root of plain directories, by level. `reserved` are no mailboxes."""
    return [_fitting(_plain_level(_encode(level, utf8), reserved)) for level in name.split("/")]


def _plain_level(level: str, reserved: Container[str]) -> str:
    if level.startswith((".", "~")) or level in reserved:
        return _escape(level[0]) + level[1:]
    if level.endswith(".lock"):
        return level.removesuffix(".lock") + "\\2elock"
    return level


def from_plain(levels: Sequence[str], utf8: bool = False, reserved: Container[str] = RESERVED) -> str | None:
    """The inverse of `plain`; None for a file that is no mailbox."""
    if any(level.startswith(".") or level.endswith(".lock") or level in reserved for level in levels):
        return None
    return _checked([_decoded(level, utf8) for level in levels])


def _checked(levels: Sequence[str]) -> str | None:
    name = unicodedata.normalize("NFC", "/".join(levels))
    try:
        return name if checked_name(name) == name and not any("/" in level for level in levels) else None
    except BadMailboxName:
        return None


def _decoded(level: str, utf8: bool) -> str:
    raw = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), level)
    if utf8 or not raw.isascii():
        return raw
    try:
        return decode_modified_utf7(raw.encode())
    except (UnicodeError, ImapSyntaxError):
        return raw  # `A&B`, which another program wrote
