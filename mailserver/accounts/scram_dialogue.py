"""A login by SCRAM-SHA-256, with or without channel binding: the dialogue of one session.

The service gives each decoded response of the client to `step` and sends what comes back as a challenge,
until the answer to the login is there. The nonces and the channel are looked at here; the proof is for
whoever knows passwords (`Logins`). RFC 5802 §5 and §6, RFC 7677; RFC 9266 and RFC 5929 for the bindings.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from mailserver.accounts.login import Attempt, Granted, Logins, Refused
from mailserver.accounts.scram import Proof
from mailserver.wire import scram
from mailserver.wire.scram import ClientFirst, ScramSyntaxError

MECHANISM: Final = "SCRAM-SHA-256"
WITH_BINDING: Final = f"{MECHANISM}-PLUS"
MECHANISMS: Final = (MECHANISM, WITH_BINDING)
_NONCE_OCTETS: Final = 18
_LONGEST: Final = 2048  # octets of a client's message: three of them travel to the helper in one packet


class ScramDialogue:
    """`attempt` says who is asking, and by which mechanism; name and proof come from the client.

    `bindings` are the channel's, by their names: empty where there is no TLS.
    """

    def __init__(self, logins: Logins, attempt: Attempt, bindings: Mapping[str, bytes]) -> None:
        self._logins = logins
        self.attempt = attempt  # with its name once the client has said it
        self._bindings = bindings
        self._first: ClientFirst | None = None
        self._nonce = b""
        self._server_first = b""
        self._granted: Granted | None = None

    async def step(self, response: bytes) -> bytes | Granted | Refused:
        """The next challenge, or how the login ended. Raises ScramSyntaxError."""
        if self._granted is not None:
            granted, self._granted = self._granted, None
            return granted  # the client has seen our signature, and may answer nothing to it
        if len(response) > _LONGEST:
            raise ScramSyntaxError("SCRAM message too long.")
        if self._first is None:
            return await self._begin(response)
        return await self._prove(self._first, response)

    async def _begin(self, response: bytes) -> bytes | Refused:
        first = scram.parse_client_first(response)
        self._check_binding(first)
        if first.authorization not in ("", first.name):
            raise ScramSyntaxError("Logging in as somebody else is not supported.")
        self._first = first
        self.attempt = replace(self.attempt, name=first.name)
        challenge = await self._logins.challenge(first.name)
        if isinstance(challenge, Refused):
            return challenge
        self._nonce = first.nonce + secrets.token_urlsafe(_NONCE_OCTETS).encode("ascii")
        self._server_first = scram.server_first(self._nonce, challenge.salt, challenge.iterations)
        return self._server_first

    def _check_binding(self, first: ClientFirst) -> None:
        wants_binding = self.attempt.mechanism == WITH_BINDING
        if wants_binding != bool(first.binding) or (first.binding and first.binding not in self._bindings):
            raise ScramSyntaxError("Unsupported channel binding.")
        if first.knows_binding and self._bindings:  # somebody hid the -PLUS mechanism from the client
            raise ScramSyntaxError("The server does support channel binding.")

    async def _prove(self, first: ClientFirst, response: bytes) -> bytes | Refused:
        final = scram.parse_client_final(response)
        if final.nonce != self._nonce:
            raise ScramSyntaxError("Wrong nonce in SCRAM message.")
        bound = self._bindings[first.binding] if first.binding else b""
        if final.channel_binding != first.gs2_header + bound:
            return Refused(reason="the client's channel is not ours: somebody is between us")
        message = b",".join((first.bare, self._server_first, final.without_proof))
        answer = await self._logins.login(replace(self.attempt, proof=Proof(message, final.proof)))
        if isinstance(answer, Refused):
            return answer
        self._granted = answer
        return scram.server_final(answer.signature)

    def close(self) -> None:
        """A login that was granted to somebody who left is given back."""
        if self._granted is not None and self._granted.stream >= 0:
            os.close(self._granted.stream)
        self._granted = None
