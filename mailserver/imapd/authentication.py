"""How SASL's challenges and responses stand in IMAP. RFC 3501 §6.2.2."""

from __future__ import annotations

import binascii
from collections.abc import Awaitable, Callable

from mailserver.accounts.sasl import Ask
from mailserver.imapd.replies import Rejection
from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_commands import decode_base64

AskLine = Callable[[bytes], Awaitable[bytes]]  # the client's line after `+ ` and this text


def in_base64(ask: AskLine) -> Ask:
    """Challenges and responses go as base64. Raises Rejection, also for the `*` that cancels."""

    async def asked(challenge: bytes) -> bytes:
        line = await ask(binascii.b2a_base64(challenge, newline=False))
        if line == b"*":
            raise Rejection("Authentication aborted by client.")
        try:
            return b"" if line in (b"", b"=") else decode_base64(line)
        except ImapSyntaxError:
            raise Rejection("Invalid base64 data in continued response")

    return asked
