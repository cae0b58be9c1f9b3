"""How a command ends: OK, NO, BAD, or BYE for the whole session.

Handlers return a `Reply` or raise one of the exceptions here; only the protocol writes the
tagged line. Response codes are RFC 5530's and those of the extensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mailserver.store.contract import (
    AccessDenied,
    AccessRevoked,
    BadMailboxName,
    MailboxBusy,
    MailboxExists,
    MailboxReplaced,
    MessageGone,
    NoSuchMailbox,
    OverQuota,
    StoreError,
)
from mailserver.wire.imap_responses import public_text


@dataclass(frozen=True, slots=True)
class Reply:
    """A tagged line without its tag. `code` is what stands between brackets, b"" for none."""

    status: bytes
    text: bytes
    code: bytes = b""

    def line(self, tag: bytes) -> bytes:
        """The line without its end."""
        code = b"[%b] " % self.code if self.code else b""
        return b"%b %b %b%b" % (tag, self.status, code, self.text)


@lru_cache(maxsize=256)
def ok(text: str, code: bytes = b"") -> Reply:
    """The command did what it should."""
    return Reply(b"OK", public_text(text), code)


class Refusal(Exception):
    """NO: the command was understood and not done."""

    def __init__(self, text: str, code: bytes = b"") -> None:
        super().__init__(text)
        self.reply = Reply(b"NO", public_text(text), code)


class Rejection(Exception):
    """BAD: the command is wrong, here and now."""

    def __init__(self, text: str, code: bytes = b"") -> None:
        super().__init__(text)
        self.reply = Reply(b"BAD", public_text(text), code)


class Farewell(Exception):
    """BYE: the session ends. The text is public."""


class ClientGone(Exception):
    """The client left while a command was at work: nothing is left to be answered."""


_CODES: dict[type[StoreError], bytes] = {
    NoSuchMailbox: b"NONEXISTENT",
    MailboxExists: b"ALREADYEXISTS",
    BadMailboxName: b"CANNOT",
    MessageGone: b"EXPUNGEISSUED",
    OverQuota: b"OVERQUOTA",
    MailboxBusy: b"INUSE",
    AccessDenied: b"NOPERM",
}


def refusal_of(fault: StoreError, is_target: bool = False) -> Refusal:
    """The answer to a fault of the store.

    `is_target`: of a mailbox that is not the selected one, and if missing could be created
    (RFC 3501 §6.3.11). Raises Farewell where the selected mailbox lost its UIDs.
    """
    if isinstance(fault, AccessRevoked):
        raise Farewell("You may no longer read the selected mailbox")
    if isinstance(fault, MailboxReplaced) and not is_target:
        raise Farewell("The mailbox was replaced; please select it again")
    code = _CODES.get(type(fault), b"UNAVAILABLE")
    if is_target and isinstance(fault, NoSuchMailbox):
        code = b"TRYCREATE"
    return Refusal(str(fault) or "The mailbox is not available", code)
