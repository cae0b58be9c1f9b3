"""From LOGIN or AUTHENTICATE to a name and a password, or to a proof of one.

Who may log in is `accounts.login.Logins`' question. RFC 3501 §6.2, RFC 4616 (PLAIN),
RFC 4959 (initial responses), RFC 5802 (SCRAM), RFC 4422 Appendix A (EXTERNAL); the LOGIN
mechanism as old clients speak it.
"""

from __future__ import annotations

import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.login import EXTERNAL, Granted, Refused
from mailserver.accounts.scram_dialogue import ScramDialogue
from mailserver.imapd.replies import Refusal, Rejection
from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_commands import Authenticate, Login, decode_base64
from mailserver.wire.scram import ScramSyntaxError

LONGEST_NAME: Final = 255

Ask = Callable[[bytes], Awaitable[bytes]]  # the client's line after `+ ` and this challenge, encoded


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims. `mechanism` as it is logged. EXTERNAL: "" is whoever the certificate says."""

    name: str
    password: bytes
    mechanism: str


def from_login(command: Login) -> Credentials:
    """LOGIN's credentials; it is logged as PLAIN, as Dovecot does."""
    return Credentials(_name(command.name), command.password, "PLAIN")


async def from_authenticate(command: Authenticate, ask: Ask) -> Credentials:
    """AUTHENTICATE's credentials, after the mechanism's dialogue.

    Raises Rejection for a client that cancels with `*` or sends no base64 (RFC 3501 §6.2.2).
    """
    if command.mechanism == "PLAIN":
        response = command.initial
        if response is None:
            response = await _ask(ask, b"")
        return _plain(response)
    if command.mechanism == EXTERNAL:
        identity = command.initial
        return Credentials(_name(await _ask(ask, b"") if identity is None else identity), b"", EXTERNAL)
    if command.mechanism == "LOGIN":
        name = command.initial or await _ask(ask, b"Username:")
        return Credentials(_name(name), await _ask(ask, b"Password:"), "LOGIN")
    raise Refusal("Unsupported authentication mechanism.", b"CANNOT")


async def by_scram(
    dialogue: ScramDialogue, command: Authenticate, ask: Ask, attempted: Callable[[str], None]
) -> Granted | Refused:
    """The answer to AUTHENTICATE SCRAM-…; `attempted` is told the name. Raises Rejection."""
    response = command.initial
    try:
        answer = await dialogue.step(await _ask(ask, b"") if response is None else response)
        attempted(dialogue.attempt.name)
        while isinstance(answer, bytes):
            answer = await dialogue.step(await _ask(ask, answer))
        return answer
    except ScramSyntaxError as problem:
        raise Rejection(str(problem)) from None
    finally:
        dialogue.close()


async def _ask(ask: Ask, challenge: bytes) -> bytes:
    line = await ask(binascii.b2a_base64(challenge, newline=False))
    if line == b"*":
        raise Rejection("Authentication aborted by client.")
    try:
        return b"" if line in (b"", b"=") else decode_base64(line)
    except ImapSyntaxError:
        raise Rejection("Invalid base64 data in continued response")


def _plain(response: bytes) -> Credentials:
    fields = response.split(b"\0")
    if len(fields) != 3:
        raise Rejection("Invalid PLAIN response")
    authorization, name, password = fields
    if authorization and authorization != name:
        raise Refusal("Authentication failed.", b"AUTHENTICATIONFAILED")
    return Credentials(_name(name), password, "PLAIN")


def _name(raw: bytes) -> str:
    """The name as text; one that can be nobody's stays recognisably so."""
    return raw[: LONGEST_NAME + 1].decode("utf-8", "replace")
