"""RESETKEY, GENURLAUTH, URLFETCH: URLs that open one message to others, and what takes them back.

RFC 4467; RFC 5524 (URLAUTH=BINARY). What a URL gives to whom is `url_access`'s to say. Everything that is not
to be had is NIL: no mailbox, no message, no right, a token that is wrong, an account that is nobody's.

INTERNAL is the only mechanism, and its keys are nobody's to see: other sessions of the account hear nothing
of RESETKEY.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mailserver.imapd.content import without_nul
from mailserver.imapd.replies import Refusal, Rejection, Reply, ok
from mailserver.imapd.session import Session
from mailserver.imapd.url_access import Found, Reader, UrlServer, authorize, find
from mailserver.message.mime import Part, parse
from mailserver.message.section import UnknownEncoding, binary, find_part
from mailserver.message.structure import render_bodystructure, render_structure
from mailserver.store.contract import AccessDenied, AccountStore
from mailserver.wire.imap_responses import literal, string
from mailserver.wire.imap_url import INTERNAL, BadUrl
from mailserver.wire.imap_urlauth import GenUrlAuth, ResetKey, UrlFetch, WantedUrl


async def reset_key(session: Session, command: ResetKey) -> Reply:
    """No URL of the mailbox, or none of the account, proves anything any more, durably. RFC 4467 §7."""
    _require_urls(session)
    if command.mailbox is None:
        await session.run(session.store.remove_access_keys)
        return ok("All keys removed.")
    for mechanism in command.mechanisms:
        _require_internal(mechanism)
    await session.run(_renew_key, session.store, command.mailbox)
    return ok("Resetkey completed.", b"URLMECH INTERNAL")


def _renew_key(store: AccountStore, name: str) -> None:
    """Blocking."""
    with store.borrow(name) as mailbox:
        if "r" not in mailbox.rights:
            raise AccessDenied("Permission denied")
        store.make_access_key(name, mailbox.uidvalidity, renew=True)


async def generate(session: Session, command: GenUrlAuth) -> Reply:
    """Each URL is told with its token, or none is. RFC 4467 §7."""
    _require_urls(session)
    urls: list[bytes] = []
    for rump, mechanism in command.rumps:
        _require_internal(mechanism)
        try:
            full = await session.run(authorize, session.settings.urls, session.as_reader, rump)
        except BadUrl as fault:
            raise Rejection(str(fault))
        urls.append(string(full))
    session.output.line(b"* GENURLAUTH " + b" ".join(urls))
    return ok("Genurlauth completed.")


def _require_urls(session: Session) -> None:
    if not session.settings.urls.is_open:
        raise Rejection("URLAUTH is not available: set imap_urlauth_host.")


def _require_internal(mechanism: str) -> None:
    if mechanism != INTERNAL:
        raise Refusal("INTERNAL is the only mechanism.")


async def fetch(session: Session, command: UrlFetch) -> Reply:
    """What each URL names is told, NIL where it is not to be had. The selected mailbox is left alone.

    A local fault is NO: the client may try again.
    """
    _require_urls(session)
    for wanted in command.urls:
        told = await session.run(_told, session.settings.urls, session.as_reader, wanted)
        session.output.write(b"* URLFETCH %b %b\r\n" % (string(wanted.url.text), told))
        await session.output.room()
    return ok("Urlfetch completed.")


def _told(server: UrlServer, reader: Reader, wanted: WantedUrl) -> bytes:
    """What follows the URL in the response. Raises StoreError. Blocking."""
    try:
        found = find(server, reader, wanted.url)
        if not wanted.items:
            return literal(without_nul(found.octets()))
        return b" ".join(b"(%b %b)" % item for item in _items(found, wanted).items())
    except BadUrl:
        return b"NIL"


def _items(found: Found, wanted: WantedUrl) -> Mapping[bytes, bytes]:
    """RFC 5524 §3.2, in the order that it has. Raises BadUrl where the message has no such part."""
    octets, tree = found.octets(), parse(found.content)
    decoded = _decoded(found, tree) if "BINARY" in wanted.items else None
    told: dict[bytes, bytes] = {}
    if "BODYPARTSTRUCTURE" in wanted.items:
        told[b"BODYPARTSTRUCTURE"] = _structure(found, tree, decoded)
    if "BODY" in wanted.items:
        told[b"BODY"] = literal(without_nul(octets))
    if "BINARY" in wanted.items:
        told[b"BINARY"] = b"NIL" if decoded is None else _binary(found.cut(decoded))
    return told


def _binary(octets: bytes) -> bytes:
    return b"~" + literal(octets) if b"\0" in octets else literal(octets)


def _decoded(found: Found, tree: Part) -> bytes | None:
    """The part without its Content-Transfer-Encoding; None where that cannot be undone."""
    section = found.url.section
    if section.text:
        return replace(found, url=replace(found.url, origin=0, octets=None)).octets()
    try:
        return binary(found.content, tree, section.part)
    except UnknownEncoding:
        return None


def _structure(found: Found, tree: Part, decoded: bytes | None) -> bytes:
    """The part's BODYSTRUCTURE; where it is told decoded, that of what is told."""
    section = found.url.section
    if not section.part:
        return render_bodystructure(found.content)
    part = find_part(tree, section.part)
    assert part is not None
    if decoded is None or part.children or part.is_multipart:
        return render_structure(found.content, part, extended=True)
    said = replace(part.said, encoding=_identity_encoding(decoded))
    span = type(part.body)(0, len(decoded))
    plain = replace(part, said=said, body=span, lines=decoded.count(b"\n"))
    return render_structure(decoded, plain, extended=True)


def _identity_encoding(octets: bytes) -> bytes:
    """What says truly how the octets are. RFC 2045 §6.2."""
    if b"\0" in octets:
        return b"binary"
    return b"7bit" if octets.isascii() else b"8bit"
