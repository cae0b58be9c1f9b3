"""Subscriptions that Dovecot left, taken over, and left for it again.

`subscriptions` in the root or the CONTROL directory (`.subscriptions` for mbox): either `V\\t2`, an
empty line, and names with tabs between levels, or one name a line with the layout's separator.
Names are modified UTF-7, or UTF-8 (`Layout.utf8`); those that cannot be mailboxes here are left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mailserver.store.contract import BadMailboxName
from mailserver.store.layout import Kind, Layout
from mailserver.store.maildir_names import replace_under_lock
from mailserver.store.names import checked_name
from mailserver.store.uidlist import file_mark, read_small_file
from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_mailbox import decode_modified_utf7, encode_modified_utf7


def read_subscriptions(layout: Layout) -> Sequence[str]:
    """The subscribed names that Dovecot left for the account. Raises OSError."""
    content = read_small_file(_path(layout))
    separator = b"/" if layout.plain else b"."
    if content.startswith(b"V\t2\n"):
        content, separator = content[4:], b"\t"
    lines = filter(None, content.split(b"\n"))
    names = [_subscribed(line.split(separator), layout.utf8) for line in lines]
    return [name for name in names if name]


def _path(layout: Layout) -> str:
    name = ".subscriptions" if layout.kind is Kind.MBOX else "subscriptions"
    return os.path.join(layout.control or layout.root, name)


def subscriptions_mark(layout: Layout) -> str:
    """Changes when the file does; "" where there is none."""
    return file_mark(_path(layout))


def write_subscriptions(layout: Layout, names: Sequence[str]) -> None:
    """Dovecot's file names them, in version 2. Raises OSError, also where Dovecot holds its lock."""
    encode = str.encode if layout.utf8 else encode_modified_utf7
    lines = [b"\t".join(encode(level) for level in name.split("/")) for name in names]
    replace_under_lock(_path(layout), b"V\t2\n\n" + b"".join(line + b"\n" for line in lines))


def _subscribed(levels: Sequence[bytes], utf8: bool) -> str | None:
    try:
        return checked_name("/".join(_level(level, utf8) for level in levels))
    except (BadMailboxName, ImapSyntaxError, UnicodeError):
        return None


def _level(raw: bytes, utf8: bool) -> str:
    return decode_modified_utf7(raw) if raw.isascii() and not utf8 else raw.decode()
