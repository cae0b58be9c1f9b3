"""The lines of Dovecot's auth protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.dovecot_auth import AuthSyntaxError, BadResponse, fields_of, line, parse_request


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_what_is_written_is_read(fields: list[bytes]) -> None:
    """Whatever the octets; a line has no line break, and as many tabs as it should."""
    octets = line(*fields)
    assert fields_of(octets) == fields
    assert b"\n" not in octets and octets.count(b"\t") == len(fields) - 1


def test_escapes_are_dovecots() -> None:
    """As Dovecot 2.3 answered for a name with a tab; an unknown escape stands for itself."""
    assert line(b"FAIL", b"7", b"user=ali\tce") == b"FAIL\t7\tuser=ali\x01tce"
    assert fields_of(b"a\x011\x01xb\x01") == [b"a\x01xb"]


def test_postfix_request() -> None:
    """As Debian's Postfix 3.7 writes it."""
    said = (
        b"AUTH\t1\tPLAIN\tservice=smtp\tnologin\tlip=127.0.0.1\trip=192.0.2.7\tsecured\t"
        b"resp=AGFsaWNlAHNlY3JldA=="
    )
    request = parse_request(fields_of(said))
    assert (request.identifier, request.mechanism) == (1, "PLAIN")
    assert request.initial == b"\0alice\0secret"
    assert request.parameters == {
        "service": "smtp", "nologin": "", "lip": "127.0.0.1", "rip": "192.0.2.7", "secured": "",
    }  # fmt: skip
    assert parse_request([b"AUTH", b"2", b"login", b"resp="]).initial is None


@pytest.mark.parametrize(
    "fields", [[b"AUTH"], [b"AUTH", b"1"], [b"AUTH", b"x", b"PLAIN"], [b"AUTH", b"9" * 11, b"x"]]
)
def test_no_request(fields: list[bytes]) -> None:
    """The connection is to be closed."""
    with pytest.raises(AuthSyntaxError):
        parse_request(fields)


def test_a_response_that_is_no_base64() -> None:
    """This login fails; the id says which."""
    with pytest.raises(BadResponse) as caught:
        parse_request([b"AUTH", b"4", b"PLAIN", b"resp=!!!"])
    assert caught.value.identifier == 4
