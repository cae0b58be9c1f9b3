"""From USER and PASS, or AUTH, to a name and a password, or to a proof of one.

Who may log in is `accounts.login.Logins`' question. RFC 1939 §7, RFC 5034 (AUTH),
RFC 4616 (PLAIN), RFC 5802 (SCRAM), RFC 4422 Appendix A (EXTERNAL); LOGIN as old clients speak it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.login import EXTERNAL, Granted, Refused
from mailserver.accounts.scram_dialogue import ScramDialogue
from mailserver.wire.scram import ScramSyntaxError

LONGEST_NAME: Final = 255

Ask = Callable[[bytes], Awaitable[bytes]]  # the client's line after `+ ` and this challenge


class AuthenticationAborted(Exception):
    """The client cancelled, or sent what is no answer. The text is public."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims. `mechanism` as it is logged; USER and PASS are PLAIN, as in Dovecot.

    EXTERNAL: "" is whoever the certificate says.
    """

    name: str
    password: bytes
    mechanism: str = "PLAIN"


async def from_auth(mechanism: str, initial: bytes | None, ask: Ask) -> Credentials:
    """The credentials that AUTH's dialogue gives. Raises AuthenticationAborted. RFC 5034 §4."""
    if mechanism == "PLAIN":
        return _plain(_decoded(await ask(b"") if initial is None else initial))
    if mechanism == EXTERNAL:
        return Credentials(name_of(_decoded(await ask(b"") if initial is None else initial)), b"", EXTERNAL)
    name = _decoded(await ask(b"Username:") if initial is None else initial)
    return Credentials(name_of(name), _decoded(await ask(b"Password:")), "LOGIN")


async def by_scram(
    dialogue: ScramDialogue, initial: bytes | None, ask: Ask, attempted: Callable[[str], None]
) -> Granted | Refused:
    """The answer to AUTH SCRAM-…; `attempted` is told the name. Raises AuthenticationAborted."""
    try:
        answer = await dialogue.step(_decoded(await ask(b"") if initial is None else initial))
        attempted(dialogue.attempt.name)
        while isinstance(answer, bytes):
            answer = await dialogue.step(_decoded(await ask(answer)))
        return answer
    except ScramSyntaxError as problem:
        raise AuthenticationAborted(str(problem)) from None
    finally:
        dialogue.close()


def challenge_line(challenge: bytes) -> bytes:
    """The line that asks the client to go on."""
    return b"+ " + base64.b64encode(challenge) + b"\r\n"


def _decoded(line: bytes) -> bytes:
    if line == b"*":
        raise AuthenticationAborted("Authentication aborted by client.")
    if line == b"=":
        return b""
    try:
        return base64.b64decode(line, validate=True)
    except binascii.Error:
        raise AuthenticationAborted("Invalid base64 data in response.") from None


def _plain(response: bytes) -> Credentials:
    fields = response.split(b"\0")
    if len(fields) != 3:
        raise AuthenticationAborted("Invalid PLAIN response.")
    authorization, name, password = fields
    if authorization not in (b"", name):
        raise AuthenticationAborted("Logging in as somebody else is not supported.")
    return Credentials(name_of(name), password)


def name_of(raw: bytes) -> str:
    """The name as text; one that can be nobody's stays recognisably so."""
    return raw[: LONGEST_NAME + 1].decode("utf-8", "replace")
