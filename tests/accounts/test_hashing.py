"""Stored passwords of every scheme: what Dovecot and crypt(3) wrote, we verify."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.accounts import hashing, libcrypt

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
