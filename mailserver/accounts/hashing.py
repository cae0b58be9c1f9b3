"""Stored passwords: every scheme that crypt(5), Dovecot's passwd-files and passlib share.

A stored password is `{SCHEME}text`, or bare crypt(3) text as in /etc/shadow. One
`CryptContext` of passlib's verifies them all; its first handler hands whatever the system's
crypt(3) knows to `libcrypt`, so that passlib's own, slower code (which holds the
interpreter's lock) is the fallback only. Dovecot's spellings that passlib lacks are
translated before: `{SHA512}` is base64 with Dovecot and hex with passlib.

Comparisons take constant time. Nothing is logged here. Argon2 needs the
`cryptography` package built on OpenSSL 3.2, or `argon2-cffi`; without either such a password
cannot be verified and `UnknownScheme` says so. Of Dovecot's schemes `{OTP}` is not known: it changes with
each login.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any, Final

import passlib.hash
import passlib.utils.handlers as passlib_handlers
from passlib.context import CryptContext
from passlib.exc import MissingBackendError

from mailserver.accounts import libcrypt, old_schemes
from mailserver.accounts.old_schemes import octets_of

DEFAULT_SCHEME: Final = "SHA512-CRYPT"
DEFAULT_ROUNDS: Final = 100_000  # about 50 ms in crypt(3); passlib's default takes ten times that
_SALT_ALPHABET: Final = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SCHEME: Final = re.compile(r"\{([A-Za-z0-9-]+)(?:\.(HEX|B64|BASE64))?\}", re.IGNORECASE)
_METHOD: Final = re.compile(r"\$[0-9a-z]+\$|\$sha1(?=\$)")


class UnknownScheme(Exception):
    """The stored password cannot be verified here. The text names the scheme, never the password."""


def _text(value: str | bytes) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def _octets(value: str | bytes) -> bytes:
    return value.encode("utf-8") if isinstance(value, str) else value


class system_crypt(passlib_handlers.MinimalHandler):  # type: ignore[misc]
    """passlib handler for every hash that the system's crypt(3) can verify."""

    name = "system_crypt"
    setting_kwds = ()
    context_kwds = ()

    @classmethod
    def identify(cls, stored: str | bytes) -> bool:
        """Whether crypt(3) on this system knows the method."""
        method = _METHOD.match(_text(stored))
        return method is not None and libcrypt.knows(method.group())

    @classmethod
    def verify(cls, secret: str | bytes, stored: str | bytes, **context: Any) -> bool:
        """Whether the password gives this hash."""
        expected = _text(stored)
        found = libcrypt.crypt(_octets(secret), expected)
        return found is not None and hmac.compare_digest(found.encode(), expected.encode())

    @classmethod
    def hash(cls, secret: str | bytes, **settings: Any) -> str:
        """A new hash with the default scheme and cost."""
        return _new_sha512(_octets(secret), DEFAULT_ROUNDS)

    @classmethod
    def genconfig(cls, **settings: Any) -> str:
        """Required by passlib's interface; the same as a hash of nothing."""
        return cls.hash(b"")

    @classmethod
    def genhash(cls, secret: str | bytes, config: str, **context: Any) -> str:
        """Required by passlib's interface."""
        return cls.hash(secret)


_context: Final = CryptContext(
    schemes=[
        system_crypt,
        "sha512_crypt",
        "sha256_crypt",
        "md5_crypt",
        "bcrypt",
        "sha1_crypt",
        "sun_md5_crypt",
        "apr_md5_crypt",
        "phpass",
        "argon2",
        "scrypt",
        "pbkdf2_sha1",
        "pbkdf2_sha256",
        "pbkdf2_sha512",
        "bsdi_crypt",
        "des_crypt",
    ]
)


def _crypt(text: str, password: bytes) -> bool:
    """Crypt(5) text and passlib's own modular formats."""
    if text.startswith("$argon2"):
        return _argon2(text, password)
    if _context.identify(text) is None:
        raise UnknownScheme("the hash is of no method that crypt(3) or passlib knows")
    return bool(_context.verify(password, text))


def _plain(text: str, password: bytes) -> bool:
    return hmac.compare_digest(text.encode("utf-8"), password)


def _digest(algorithm: str, salted: bool = False) -> Callable[[str, bytes], bool]:
    """Bare digests, hex or base64 (Dovecot takes both, by length); `salted`: the salt follows the digest."""
    size = hashlib.new(algorithm).digest_size

    def verify(text: str, password: bytes) -> bool:
        stored = base64.b64decode(text) if salted else octets_of(text, size)
        digest, salt = stored[:size], stored[size:]
        if len(digest) != size or (salt and not salted):
            raise ValueError("a digest of the wrong length")
        return hmac.compare_digest(hashlib.new(algorithm, password + salt).digest(), digest)

    return verify


def _pbkdf2(text: str, password: bytes) -> bool:
    """Dovecot's `$1$salt$rounds$hex`: PBKDF2 with SHA-1 and a salt taken as text."""
    _, version, salt, rounds, digest = text.split("$")
    if version != "1":
        raise UnknownScheme("{PBKDF2} of an unknown version")
    found = hashlib.pbkdf2_hmac("sha1", password, salt.encode(), int(rounds))
    return hmac.compare_digest(found, binascii.unhexlify(digest))


def _scram(algorithm: str) -> Callable[[str, bytes], bool]:
    """Dovecot's `iterations,salt,StoredKey,ServerKey`. RFC 5802 §3."""

    def verify(text: str, password: bytes) -> bool:
        iterations, salt, stored_key, _ = text.split(",")
        salted = hashlib.pbkdf2_hmac(algorithm, password, base64.b64decode(salt), int(iterations))
        client_key = hmac.digest(salted, b"Client Key", algorithm)
        found = hashlib.new(algorithm, client_key).digest()
        return hmac.compare_digest(found, base64.b64decode(stored_key))

    return verify


def _argon2(text: str, password: bytes) -> bool:
    """By the `cryptography` package where it knows the variant, else by passlib's back ends."""
    try:
        from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.kdf import argon2
    except ImportError:
        return bool(_context.verify(password, text))
    variant = getattr(argon2, text.split("$")[1].capitalize(), None)
    if variant is None:
        return bool(_context.verify(password, text))
    try:
        variant.verify_phc_encoded(password, text)
    except InvalidKey:
        return False
    except UnsupportedAlgorithm:
        return bool(_context.verify(password, text))
    return True


def _ldap_pbkdf2(name: str) -> Callable[[str, bytes], bool]:
    """passlib's `{PBKDF2-SHA256}rounds$salt$digest`, as slapd has it."""
    handler = getattr(passlib.hash, f"ldap_pbkdf2_{name.partition('-')[2].lower()}")
    return lambda text, password: bool(handler.verify(password, f"{{{name}}}{text}"))


_VERIFY: Final[dict[str, Callable[[str, bytes], bool]]] = {
    **dict.fromkeys(
        (
            "CRYPT",
            "SHA512-CRYPT",
            "SHA256-CRYPT",
            "BLF-CRYPT",
            "MD5-CRYPT",
            "DES-CRYPT",
            "ARGON2I",
            "ARGON2ID",
        ),
        _crypt,
    ),
    **dict.fromkeys(("PLAIN", "CLEAR", "CLEARTEXT"), _plain),
    "PBKDF2": _pbkdf2,
    "SHA": _digest("sha1"),
    "SHA1": _digest("sha1"),
    "SHA256": _digest("sha256"),
    "SHA512": _digest("sha512"),
    "PLAIN-MD5": _digest("md5"),
    "LDAP-MD5": _digest("md5"),
    "SSHA": _digest("sha1", salted=True),
    "SSHA256": _digest("sha256", salted=True),
    "SSHA512": _digest("sha512", salted=True),
    "SMD5": _digest("md5", salted=True),
    "SCRAM-SHA-1": _scram("sha1"),
    "SCRAM-SHA-256": _scram("sha256"),
    "CRAM-MD5": old_schemes.cram_md5,
    "HMAC-MD5": old_schemes.cram_md5,
    "PLAIN-MD4": old_schemes.plain_md4,
    "PLAIN-TRUNC": old_schemes.plain_trunc,
    "NTLM": old_schemes.ntlm,
    "LANMAN": old_schemes.lanman,
    **{name: _ldap_pbkdf2(name) for name in ("PBKDF2-SHA1", "PBKDF2-SHA256", "PBKDF2-SHA512")},
    "MD5": lambda text, password: (
        _crypt(text, password) if text.startswith("$") else _digest("md5")(text, password)
    ),
}

# Those whose hash has the login in it.
_VERIFY_LOGIN: Final[dict[str, Callable[[str, bytes, str], bool]]] = {"DIGEST-MD5": old_schemes.digest_md5}
SCHEMES: Final = (*_VERIFY, *_VERIFY_LOGIN)
# Those that hold octets: an encoding behind the name is that of the octets, not of a text.
_BINARY: Final = frozenset(
    {
        *("SHA", "SHA1", "SHA256", "SHA512", "SSHA", "SSHA256", "SSHA512", "SMD5", "PLAIN-MD5", "LDAP-MD5"),
        *("PLAIN-MD4", "CRAM-MD5", "HMAC-MD5", "DIGEST-MD5"),
    }
)
# Of these a graphics card tries millions or more in a second.
_WEAK: Final = frozenset(
    {
        *("PLAIN", "CLEAR", "CLEARTEXT", "SHA", "SHA1", "SHA256", "SHA512", "SSHA", "SSHA256", "SSHA512"),
        *("SMD5", "MD5", "PLAIN-MD5", "LDAP-MD5", "PBKDF2", "MD5-CRYPT", "DES-CRYPT", "PLAIN-MD4"),
        *("PLAIN-TRUNC", "NTLM", "LANMAN"),
    }
)
_STRONG_METHODS: Final = (
    "$5$", "$6$", "$7$", "$y$", "$gy$", "$2a$", "$2b$", "$2y$", "$argon2", "$scrypt$", "$pbkdf2-sha",
)  # fmt: skip


def split(stored: str) -> tuple[str, str]:
    """The scheme in capitals, and the text in that scheme's own encoding. Raises UnknownScheme.

    `.HEX`, `.B64` and `.BASE64` behind the scheme say how the rest is encoded.
    """
    match = _SCHEME.match(stored)
    if match is None:
        return "CRYPT", stored
    name, encoding, text = match.group(1).upper(), (match.group(2) or "").upper(), stored[match.end() :]
    if not encoding:
        return name, text
    try:
        octets = bytes.fromhex(text) if encoding == "HEX" else base64.b64decode(text, validate=True)
        return name, base64.b64encode(octets).decode("ascii") if name in _BINARY else octets.decode("utf-8")
    except ValueError as error:
        raise UnknownScheme(f"the stored {{{name}.{encoding}}} password is malformed") from error


def verify(stored: str, password: bytes, login: str = "") -> bool:
    """Whether the password is the stored one. Blocking, for as long as the scheme wants.

    A NUL in the password is never right. `login` is the name that some schemes hash too. Raises
    UnknownScheme where nobody can tell.
    """
    if b"\0" in password or len(password) > libcrypt.LONGEST_PASSWORD:
        return False
    name, text = split(stored)
    try:
        if name in _VERIFY_LOGIN:
            return _VERIFY_LOGIN[name](text, password, login)
        check = _VERIFY.get(name)
        if check is None:
            raise UnknownScheme(f"the scheme {{{name}}} is not one of: {' '.join(SCHEMES)}")
        return check(text, password)
    except (ValueError, TypeError) as error:
        raise UnknownScheme(f"the stored {{{name}}} password is malformed") from error
    except MissingBackendError as error:
        raise UnknownScheme(f"the scheme {{{name}}} needs a missing package: {error}") from error


def is_weak(stored: str) -> bool:
    """Whether whoever steals the stored password could guess it fast; a fixed list of schemes decides."""
    name, text = split(stored)
    return name in _WEAK or (name == "CRYPT" and not text.startswith(_STRONG_METHODS))


def _new_sha512(password: bytes, rounds: int) -> str:
    salt = "".join(secrets.choice(_SALT_ALPHABET) for _ in range(16))
    made = libcrypt.crypt(password, f"$6$rounds={rounds}${salt}$")
    if made is not None:
        return made
    from passlib.hash import sha512_crypt

    return str(sha512_crypt.using(rounds=rounds, salt=salt).hash(password))


def hash_password(password: bytes, rounds: int = DEFAULT_ROUNDS) -> str:
    """A new `{SHA512-CRYPT}` password for a passwd-file. Raises ValueError for one that nobody could use."""
    if not password:
        raise ValueError("the password is empty")
    if b"\0" in password or len(password) > libcrypt.LONGEST_PASSWORD:
        raise ValueError(f"a password has at most {libcrypt.LONGEST_PASSWORD} octets and no NUL")
    return f"{{{DEFAULT_SCHEME}}}{_new_sha512(password, rounds)}"
