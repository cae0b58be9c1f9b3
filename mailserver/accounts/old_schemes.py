"""Stored passwords that Dovecot's other mechanisms or other programs left behind: rare, weak, verified.

`{CRAM-MD5}`, which `doveadm pw` wrote by default up to Dovecot 2.2, holds MD5's state after the key's
first block, so MD5's compression (RFC 1321 §3.4) stands here: hashlib does not show it. The mechanisms
themselves (CRAM-MD5, DIGEST-MD5) are not offered. Only comparisons with what is stored are made here; no new
password is ever stored so.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import math
import struct
from base64 import b64decode
from typing import Final

from passlib.crypto.digest import lookup_hash
from passlib.hash import lmhash, nthash

_BLOCK: Final = 64  # octets
_START: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_SINES: Final = tuple(int(abs(math.sin(step + 1)) * 2**32) for step in range(64))
_SHIFTS: Final = tuple(
    shift for row in ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21)) for shift in row * 4
)
_ALL_ONES: Final = 0xFFFFFFFF


def octets_of(text: str, size: int) -> bytes:
    """Hex where that gives so many octets, else base64, as Dovecot reads it. Raises ValueError."""
    if len(text) == 2 * size and all(letter in "0123456789abcdefABCDEF" for letter in text):
        return binascii.unhexlify(text)
    return b64decode(text)


def cram_md5(text: str, password: bytes) -> bool:
    """The states of HMAC-MD5's outer and inner digest after the key. RFC 2104, RFC 2195."""
    key = password if len(password) <= _BLOCK else hashlib.md5(password, usedforsecurity=False).digest()
    padded = key.ljust(_BLOCK, b"\0")
    states = [md5_state(bytes(octet ^ pad for octet in padded)) for pad in (0x5C, 0x36)]
    return hmac.compare_digest(b"".join(states), _exactly(text, 32))


def md5_state(block: bytes) -> bytes:
    """MD5's state after one block of 64 octets. RFC 1321 §3.4."""
    words = struct.unpack("<16I", block)
    a, b, c, d = _START
    for step in range(64):
        mixed, place = _round(step, b, c, d)
        total = (a + mixed + _SINES[step] + words[place]) & _ALL_ONES
        shift = _SHIFTS[step]
        turned = (total << shift | total >> (32 - shift)) & _ALL_ONES
        a, b, c, d = d, (b + turned) & _ALL_ONES, b, c
    state = ((before + after) & _ALL_ONES for before, after in zip(_START, (a, b, c, d), strict=True))
    return struct.pack("<4I", *state)


def _round(step: int, b: int, c: int, d: int) -> tuple[int, int]:
    """The round's function of three words, and which word of the block is next."""
    match step // 16:
        case 0:
            return (b & c) | (~b & d), step
        case 1:
            return (d & b) | (~d & c), (5 * step + 1) % 16
        case 2:
            return b ^ c ^ d, (3 * step + 5) % 16
    return c ^ (b | (~d & _ALL_ONES)), (7 * step) % 16


def digest_md5(text: str, password: bytes, login: str) -> bool:
    """MD5 of `user:realm:password`; the realm is the login's domain. RFC 2831 §2.1.2.1."""
    user, _, realm = login.partition("@")
    said = b":".join((user.encode(), realm.encode(), password))
    return hmac.compare_digest(hashlib.md5(said, usedforsecurity=False).digest(), _exactly(text, 16))


def plain_md4(text: str, password: bytes) -> bool:
    """A bare MD4; OpenSSL 3 has it in its legacy provider only, passlib always."""
    return hmac.compare_digest(lookup_hash("md4").const(password).digest(), _exactly(text, 16))


def plain_trunc(text: str, password: bytes) -> bool:
    """`length-password`: a password that another system cut off there is right when it begins so."""
    length, dash, stored = text.partition("-")
    if not dash:
        raise ValueError("no length")
    expected = stored.encode("utf-8")
    given = password[: len(expected)] if len(expected) >= int(length) else password
    return hmac.compare_digest(given, expected)


def ntlm(text: str, password: bytes) -> bool:
    """Windows' NT hash, in hex."""
    return bool(nthash.verify(password, text.lower()))


def lanman(text: str, password: bytes) -> bool:
    """Windows' LM hash, in hex."""
    return bool(lmhash.verify(password, text.lower()))


def _exactly(text: str, size: int) -> bytes:
    stored = octets_of(text, size)
    if len(stored) != size:
        raise ValueError("a digest of the wrong length")
    return stored
