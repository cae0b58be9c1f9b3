"""RESETKEY, GENURLAUTH and URLFETCH. RFC 4467 §7, RFC 5524 §3.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_mailbox import read_mailbox
from mailserver.wire.imap_url import Url

MOST_URLS: Final = 100  # in one command
_WANTED: Final = frozenset({"BODY", "BINARY", "BODYPARTSTRUCTURE"})


@dataclass(frozen=True, slots=True)
class ResetKey:
    """RESETKEY; `mailbox` None: all of them. `mechanisms` are in upper case."""

    mailbox: str | None = None
    mechanisms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenUrlAuth:
    """GENURLAUTH: rump URLs, each with its mechanism in upper case."""

    rumps: tuple[tuple[Url, str], ...]


@dataclass(frozen=True, slots=True)
class WantedUrl:
    """One URL of URLFETCH. `items` are those of RFC 5524, empty where the URL stands alone."""

    url: Url
    items: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UrlFetch:
    """URLFETCH."""

    urls: tuple[WantedUrl, ...]


def read_reset_key(reader: ArgumentReader) -> ResetKey:
    """The arguments of RESETKEY."""
    if reader.at_end:
        return ResetKey()
    reader.space()
    mailbox = read_mailbox(reader)
    mechanisms: list[str] = []
    while reader.peek() == b" ":
        reader.space()
        mechanisms.append(reader.word())
    return ResetKey(mailbox, tuple(mechanisms))


def read_gen_url_auth(reader: ArgumentReader) -> GenUrlAuth:
    """The arguments of GENURLAUTH."""
    rumps: list[tuple[Url, str]] = []
    while not reader.at_end or not rumps:
        reader.space()
        rump = Url(reader.astring())
        reader.space()
        rumps.append((rump, reader.word()))
    _check_number(len(rumps))
    return GenUrlAuth(tuple(rumps))


def read_url_fetch(reader: ArgumentReader) -> UrlFetch:
    """The arguments of URLFETCH."""
    urls: list[WantedUrl] = []
    while not reader.at_end or not urls:
        reader.space()
        urls.append(_extended(reader) if reader.peek() == b"(" else WantedUrl(Url(reader.astring())))
    _check_number(len(urls))
    return UrlFetch(tuple(urls))


def _extended(reader: ArgumentReader) -> WantedUrl:
    reader.open()
    url = Url(reader.astring())
    items: set[str] = set()
    while reader.peek() == b" ":
        reader.space()
        item = reader.word()
        if item not in _WANTED:
            raise ImapSyntaxError("BODY, BINARY or BODYPARTSTRUCTURE expected")
        items.add(item)
    reader.close()
    if {"BODY", "BINARY"} <= items:
        raise ImapSyntaxError("BODY and BINARY exclude each other")
    return WantedUrl(url, frozenset(items))


def _check_number(urls: int) -> None:
    if urls > MOST_URLS:
        raise ImapSyntaxError("Too many URLs")
