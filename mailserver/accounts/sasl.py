"""A SASL mechanism's dialogue, whatever the protocol: from AUTH to a name and a password, or to an answer.

How a challenge reaches the client, and how its response is read, is the service's. Whether the password is
right is `Logins`' question. RFC 4616 (PLAIN), RFC 5802 (SCRAM), RFC 4422 Appendix A (EXTERNAL); LOGIN as
old clients speak it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from mailserver.accounts.login import EXTERNAL, Granted, Refused
from mailserver.accounts.scram_dialogue import ScramDialogue
from mailserver.wire.scram import ScramSyntaxError

LONGEST_NAME: Final = 255

Ask = Callable[[bytes], Awaitable[bytes]]  # the client's response to that challenge, both without base64


class SaslProblem(Exception):
    """What the client said is no answer. The text is public."""


class ActsForAnother(SaslProblem):
    """The client wants to act for somebody else than whose password it has."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims. `mechanism` as it is logged. EXTERNAL: "" is whoever the certificate says."""

    name: str
    password: bytes = field(repr=False)
    mechanism: str = "PLAIN"


async def credentials(mechanism: str, initial: bytes | None, ask: Ask) -> Credentials:
    """What PLAIN's, LOGIN's or EXTERNAL's dialogue gives. Raises SaslProblem, and what `ask` does.

    `initial` is the response that came with the command, None where none did.
    """
    if mechanism == "LOGIN":
        name = await ask(b"Username:") if initial is None else initial
        return Credentials(name_of(name), await ask(b"Password:"), mechanism)
    response = await ask(b"") if initial is None else initial
    return Credentials(name_of(response), b"", EXTERNAL) if mechanism == EXTERNAL else _plain(response)


async def by_scram(
    dialogue: ScramDialogue, initial: bytes | None, ask: Ask, attempted: Callable[[str], None]
) -> Granted | Refused:
    """How a login by SCRAM ended; `attempted` is told the name. Raises SaslProblem, and what `ask` does."""
    try:
        answer = await dialogue.step(await ask(b"") if initial is None else initial)
        attempted(dialogue.attempt.name)
        while isinstance(answer, bytes):
            answer = await dialogue.step(await ask(answer))
        return answer
    except ScramSyntaxError as problem:
        raise SaslProblem(str(problem)) from None
    finally:
        dialogue.close()


def _plain(response: bytes) -> Credentials:
    """RFC 4616 §2."""
    fields = response.split(b"\0")
    if len(fields) != 3:
        raise SaslProblem("Invalid PLAIN response.")
    authorization, name, password = fields
    if authorization not in (b"", name):
        raise ActsForAnother("Logging in as somebody else is not supported.")
    return Credentials(name_of(name), password)


def name_of(raw: bytes) -> str:
    """The name as text; one that can be nobody's stays recognisably so."""
    return raw[: LONGEST_NAME + 1].decode("utf-8", "replace")
