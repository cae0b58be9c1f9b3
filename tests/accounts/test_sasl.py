"""PLAIN and LOGIN."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.accounts.sasl import MECHANISMS, BadResponse, Credentials, Login, Plain


def test_plain_gives_name_and_password() -> None:
    """RFC 4616 §2; an equal authorization identity is no other."""
    assert Plain().respond(b"\0alice\0secret") == Credentials("alice", b"secret")
    assert Plain().respond(b"alice\0alice\0s") == Credentials("alice", b"s")


@pytest.mark.parametrize(
    "response",
    [b"", b"a", b"\0a", b"\0a\0b\0c", b"bob\0alice\0x", b"\0\0x", b"\0\xff\0x", b"\0a\0" + b"x" * 1025],
)
def test_malformed_plain_is_refused(response: bytes) -> None:
    """Also a login for somebody else."""
    with pytest.raises(BadResponse):
        Plain().respond(response)


def test_login_asks_twice() -> None:
    """The prompts that clients wait for."""
    login = Login()
    assert login.first_challenge() == b"Username:"
    assert login.respond(b"alice") == b"Password:"
    assert login.respond(b"secret\0") == Credentials("alice", b"secret\0")


@given(st.sampled_from(sorted(MECHANISMS)), st.lists(st.binary(max_size=50), min_size=2, max_size=2))
def test_no_response_breaks_a_mechanism(name: str, responses: list[bytes]) -> None:
    """A challenge, credentials or BadResponse; never another exception, never a secret in repr."""
    mechanism = MECHANISMS[name]()
    for response in responses:
        try:
            answer = mechanism.respond(response)
        except BadResponse:
            return
        if isinstance(answer, Credentials):
            assert "password" not in repr(answer)
            return
