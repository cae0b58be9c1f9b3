"""Which extensions are announced, and when.

A capability stands here only when it works whole. Before login a client learns what it needs
to log in; the rest comes in the tagged OK of its login (RFC 3501 §7.2.1, RFC 9051 §6.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_ALWAYS: Final = ("IMAP4rev1", "IMAP4rev2", "SASL-IR", "ID", "ENABLE", "IDLE", "LITERAL+")
_AFTER_LOGIN: Final = (
    "NAMESPACE", "CHILDREN", "UNSELECT", "UIDPLUS", "MOVE", "SPECIAL-USE", "CREATE-SPECIAL-USE",
    "ESEARCH", "SEARCHRES", "WITHIN", "LIST-EXTENDED", "LIST-STATUS", "STATUS=SIZE", "CONDSTORE",
    "QRESYNC", "MULTIAPPEND", "BINARY", "UTF8=ACCEPT", "OBJECTID", "SORT", "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES", "THREAD=REFS", "SORT=DISPLAY", "I18NLEVEL=1", "ESORT", "CONTEXT=SEARCH",
    "CONTEXT=SORT", "PARTIAL", "NOTIFY", "METADATA", "LIST-METADATA", "PREVIEW", "REPLACE", "CATENATE",
    "QUOTA", "QUOTA=RES-STORAGE", "QUOTA=RES-MESSAGE", "SAVEDATE", "INPROGRESS", "URL-PARTIAL",
    "MULTISEARCH", "SEARCH=FUZZY", "UIDONLY", "UIDBATCHES", "FILTERS",
)  # fmt: skip
_URLAUTH: Final = ("URLAUTH", "URLAUTH=BINARY")
_ACLS: Final = ("ACL", "RIGHTS=texk", "LIST-MYRIGHTS")


def before_login(mechanisms: Sequence[str], may_start_tls: bool) -> bytes:
    """The list for a client that has not logged in; `mechanisms` are those that it may use now.

    LOGIN shows the password as PLAIN does, and goes with it.
    """
    words = [*_ALWAYS]
    if may_start_tls:
        words.append("STARTTLS")
    words += [f"AUTH={name}" for name in mechanisms]
    words += [] if "PLAIN" in mechanisms else ["LOGINDISABLED"]
    return " ".join(words).encode("ascii")


def after_login(
    message_size_limit: int,
    is_compressed: bool,
    may_leave: bool,
    has_acls: bool,
    sets_quotas: bool,
    has_urls: bool,
) -> bytes:
    """The list for a client that has logged in. `may_leave`: UNAUTHENTICATE leads back (RFC 8437)."""
    words = [*_ALWAYS, *_AFTER_LOGIN, f"APPENDLIMIT={message_size_limit}"]
    words += _ACLS if has_acls else ()
    words += _URLAUTH if has_urls else ()
    words += ["QUOTASET"] if sets_quotas else []
    if not is_compressed:
        words.append("COMPRESS=DEFLATE")
        words += ["UNAUTHENTICATE"] if may_leave else []
    return " ".join(words).encode("ascii")
