r"""Flags as clients write them in STORE, APPEND and REPLACE. RFC 3501 §2.3.2, §9 flag-list.

System flags come out in their one spelling. \Recent is dropped, since clients send back what they
read; another name with a backslash is refused.
"""

from __future__ import annotations

from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError

MOST_FLAGS: Final = 100
_SYSTEM: Final = {
    name.lower(): name for name in (b"\\Answered", b"\\Flagged", b"\\Deleted", b"\\Seen", b"\\Draft")
}


def read_flag_list(reader: ArgumentReader) -> frozenset[bytes]:
    """Flags between parentheses."""
    return _known(reader.list_of(reader.flag, may_be_empty=True))


def read_bare_flags(reader: ArgumentReader) -> frozenset[bytes]:
    """Flags up to the end of the command, without parentheses (STORE)."""
    flags = [reader.flag()]
    while not reader.at_end:
        reader.space()
        flags.append(reader.flag())
    return _known(flags)


def _known(flags: list[bytes]) -> frozenset[bytes]:
    if len(flags) > MOST_FLAGS or any(len(flag) > 255 for flag in flags):
        raise ImapSyntaxError("Too many flags")
    known = {_SYSTEM.get(flag.lower(), flag) for flag in flags if flag.lower() != b"\\recent"}
    if any(flag.startswith(b"\\") and flag.lower() not in _SYSTEM for flag in known):
        raise ImapSyntaxError("Invalid system flag")
    return frozenset(known)
