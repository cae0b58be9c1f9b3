"""Logging in to a relay: which SASL mechanism, and what is said. RFC 4954."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailserver.wire.smtp_reply import Reply

_PLAINTEXT: Final = ("PLAIN", "LOGIN")  # the server is shown the password
_OTHERS: Final = ("CRAM-MD5",)

Ask = Callable[[str], Awaitable[Reply]]  # the reply to a line


@dataclass(frozen=True, slots=True)
class Login:
    """Who to log in as. `mechanisms` limits the choice where not empty (smtp_sasl_mechanism_filter).

    Where `in_clear` or `under_tls` is false the password is not shown there: noplaintext of
    smtp_sasl_security_options and smtp_sasl_tls_security_options.
    """

    name: str
    password: str = field(repr=False)
    in_clear: bool = True
    under_tls: bool = True
    mechanisms: frozenset[str] = frozenset()

    def mechanism(self, offered: Sequence[str], is_tls: bool) -> str | None:
        """The best mechanism that the server and the settings have in common."""
        may_show = self.under_tls if is_tls else self.in_clear
        known = _PLAINTEXT + _OTHERS if may_show else _OTHERS
        for name in known:
            if name in offered and (not self.mechanisms or name in self.mechanisms):
                return name
        return None

    async def say(self, mechanism: str, ask: Ask) -> Reply:
        """The reply that decides: 235 where the server took the login."""
        match mechanism:
            case "PLAIN":
                return await ask("AUTH PLAIN " + _base64("\0".join(("", self.name, self.password))))
            case "LOGIN":
                reply = await ask("AUTH LOGIN")
                for secret in (self.name, self.password):
                    if reply.code == 334:
                        reply = await ask(_base64(secret))
                return reply
            case _:
                reply = await ask("AUTH CRAM-MD5")
                if reply.code == 334:
                    challenge = str(reply).partition(" ")[2]
                    reply = await ask(_cram_md5(self.name, self.password, challenge))
                return reply


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _cram_md5(name: str, password: str, challenge: str) -> str:
    """RFC 2195 §2. A challenge that cannot be decoded gets an answer that fails."""
    try:
        text = base64.b64decode(challenge.strip(), validate=True)
    except ValueError:
        text = b""
    return _base64(f"{name} {hmac.new(password.encode(), text, 'md5').hexdigest()}")
