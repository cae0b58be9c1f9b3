"""SCRAM-SHA-256's keys: what is stored of a password, and whether a proof shows that somebody knows it.

A verifier is stored as Dovecot stores it: `{SCRAM-SHA-256}iterations,salt,StoredKey,ServerKey`, the last
three in base64. It lets us check a proof; whoever steals it can pretend to be us, and has to guess
the password to pretend to be the client. RFC 5802 §3, RFC 7677.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from passlib.utils import saslprep

SCHEME: Final = "{SCRAM-SHA-256}"
ITERATIONS: Final = 100_000  # some 50 ms; RFC 7677 §4 asks for 4096 or more, and a stolen verifier for more
SALT_OCTETS: Final = 16
_MOST_ITERATIONS: Final = 10_000_000
_HASH: Final = "sha256"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a client has to know to make a proof."""

    salt: bytes
    iterations: int


@dataclass(frozen=True, slots=True)
class Proof:
    """A client's proof over the three messages before it (RFC 5802's AuthMessage)."""

    message: bytes
    client_proof: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verifier:
    """What is known of a password."""

    challenge: Challenge
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def signature(self, proof: Proof) -> bytes | None:
        """The server's signature, where the proof is right; else None. Takes as long either way."""
        ours = hmac.digest(self.stored_key, proof.message, _HASH)
        is_sound = len(proof.client_proof) == len(ours)
        theirs = proof.client_proof if is_sound else ours
        client_key = bytes(a ^ b for a, b in zip(theirs, ours, strict=True))
        signature = hmac.digest(self.server_key, proof.message, _HASH)
        is_right = hmac.compare_digest(hashlib.sha256(client_key).digest(), self.stored_key)
        return signature if is_right and is_sound else None

    def __str__(self) -> str:
        """As it is stored."""
        parts = (self.challenge.salt, self.stored_key, self.server_key)
        salt, stored_key, server_key = (base64.b64encode(part).decode("ascii") for part in parts)
        return f"{SCHEME}{self.challenge.iterations},{salt},{stored_key},{server_key}"


def read_verifier(stored: str) -> Verifier | None:
    """The verifier that a stored password is; None where it is none, or malformed."""
    if not stored.upper().startswith(SCHEME):
        return None
    try:
        iterations, *parts = stored[len(SCHEME) :].split(",")
        salt, stored_key, server_key = (base64.b64decode(part, validate=True) for part in parts)
        challenge = Challenge(salt, int(iterations))
    except (ValueError, binascii.Error):
        return None
    if not salt or not 0 < challenge.iterations <= _MOST_ITERATIONS:
        return None
    are_keys = len(stored_key) == len(server_key) == hashlib.sha256().digest_size
    return Verifier(challenge, stored_key, server_key) if are_keys else None


def new_verifier(password: bytes) -> Verifier:
    """A verifier to be stored in a passwd-file, with a salt of its own. Raises as `make_verifier`."""
    return make_verifier(password, Challenge(secrets.token_bytes(SALT_OCTETS), ITERATIONS))


def make_verifier(password: bytes, challenge: Challenge) -> Verifier:
    """The verifier of a password. *Blocking*, for as long as the iterations take. Raises ValueError for a
    password that SASLprep (RFC 4013) does not admit: no client could prove it.
    """
    prepared = saslprep(password.decode("utf-8")).encode("utf-8")
    if not prepared:
        raise ValueError("nothing is left of the password")
    salted = hashlib.pbkdf2_hmac(_HASH, prepared, challenge.salt, challenge.iterations)
    client_key = hmac.digest(salted, b"Client Key", _HASH)
    server_key = hmac.digest(salted, b"Server Key", _HASH)
    return Verifier(challenge, hashlib.sha256(client_key).digest(), server_key)
