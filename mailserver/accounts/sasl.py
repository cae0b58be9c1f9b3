"""Server side of SASL PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login), on decoded octets.

A mechanism is a small state machine: `respond` takes the client's next response and gives
the next challenge, or the credentials at the end. Base64 is the protocol's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

LONGEST_RESPONSE: Final = 1024  # octets, decoded


class BadResponse(Exception):
    """The response breaks the mechanism's grammar."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims to be."""

    name: str
    password: bytes = field(repr=False)


class Mechanism(Protocol):
    """One exchange."""

    name: str

    def first_challenge(self) -> bytes:
        """What to send where the client gave no initial response."""

    def respond(self, response: bytes) -> bytes | Credentials:
        """The next challenge, or the end. Raises BadResponse."""


def _name(text: bytes) -> str:
    if not text or b"\0" in text or len(text) > LONGEST_RESPONSE:
        raise BadResponse("no usable user name")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadResponse("the user name is not UTF-8") from error


class Plain:
    """authzid NUL authcid NUL password. An authorization identity other than the name is refused."""

    name = "PLAIN"

    def first_challenge(self) -> bytes:
        """See `Mechanism.first_challenge`."""
        return b""

    def respond(self, response: bytes) -> Credentials:
        """See `Mechanism.respond`."""
        parts = response.split(b"\0")
        if len(parts) != 3 or len(response) > LONGEST_RESPONSE:
            raise BadResponse("PLAIN wants authzid NUL authcid NUL password")
        authorization, name, password = parts
        if authorization not in (b"", name):
            raise BadResponse("logging in for somebody else is not possible")
        return Credentials(_name(name), password)


class Login:
    """Asks for the name, then for the password. An initial response is the name."""

    name = "LOGIN"

    def __init__(self) -> None:
        self._user: str | None = None

    def first_challenge(self) -> bytes:
        """See `Mechanism.first_challenge`."""
        return b"Username:"

    def respond(self, response: bytes) -> bytes | Credentials:
        """See `Mechanism.respond`."""
        if self._user is None:
            self._user = _name(response)
            return b"Password:"
        if len(response) > LONGEST_RESPONSE:
            raise BadResponse("the password is too long")
        return Credentials(self._user, response)


MECHANISMS: Final[dict[str, type[Plain] | type[Login]]] = {"PLAIN": Plain, "LOGIN": Login}
