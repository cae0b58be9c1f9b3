"""APPEND: messages from the client into a mailbox, all or none, durable before OK.

RFC 3501 §6.3.11, RFC 3502 (MULTIAPPEND), RFC 4315 §3 (APPENDUID), RFC 3516 §4.3 (literal8).
"""

from __future__ import annotations

import re
from typing import Final

from mailserver.imapd.replies import Refusal, Reply, ok, refusal_of
from mailserver.imapd.session import Session
from mailserver.store.contract import NewMessage, StoreError
from mailserver.wire.imap_commands import Append, AppendedMessage
from mailserver.wire.imap_sequence import render_set

_BARE_NEWLINE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")


async def append(session: Session, command: Append) -> Reply:
    """The messages are in the mailbox; their UIDs are told."""
    messages = [_stored(message) for message in command.messages]
    try:
        mailbox = await session.open(command.mailbox)
        try:
            uids = await session.run(mailbox.append, messages)
            code = b"APPENDUID %d %b" % (mailbox.uidvalidity, render_set(uids))
        finally:
            await session.give_back(mailbox)
    except StoreError as fault:
        raise refusal_of(fault, is_target=True)
    await session.sync()
    return ok("Append completed.", code)


def _stored(message: AppendedMessage) -> NewMessage:
    if not message.content:
        raise Refusal("Can't save a zero byte message.", b"CANNOT")
    if b"\0" in message.content:
        raise Refusal("NUL octets cannot be stored.", b"UNKNOWN-CTE")
    return NewMessage(with_crlf(message.content), message.flags, message.internal_date)


def with_crlf(content: bytes) -> bytes:
    """The content with every line end as CRLF; unchanged, without a copy, where they all are."""
    if content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r"):
        return content
    return _BARE_NEWLINE.sub(b"\r\n", content)
