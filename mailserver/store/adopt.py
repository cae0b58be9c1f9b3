"""Subscriptions that Dovecot left, taken over at the first login.

`subscriptions` in the root or the CONTROL directory (`.subscriptions` for mbox): either `V\\t2`, an
empty line, and names with tabs between levels, or one name a line with the layout's separator.
Names are modified UTF-7; those that cannot be mailboxes here are left out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mailserver.store.contract import BadMailboxName
from mailserver.store.layout import Kind, Layout
from mailserver.store.names import checked_name
from mailserver.store.uidlist import read_small_file
from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_mailbox import decode_modified_utf7


def read_subscriptions(layout: Layout) -> Sequence[str]:
    """The subscribed names that Dovecot left for the account. Raises OSError."""
    name = ".subscriptions" if layout.kind is Kind.MBOX else "subscriptions"
    content = read_small_file(os.path.join(layout.control or layout.root, name))
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
