"""Who gets what a URL names: the proof in it, whom it admits, and the rights of the account behind it.

A URL that an account authorised gives to whom it admits what the account itself may read there at that
moment, and nothing else (RFC 4467 §7). Its token is HMAC-SHA-256 over the URL, by the account's key for the
mailbox. The key is looked up by name before the mailbox is looked for, and where there is none another one is
tried: how long a refusal takes says nothing of mailboxes (RFC 4467 §6).

Everything here *blocks* and touches no session.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from mailserver.imapd.content import octets_of
from mailserver.store.contract import (
    AccessDenied,
    AccessRevoked,
    AccountStore,
    BadMailboxName,
    Mailbox,
    MessageGone,
    NoSuchMailbox,
    StoreError,
    Uid,
)
from mailserver.wire.imap_url import (
    INTERNAL,
    LONGEST_URL,
    AbsoluteUrl,
    Authority,
    BadUrl,
    MessageUrl,
    Url,
    parse_absolute_url,
    parse_message_url,
)

ANY_HOST: Final = "*"
DEFAULT_PORT: Final = 143
_NOT_THERE: Final[tuple[type[StoreError], ...]] = (
    AccessDenied,
    AccessRevoked,
    BadMailboxName,
    MessageGone,
    NoSuchMailbox,
)
_NO_KEY: Final = secrets.token_bytes(32)  # tried where there is no key


class NotAuthorized(BadUrl):
    """The URL does not prove that this client may use it; or it names nothing, which is not told apart."""


class OtherServer(BadUrl):
    """The URL is another server's."""


@dataclass(frozen=True, slots=True)
class UrlServer:
    """Which URLs are this server's: those with this host ("" none, `*` any) and port.

    `now` gives the time of day in POSIX seconds.
    """

    host: str
    port: int = DEFAULT_PORT
    now: Callable[[], float] = time.time

    def is_at(self, url: AbsoluteUrl) -> bool:
        """Whether the URL is one of this server's."""
        is_host = self.host == ANY_HOST or (self.is_open and self.host.lower() == url.host)
        return is_host and self.port == (DEFAULT_PORT if url.port is None else url.port)

    @property
    def is_open(self) -> bool:
        """Whether any is."""
        return bool(self.host)

    def authority_of(self, hostname: str) -> str:
        """Host and port as URLs have them: this host where any will do, no port where it is the usual one."""
        host = hostname if self.host == ANY_HOST else self.host
        return host if self.port == DEFAULT_PORT else f"{host}:{self.port}"


NO_URLS: Final = UrlServer("")


@dataclass(frozen=True, slots=True)
class Reader:
    """Who wants what URLs name, with what he reaches himself; `submits`: it is to be sent as a message."""

    user: str
    store: AccountStore
    submits: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The message that a URL names, whole, and which part of it."""

    content: bytes
    url: MessageUrl

    def octets(self) -> bytes:
        """What the URL names. Raises BadUrl where the message has no such part."""
        octets = octets_of(self.content, self.url.section)
        if octets is None:
            raise BadUrl("The message has no such part")
        return self.cut(octets)

    def cut(self, octets: bytes) -> bytes:
        """The range of these octets that the URL names. RFC 5550 §3.6."""
        end = None if self.url.octets is None else self.url.origin + self.url.octets
        return octets[self.url.origin : end]


def _token(key: bytes, rump: bytes) -> str:
    return hmac.new(key, rump, hashlib.sha256).hexdigest()


def authorize(server: UrlServer, reader: Reader, rump: Url) -> bytes:
    """The URL with its token, proved by a durable key. Raises BadUrl, and StoreError for local faults."""
    url = parse_absolute_url(rump.text)
    authority = url.authority
    if authority is None:
        raise BadUrl("Missing access identifier in supplied URL")
    if authority.mechanism:
        raise BadUrl("The URL has its token already")
    if not server.is_at(url):
        raise BadUrl("The URL is another server's")
    if url.user != reader.user:
        raise BadUrl("The URL is another account's")
    if authority.expires is not None and authority.expires <= server.now():
        raise BadUrl("The URL has expired already")
    with _mailbox(reader.store, url.message) as (mailbox, wanted):
        if "r" not in mailbox.rights or wanted.uidvalidity not in (None, mailbox.uidvalidity):
            raise BadUrl("The URL names no mailbox")
        assert wanted.mailbox is not None
        key = reader.store.make_access_key(wanted.mailbox, mailbox.uidvalidity)
    full = b"%b:%b:%b" % (rump.text, INTERNAL.lower().encode(), _token(key.key, rump.text).encode())
    if len(full) > LONGEST_URL:
        raise BadUrl("The URL is too long")
    return full


@contextmanager
def _mailbox(store: AccountStore, url: Url) -> Iterator[tuple[Mailbox, MessageUrl]]:
    """The mailbox, and the URL by its name in that store. Raises BadUrl where it is not to be had."""
    wanted = parse_message_url(url, store.namespace)
    if wanted.mailbox is None:
        raise BadUrl("The URL names no mailbox")
    try:
        with store.borrow(wanted.mailbox) as mailbox:
            yield mailbox, wanted
    except _NOT_THERE as fault:
        raise BadUrl("The URL names no message") from fault


def find(server: UrlServer, reader: Reader, url: Url) -> Found:
    """The message that the absolute URL names, where the reader may have it.

    Raises OtherServer, NotAuthorized, BadUrl for what is wrong with one that is proved, and StoreError for
    local faults.
    """
    try:
        parsed = parse_absolute_url(url.text)
    except BadUrl as fault:
        raise NotAuthorized(str(fault)) from fault
    if not server.is_at(parsed):
        raise OtherServer("The URL is another server's")
    authority = parsed.authority
    if authority is None:
        if parsed.user != reader.user:
            raise NotAuthorized("The URL is another account's")
        return _read(reader.store, parsed.message)
    if not _is_admitted(server, reader, authority):
        raise NotAuthorized("The URL is not for this client")
    if parsed.user == reader.user:
        return _proved(reader.store, parsed, authority)
    with reader.store.store_of(parsed.user) as store:
        if store is None:
            raise NotAuthorized("The URL is not for this client")
        return _proved(store, parsed, authority)


def _is_admitted(server: UrlServer, reader: Reader, authority: Authority) -> bool:
    """Whether the URL, if it is a true one, is for this reader, now. RFC 4467 §3."""
    if authority.mechanism != INTERNAL or not authority.token:
        return False
    if authority.expires is not None and authority.expires <= server.now():
        return False
    if authority.access in ("AUTHUSER", "ANONYMOUS"):
        return True
    return authority.user == reader.user and (authority.access == "USER" or reader.submits)


def _proved(store: AccountStore, url: AbsoluteUrl, authority: Authority) -> Found:
    """What the URL names, by what its own account may read. Raises NotAuthorized unless its token is true."""
    try:
        name = parse_message_url(url.message, store.namespace).mailbox
    except BadUrl as fault:
        raise NotAuthorized(str(fault)) from fault
    key = store.access_key(name) if name is not None else None
    token = _token(key.key if key is not None else _NO_KEY, authority.rump)
    if not hmac.compare_digest(token, authority.token) or key is None:
        raise NotAuthorized("The URL proves nothing")
    return _read(store, url.message, key.uidvalidity)


def _read(store: AccountStore, url: Url, uidvalidity: int | None = None) -> Found:
    with _mailbox(store, url) as (mailbox, wanted):
        return read_message(mailbox, wanted, uidvalidity)


def read_message(mailbox: Mailbox, wanted: MessageUrl, uidvalidity: int | None = None) -> Found:
    """The message, of the mailbox as long as it has that UIDVALIDITY. Raises BadUrl, StoreError."""
    if not {wanted.uidvalidity, uidvalidity} <= {mailbox.uidvalidity, None}:
        raise BadUrl("The mailbox has another UIDVALIDITY")
    return Found(mailbox.read(Uid(wanted.uid)), wanted)
