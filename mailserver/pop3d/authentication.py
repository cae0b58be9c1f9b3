"""How SASL's challenges and responses stand in POP3. RFC 5034 §4."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable

from mailserver.accounts.sasl import Ask, SaslProblem

AskLine = Callable[[bytes], Awaitable[bytes]]  # the client's line after the one that `challenge_line` gives


def challenge_line(challenge: bytes) -> bytes:
    """The line that asks the client to go on."""
    return b"+ " + base64.b64encode(challenge) + b"\r\n"


def response(line: bytes) -> bytes:
    """What the client responds with that line. Raises SaslProblem, also where it cancels."""
    if line == b"*":
        raise SaslProblem("Authentication aborted by client.")
    if line == b"=":
        return b""
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error:
        raise SaslProblem("Invalid base64 data in response.") from None


def in_base64(ask: AskLine) -> Ask:
    """Responses come as base64. Raises SaslProblem."""

    async def asked(challenge: bytes) -> bytes:
        return response(await ask(challenge))

    return asked
