"""AUTH PLAIN, LOGIN and EXTERNAL: the dialogue, from base64 to a name and a password. RFC 4954, RFC 4616.

A mechanism is a small machine: `step` takes the client's decoded response and gives the next
challenge, or the finished `Credentials`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Protocol

from mailserver.accounts.login import EXTERNAL
from mailserver.wire.smtp import SmtpError

LONGEST_NAME: Final = 255  # octets


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims. Never logged as a whole."""

    name: str
    password: bytes


NOBODY: Final = Credentials("", b"")


class Mechanism(Protocol):
    """One run of a SASL mechanism."""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """The next challenge or the result; None asks for the first challenge. Raises SmtpError."""


class Plain:
    """SASL PLAIN: `authzid NUL name NUL password`. Acting for somebody else is not offered."""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """See `Mechanism.step`."""
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3 or parts[0] not in (b"", parts[1]):
            raise _failed()
        return Credentials(_name(parts[1]), parts[2])


class Login:
    """SASL LOGIN, as Outlook speaks it: name and password in two answers."""

    def __init__(self) -> None:
        self._name: str | None = None

    def step(self, response: bytes | None) -> bytes | Credentials:
        """See `Mechanism.step`."""
        if response is None:
            return b"Username:"
        if self._name is None:
            self._name = _name(response)
            return b"Password:"
        return Credentials(self._name, response)


class External:
    """SASL EXTERNAL: the name that the client means, "" for the certificate's. RFC 4422 Appendix A."""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """See `Mechanism.step`."""
        if response is None:
            return b""
        return Credentials(_name(response), b"") if response else NOBODY


def start(mechanism: str) -> Mechanism:
    """A fresh run of PLAIN, LOGIN or EXTERNAL."""
    if mechanism == EXTERNAL:
        return External()
    if mechanism == "PLAIN":
        return Plain()
    return Login()


def decode_response(line: bytes) -> bytes:
    """The octets of a base64 response; `=` alone is the empty response. Raises SmtpError. RFC 4954 §4."""
    if line == b"*":
        raise SmtpError(501, "5.7.0", "Authentication aborted")
    if line == b"=":
        return b""
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise SmtpError(501, "5.5.2", "Error: cannot base64-decode the response") from None


def _name(octets: bytes) -> str:
    if not octets or len(octets) > LONGEST_NAME:
        raise _failed()
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _failed() from None


def _failed() -> SmtpError:
    return SmtpError(535, "5.7.8", "Error: authentication failed: malformed response")
