"""IMAP URLs: what they name, who may use them, and what speaks for that.

A message URL names a message, a part of one, or a range of its octets (RFC 5092 §5, RFC 5550 §3.6). Clients
write it relative to the account, `/INBOX;UIDVALIDITY=7/;UID=20/;SECTION=1.2`, or absolute, with the account
and the server before it: `imap://joe@example.com/INBOX/;UID=20`. An absolute one that ends in
`;URLAUTH=ACCESS` is a *rump*: with `:MECHANISM:TOKEN` behind it, whoever ACCESS admits may read what it names
(RFC 4467 §2, RFC 5593).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import unquote_to_bytes

from mailserver.wire.imap_arguments import LARGEST_NUMBER, ImapSyntaxError
from mailserver.wire.imap_fetch import Section, parse_section
from mailserver.wire.imap_mailbox import mailbox_name
from mailserver.wire.imap_namespace import NO_PREFIX, PersonalNamespace

LONGEST_URL: Final = 2000
INTERNAL: Final = "INTERNAL"  # the mechanism that there is. RFC 4467 §2.4.1

_MESSAGE: Final = re.compile(
    rb"(?:/(?P<mailbox>[^;]+?)(?:;UIDVALIDITY=(?P<uidvalidity>[1-9][0-9]{0,9}))?/)?"
    rb";UID=(?P<uid>[1-9][0-9]{0,9})(?:/;SECTION=(?P<section>[^;/]+))?"
    rb"(?:/;PARTIAL=(?P<origin>[0-9]{1,10})(?:\.(?P<octets>[1-9][0-9]{0,9}))?)?/?",
    re.IGNORECASE,
)
_ABSOLUTE: Final = re.compile(
    rb"imap://(?P<user>[^/;:@]+)(?:;AUTH=[^/;:@]+)?@"
    rb"(?P<host>\[[0-9a-f:.]+\]|[^/;:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?"
    rb"(?P<message>/[^;]+(?:;UIDVALIDITY=[0-9]+)?/;UID=[0-9]+(?:/;(?:SECTION|PARTIAL)=[^;/]+)*/?)"
    rb"(?P<authority>(?:;EXPIRE=(?P<expire>[-+0-9t:.z]{1,40}))?"
    rb";URLAUTH=(?P<access>(?:submit|user)\+[^/;:@+]+|authuser|anonymous)"
    rb"(?::(?P<mechanism>[-a-z0-9.]{1,40}):(?P<token>[0-9a-f]{32,256}))?)?",
    re.IGNORECASE,
)
_EXPIRY: Final = re.compile(  # RFC 3339 §5.6
    rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[-+][0-9]{2}:[0-9]{2})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Url:
    """A URL as the client wrote it, not looked into. See `parse_message_url` and `parse_absolute_url`."""

    text: bytes

    @property
    def is_absolute(self) -> bool:
        """Whether it names a server."""
        return self.text[:7].lower() == b"imap://"


@dataclass(frozen=True, slots=True)
class MessageUrl:
    """A message, or some octets of a part of one. `mailbox` None: the selected one. RFC 4469 §3."""

    mailbox: str | None
    uidvalidity: int | None
    uid: int
    section: Section
    origin: int = 0
    octets: int | None = None  # None: all from `origin`


@dataclass(frozen=True, slots=True)
class Authority:
    """Who may use the URL, until when, and what proves it. RFC 4467 §3.

    `access` is SUBMIT or USER, for the account `user`, or AUTHUSER or ANONYMOUS. `expires` is in POSIX
    seconds, None for never. `rump` is the URL without its token, octet by octet. `token` is in lower-case
    hexadecimal digits; `mechanism` and `token` are "" of a rump.
    """

    access: str
    user: str
    expires: float | None
    rump: bytes
    mechanism: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class AbsoluteUrl:
    """A message of an account of a server: `message` is the URL relative to the account.

    `port` None: none is said. `authority` None: it is the account's own to use.
    """

    user: str
    host: str
    port: int | None
    message: Url
    authority: Authority | None = None


class BadUrl(ValueError):
    """The URL names no message here, or not for this client."""


def parse_message_url(url: Url, namespace: PersonalNamespace = NO_PREFIX) -> MessageUrl:
    """What a relative URL names; `namespace` is the account's. Raises BadUrl."""
    found = _MESSAGE.fullmatch(url.text) if len(url.text) <= LONGEST_URL else None
    if found is None or b"\0" in unquote_to_bytes(url.text):
        raise BadUrl("Not a message of this account")
    try:
        name, section = found["mailbox"], unquote_to_bytes(found["section"] or b"")
        mailbox = None if name is None else mailbox_name(unquote_to_bytes(name), True, namespace)
        return MessageUrl(
            mailbox,
            _number(found["uidvalidity"]),
            int(found["uid"]),
            parse_section(section),
            int(found["origin"] or 0),
            _number(found["octets"]),
        )
    except ImapSyntaxError as fault:
        raise BadUrl(str(fault)) from fault


def _number(digits: bytes | None) -> int | None:
    return None if digits is None else min(int(digits), LARGEST_NUMBER)


def parse_absolute_url(text: bytes) -> AbsoluteUrl:
    """The parts of a URL that names one message of one account. Raises BadUrl. RFC 5092 §11."""
    found = _ABSOLUTE.fullmatch(text) if len(text) <= LONGEST_URL else None
    if found is None:
        raise BadUrl("Not the URL of a message")
    return AbsoluteUrl(
        _name(found["user"]),
        found["host"].decode("latin-1").lower(),
        int(found["port"]) if found["port"] else None,
        Url(found["message"]),
        _authority(text, found) if found["authority"] else None,
    )


def _authority(text: bytes, found: re.Match[bytes]) -> Authority:
    access, _, user = found["access"].partition(b"+")
    return Authority(
        access.decode("ascii").upper(),
        _name(user) if user else "",
        _expiry(found["expire"]),
        text[: found.end("access")],
        (found["mechanism"] or b"").decode("ascii").upper(),
        (found["token"] or b"").decode("ascii").lower(),
    )


def _name(written: bytes) -> str:
    """An account's name. RFC 5092 §5: UTF-8, percent-encoded."""
    try:
        name = unquote_to_bytes(written).decode("utf-8")
    except UnicodeDecodeError as fault:
        raise BadUrl("Not an account's name") from fault
    if not name.isprintable():
        raise BadUrl("Not an account's name")
    return name


def _expiry(written: bytes | None) -> float | None:
    if written is None:
        return None
    if _EXPIRY.fullmatch(written) is None:
        raise BadUrl("Not a time: write 2031-01-31T23:59:59Z")
    try:
        return datetime.fromisoformat(written.decode("ascii").upper()).timestamp()
    except (ValueError, OverflowError) as fault:
        raise BadUrl("No such time") from fault
