"""Stored passwords of every scheme: what Dovecot and crypt(3) wrote, we verify."""

from __future__ import annotations

import hashlib
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.accounts import hashing, libcrypt, old_schemes

# Each hash is of "secret", made by Dovecot 2.3.19's `doveadm pw` or by crypt(3) of Debian 12.
STORED = [
    "{SHA1}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{SSHA512}7kUaxiTcuKWWMH0NVJYzmStP6QMAozX6al91vG8swdd+4EnJ/P9vVYoo+/S/oQ/aE7xJIIoKZ/+aJmAk71NtUJrpnmo=",
    "{SCRAM-SHA-256}4096,TvxL8dzl5EbZtcZR1cCd6Q==,nQNedanEOky0pBKp2iYh1anKmumRL3zAiOURTJQui4I=,"
    "7oc9DZt59L9YgkFmoTPtiHczDgmzR/GxL9DtRW0XGWc=",
    "{SCRAM-SHA-1}4096,b5np/041QSoNA0R+KfXq0Q==,Yi2K5OjT2OXKp9cSwxzNgHPDG8w=,r2e+PK4IRlI7iJH9apIPbYaK6v0=",
    "{BLF-CRYPT}$2y$05$E30i//fQiD271bbfRtnHHumh0YdpCtWBppA1ndkSZWjhwTTQKE/au",
    "{PLAIN}secret",
    "{CLEARTEXT}secret",
    "{plain}secret",
    "{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==",
    "{DES-CRYPT}7HqKNO/8TBwMk",
    "7HqKNO/8TBwMk",
    "{CRYPT}$2y$05$sI435ILbhTNb0.nTqugh1exkUCjj0GIzvZ.9KyVdojrKh6p6.7LZC",
    "{SSHA}7nlxkrRF1I1XWSa10gyolWwoUofNtro3",
    "{MD5-CRYPT}$1$Khju16Ks$OmzOtwPyb04iytdzHu7wD1",
    "{MD5}$1$Ug0S4GGC$8NiuPt/4HBrp8ALTbq.mu.",
    "{PLAIN-MD5}5ebe2294ecd0e0f08eab7690d2a6ee69",
    "{LDAP-MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    "{SMD5}UNXQ1hpBI5tlAsw23xP7J6Ye5R8=",
    "{SSHA256}hZ0MULr2+PicT4NpgQN7sPFENbNCl5LTUGszCOAro3i/0gGN",
    "{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=",
    "{PBKDF2}$1$FpyvBIasSiDd86Uc$5000$43978ef87a58b50898734846f32c469b911c29dd",
    "{SHA256-CRYPT}$5$UMP8znNi0Vs5MXui$Okh264A9eLIS4c2n.DSjozyFDGtmBqh5HsxVdgJXW8D",
    "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56",
    "{HMAC-MD5.B64}zTun3qrW5cojRIukLjeXR6ng9/H7wAyKgbuqw5VzG1Y=",
    "{PLAIN-MD4}67d3dafef63ff00603aeef3769cfbf0d",
    "{PLAIN.B64}c2VjcmV0",
    "{CLEAR.HEX}736563726574",
    "{SSHA256.HEX}98821fd577e18a4cf071561f7bc7c6169e550f9e522c0bacd34c6df5b19135884bdc63ff",
    "{SHA512-CRYPT.B64}JDYkcFpkNDU4UFlTa1Iuam85aSRLTWphL3pmdUxEZ25zWnZMNGxIRVl6SlRuZDN0QWdlY1k2M2NSVUJw"
    "MW1JYndVNC9rZ3dVU2pzZlAzb1NxUDl2Mk16cEg5Ny9mR0xXWVEyRkdFc3JMLg==",
    "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$KwC1zZ8rFyOINlMddmedZw$ZtTULvdL8Y9+44LIToLbZXYxI2TBIDxX9a9I"
    "FGHO6Q8",
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$Fz66ajCQYZhX22yz4F+ZVQ$sZQ3bbRALUIfocup3LUUKkqtIXIMj+nYcR"
    "xHNEx9GH0",
    "{PLAIN-MD5.B64}Xr4ilOzQ4PCOq3aQ0qbuaQ==",
    "{SCRAM-SHA-256.HEX}343039362c7830716a63524c71394c48486974544f7832363168513d3d2c646641546d596348386"
    "7626635585152797844324d55425369492f39512b4b79754e77506f7544655136553d2c6a644f6f64442b3876375439684"
    "959554c492f554c6f484b632b6752747a6f315661545866543637496a413d",
    "{PLAIN-TRUNC}10-secret",
    "{NTLM}878D8014606CDA29677A44EFA1353FC7",
    "{PBKDF2-SHA256}10$c2FsdHNhbHQ$O.8Scj42V9TpYFU/fhA2v/Xid.KCrO8mMpUBrJQzdIE",
    "{SHA512-CRYPT}$6$O6okVjeODL2WTTFp$bsbsSH/ZgydWmn6q/u0sSwzCIW1pOiiq60x9tFFd1OzpkKrRbFbgHFSsAdSzjDPQleTsQ"
    "jqWqT1EdiaE9VqA./",
]


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored[:20])
def test_every_scheme_takes_the_right_password_and_no_other(stored: str) -> None:
    """A passwd-file written for Dovecot works unchanged."""
    assert hashing.verify(stored, b"secret")
    assert not hashing.verify(stored, b"Secret")
    assert not hashing.verify(stored, b"")
    assert not hashing.verify(stored, b"secret\0")


@pytest.mark.parametrize(
    "method", ["$y$j75$", "$gy$j75$", "$7$2/..../....", "$5$rounds=1000$", "$2b$04$......................"]
)
def test_what_the_system_writes_is_verified_by_the_system(method: str) -> None:
    """yescrypt and its kin, which passlib does not know: DESIGN 10."""
    stored = libcrypt.crypt(b"secret", f"{method}saltsalt$")
    assert stored is not None
    assert hashing.system_crypt.identify(stored)
    assert hashing.verify(stored, b"secret")
    assert not hashing.verify(stored, b"secre")


def test_passlib_verifies_where_the_system_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A libc without the method falls back to passlib's own code."""
    monkeypatch.setattr(hashing.libcrypt, "knows", lambda prefix: False)
    assert hashing.verify(STORED[-1], b"secret")
    assert not hashing.verify(STORED[-1], b"other")


@pytest.mark.parametrize(
    "stored", ["", "x", "{NO-SUCH}abc", "{SSHA}***", "{SCRAM-SHA-1}1", "$99$abc", "{PBKDF2}x"]
)
def test_what_nobody_can_verify_is_no_wrong_password(stored: str) -> None:
    """P5: an unreadable stored password is our trouble; and the error never shows it."""
    with pytest.raises(hashing.UnknownScheme) as caught:
        hashing.verify(stored, b"secret")
    assert not stored or "***" not in str(caught.value)


@settings(max_examples=15, deadline=None)
@given(st.binary(min_size=1, max_size=40).filter(lambda password: b"\0" not in password))
def test_a_new_hash_verifies(password: bytes) -> None:
    """Any octets but NUL make a password."""
    stored = hashing.hash_password(password, rounds=1000)
    assert stored.startswith("{SHA512-CRYPT}$6$rounds=1000$")
    assert hashing.verify(stored, password)
    assert not hashing.verify(stored, password + b"x")


@pytest.mark.parametrize("password", [b"", b"a\0b", b"x" * 513])
def test_a_password_that_could_never_be_used_is_refused(password: bytes) -> None:
    """crypt(3) ends at a NUL, and takes 512 octets."""
    with pytest.raises(ValueError, match="password"):
        hashing.hash_password(password)


ENCODED = ("PLAIN", "SSHA256", "CRAM-MD5", "SHA512-CRYPT")  # text and octets


@pytest.mark.needs("doveadm")
def test_every_scheme_of_dovecot(made_by_dovecot: list[tuple[str, str]]) -> None:
    """What the installed `doveadm pw` makes, in every encoding; {OTP} alone is not known."""
    failed = [
        scheme
        for scheme, stored in made_by_dovecot
        if not hashing.verify(stored, b"secret", "alice@example.org")
        or hashing.verify(stored, b"Secret", "alice@example.org")
    ]
    assert len(made_by_dovecot) > 35 and not failed


@pytest.fixture
def made_by_dovecot() -> list[tuple[str, str]]:
    """Each scheme and encoding, and a password stored so."""

    def doveadm(*words: str) -> str:
        done = subprocess.run(
            ["doveadm", "pw", *words], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.strip()

    schemes = [name for name in doveadm("-l").split() if name not in ("OTP", "PLAIN-TRUNC")]
    spelled = [*schemes, *(f"{name}.{encoding}" for name in ENCODED for encoding in ("HEX", "b64", "BASE64"))]
    options = ("-p", "secret", "-u", "alice@example.org")
    cheap = {"BLF-CRYPT": ("-r", "4"), "ARGON2I": ("-r", "3"), "ARGON2ID": ("-r", "3")}
    return [(name, doveadm("-s", name, *options, *cheap.get(name.split(".")[0], ()))) for name in spelled]


def test_a_truncated_password_is_right_when_it_begins_so() -> None:
    """{PLAIN-TRUNC}: the other system kept four letters; of a shorter password it kept all."""
    assert hashing.verify("{PLAIN-TRUNC}4-secr", b"secret") and hashing.verify(
        "{PLAIN-TRUNC}4-secr", b"secrXX"
    )
    assert not hashing.verify("{PLAIN-TRUNC}4-secr", b"sec")
    assert not hashing.verify("{PLAIN-TRUNC}10-secret", b"secretX")


def test_digest_md5_has_the_login_in_it() -> None:
    """The domain is the realm; another login's hash is not this one's."""
    stored = "{DIGEST-MD5}6f2dc3657a96e9b6ac48363b6cd87335"
    assert hashing.verify(stored, b"x", "alice@b") and not hashing.verify(stored, b"x", "bob@b")
    assert hashing.verify("{DIGEST-MD5}133509a46037e8ad7844a2ef3f09e82e", b"x", "alice")


@given(st.binary(max_size=55))
def test_md5s_state_after_the_only_block_is_the_digest(message: bytes) -> None:
    """RFC 1321 §3: padding, length, compression."""
    padded = message + b"\x80" + bytes(55 - len(message)) + struct.pack("<Q", 8 * len(message))
    assert old_schemes.md5_state(padded) == hashlib.md5(message).digest()


@pytest.mark.parametrize(
    "stored", ["{PLAIN.B64}?", "{SHA.HEX}xx", "{CRAM-MD5}00", "{PLAIN-TRUNC}secret", "{NTLM}0"]
)
def test_malformed_ones_are_our_trouble(stored: str) -> None:
    """P5, with an encoding too."""
    with pytest.raises(hashing.UnknownScheme):
        hashing.verify(stored, b"secret")
