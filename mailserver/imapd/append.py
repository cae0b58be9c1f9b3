r"""APPEND and REPLACE: messages from the client into a mailbox, all or none, durable before OK.

RFC 3501 §6.3.11, RFC 3502 (MULTIAPPEND), RFC 4315 §3 (APPENDUID), RFC 3516 §4.3 (literal8),
RFC 4469 (CATENATE), RFC 8508 (REPLACE). A replaced message is removed after its replacement is
durable: a crash between the two leaves both.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mailserver.imapd.replies import Refusal, Reply, ok, refusal_of
from mailserver.imapd.session import Session
from mailserver.imapd.url_access import Reader, UrlServer, find, read_message
from mailserver.message.binary import without_binary
from mailserver.store.contract import AccountStore, Mailbox, NewMessage, StoreError, Uid
from mailserver.wire.imap_append import Append, AppendedMessage, Replace
from mailserver.wire.imap_responses import public_text
from mailserver.wire.imap_sequence import render_set
from mailserver.wire.imap_url import BadUrl, MessageUrl, Url, parse_message_url

_BARE_NEWLINE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")


async def append(session: Session, command: Append) -> Reply:
    """The messages are in the mailbox; their UIDs are told."""
    code = await _append(session, command)
    await session.sync()
    return ok("Append completed.", code)


async def replace(session: Session, command: Replace) -> Reply:
    """The message is in the mailbox, and the one that it replaces is gone from the selected one."""
    selected = session.writable_mailbox
    replaced = selected.chosen(command.replaced, command.by_uid)
    if not all(uid in selected.mailbox.messages for uid in replaced) or not replaced:
        raise Refusal("The message to be replaced is gone.", b"EXPUNGEISSUED")
    if not {"t", "e"} <= selected.mailbox.rights:
        raise Refusal("Permission denied", b"NOPERM")
    code = await _append(session, command.append)
    if code:
        session.output.line(b"* OK [%b] Replacement message ready." % code)
    await session.run(selected.mailbox.remove, replaced)
    session.counts.expunged += 1
    await session.sync()
    return ok("Replace completed.")


async def _append(session: Session, command: Append) -> bytes:
    """The APPENDUID code, b"" where it would tell of a mailbox that is not to be read."""
    if any(message.parts for message in command.messages):
        await _check_target(session, command.mailbox)
    messages = [_stored(message, await _content(session, message)) for message in command.messages]
    try:
        uids, uidvalidity = await session.run(_append_all, session.store, command.mailbox, messages)
    except StoreError as fault:
        raise refusal_of(fault, is_target=True)
    session.made(command.mailbox, uids)
    if not uidvalidity:
        return b""
    return b"APPENDUID %d %b" % (uidvalidity, render_set(uids))


async def _check_target(session: Session, name: str) -> None:
    """The mailbox is there; else TRYCREATE, whatever is wrong with URLs."""
    try:
        await session.run(_look, session.store, name)
    except StoreError as fault:
        raise refusal_of(fault, is_target=True)


def _look(store: AccountStore, name: str) -> None:
    """Blocking."""
    with store.borrow(name):
        pass


def _append_all(store: AccountStore, name: str, messages: Sequence[NewMessage]) -> tuple[Sequence[Uid], int]:
    """The messages' UIDs in the mailbox of that name, and its UIDVALIDITY, 0 for who may not read it.

    RFC 4315 §3. Blocking.
    """
    with store.borrow(name) as mailbox:
        return mailbox.append(messages), mailbox.uidvalidity if "r" in mailbox.rights else 0


def _stored(message: AppendedMessage, content: bytes) -> NewMessage:
    if not content:
        raise Refusal("Can't save a zero byte message.", b"CANNOT")
    content = without_binary(content)
    if b"\0" in content:
        raise Refusal("NUL octets cannot be stored.", b"UNKNOWN-CTE")
    return NewMessage(with_crlf(content), message.flags, message.internal_date)


def with_crlf(content: bytes) -> bytes:
    """The content with every line end as CRLF; unchanged, without a copy, where they all are."""
    if content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r"):
        return content
    return _BARE_NEWLINE.sub(b"\r\n", content)


async def _content(session: Session, message: AppendedMessage) -> bytes:
    """The message's octets, catenated where they come in parts. RFC 4469 §3."""
    if not message.parts:
        return message.content
    pieces: list[bytes] = []
    room = session.settings.largest_message
    for part in message.parts:
        pieces.append(part if isinstance(part, bytes) else await _linked(session, part))
        room -= len(pieces[-1])
        if room < 0:
            raise Refusal("The message would be too large.", b"TOOBIG")
    return b"".join(pieces)


async def _linked(session: Session, url: Url) -> bytes:
    """What the URL names, as it is; it does not become \\Seen."""
    try:
        if url.is_absolute:
            return await session.run(_read_absolute, session.settings.urls, session.as_reader, url)
        wanted = parse_message_url(url, session.store.namespace)
        if wanted.mailbox is None and session.selected is None:
            raise BadUrl("No mailbox is selected")
        if wanted.mailbox is None:
            return await session.run(_read, session.mailbox_in_use.mailbox, wanted)
        return await session.run(_read_elsewhere, session.store, wanted.mailbox, wanted)
    except (BadUrl, StoreError) as fault:
        named = public_text(url.text.decode("latin-1")).replace(b"]", b"%5D")
        raise Refusal(str(fault) or "There is no such message", b"BADURL " + named)


def _read_absolute(server: UrlServer, reader: Reader, url: Url) -> bytes:
    """Blocking."""
    return find(server, reader, url).octets()


def _read_elsewhere(store: AccountStore, name: str, wanted: MessageUrl) -> bytes:
    """Blocking."""
    with store.borrow(name) as mailbox:
        return _read(mailbox, wanted)


def _read(mailbox: Mailbox, wanted: MessageUrl) -> bytes:
    """Blocking."""
    return read_message(mailbox, wanted).octets()
