"""A message that comes in, in the hands of milters: as they see it, and with what they changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mailserver.milter.chain import MilterChain
from mailserver.milter.connection import blocking_connect
from mailserver.milter.content import LARGEST_HEADER, MilterContent, split_content
from mailserver.milter.rules import MilterRules, Verdict
from mailserver.queue.incoming import IncomingMessage
from mailserver.threads import Inline
from mailserver.wire import milter

_LOCALHOST = ("localhost", "127.0.0.1")


def milter_content(message: IncomingMessage, own: bytes, body_limit: int = 0) -> MilterContent:
    """The message's content, `own` being our Received: field. *Blocking.* Raises OSError."""
    read = message.reader()
    head = b""
    for piece in read(0):
        head += piece
        if b"\n\n" in head or len(head) > LARGEST_HEADER + len(own):
            break
    fields, start = split_content(head)
    made = MilterContent(message.envelope, own, fields, lambda: read(start))
    if body_limit:
        made.body_limit = body_limit
    return made


def apply_changes(message: IncomingMessage, content: MilterContent) -> None:
    """The message is what the content is now. *Blocking.* Raises OSError: nothing is left of the message."""
    if content.is_changed:
        message.replace_content(content.pieces())
    message.envelope = content.envelope
    message.is_held = message.is_held or bool(content.quarantine)


async def ask_about_local(
    rules: Sequence[MilterRules],
    content: MilterContent,
    macros: Mapping[str, str],
    warn: Callable[[str], None],
) -> Verdict:
    """What milters say of mail that came over no wire: they see a session from localhost. *Blocking.*

    MILTER_README, "non_smtpd_milters".
    """
    name, address = _LOCALHOST
    envelope = content.envelope
    sender = str(envelope.sender or "")
    known = {"_": f"{name} [{address}]", "client_name": name, "client_addr": address, "mail_addr": sender}
    recipient = ""

    def values() -> Mapping[str, str]:
        return {**macros, **known, "rcpt_addr": recipient}

    chain = MilterChain(rules, blocking_connect, values, warn)
    try:
        if (verdict := await chain.connected(name, address, 0)) is not None:
            return verdict
        said: list[tuple[bytes, str]] = [(milter.HELO, macros.get("j", name)), (milter.MAIL, f"<{sender}>")]
        for command, text in (*said, *((milter.RCPT, str(each.address)) for each in envelope.recipients)):
            recipient = text if command == milter.RCPT else ""
            shown = f"<{text}>" if command == milter.RCPT else text
            if (verdict := await chain.command(command, shown)) is not None:
                return verdict
        if (verdict := await chain.command(milter.DATA)) is not None:
            return verdict
        return await chain.content(content, Inline())
    finally:
        chain.close()
