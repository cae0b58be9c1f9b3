"""A SCRAM-SHA-256 client for tests, written from RFC 5802 alone: none of the server's code is in it.

And what a `Logins` of tests needs to know of a password that is `secret`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable

from mailserver.accounts.account import Account
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge, make_verifier

SECRET = make_verifier(b"secret", Challenge(b"salt and pepper", 2))


def answer_to_proof(attempt: Attempt, account: Account) -> Granted | Refused:
    """What a proof of the account that its password is `secret` is answered."""
    assert attempt.proof is not None
    signature = SECRET.signature(attempt.proof)
    is_right = signature is not None and attempt.name == account.name
    return Granted(account, signature=signature or b"") if is_right else Refused()


def log_in(client: ScramClient, ask: Callable[[bytes], bytes], start: bytes) -> bytes:
    """The last answer of a login; `ask` sends a line, and answers come as a prompt and base64."""
    first = _challenge(ask(start + b" " + base64.b64encode(client.first)))
    last = ask(base64.b64encode(client.final(first)))
    if not last.startswith((b"+ ", b"334 ")):
        return last
    assert _challenge(last) == client.expected
    return ask(b"")


def _challenge(line: bytes) -> bytes:
    return base64.b64decode(line.split(b" ", 1)[1])


class ScramClient:
    """One login. `header` is the GS2 header, `bound` the channel's data behind it."""

    def __init__(self, name: str, password: str, header: str = "n,,", bound: bytes = b"") -> None:
        self._password = password.encode()
        self._bare = f"n={name},r=fyko+d2lbbFgONRv9qkxdawL"
        self._header, self._bound = header, bound
        self.first = (header + self._bare).encode()
        self.salt = b""
        self.iterations = 0
        self.signature = b""

    def final(self, server_first: bytes) -> bytes:
        """The message that answers the server's first."""
        fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
        self.salt, self.iterations = base64.b64decode(fields["s"]), int(fields["i"])
        channel = base64.b64encode(self._header.encode() + self._bound).decode()
        without_proof = f"c={channel},r={fields['r']}"
        message = ",".join((self._bare, server_first.decode(), without_proof)).encode()
        salted = hashlib.pbkdf2_hmac("sha256", self._password, self.salt, self.iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        mask = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        self.signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    @property
    def expected(self) -> bytes:
        """The server's last message, if it knows the password's verifier."""
        return b"v=" + base64.b64encode(self.signature)
