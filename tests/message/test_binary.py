"""Binary parts become base64, and come back as they were. RFC 3516 §4.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.binary import without_binary
from mailserver.message.mime import parse
from mailserver.message.section import binary

HEAD = b'Subject: x\r\nContent-Type: image/x; name="a"\r\nContent-Transfer-Encoding: BINARY\r\nX: y\r\n\r\n'


def in_multipart(*parts: bytes) -> bytes:
    """The parts, headers included, as a multipart in binary."""
    body = b"".join(b"--limit\r\n" + part + b"\r\n" for part in parts)
    head = b"Content-Type: multipart/mixed; boundary=limit\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    return head + b"before\r\n" + body + b"--limit--\r\nafter\r\n"


@given(st.binary(max_size=300))
def test_one_part_comes_back(octets: bytes) -> None:
    """Whatever it holds, no NUL and no bare line end is left."""
    stored = without_binary(HEAD + octets)
    assert b"\0" not in stored and stored.count(b"\n") == stored.count(b"\r\n") == stored.count(b"\r")
    assert max(map(len, stored.split(b"\r\n"))) <= max(76, *map(len, (HEAD + octets).split(b"\r\n")))
    if stored != HEAD + octets:
        assert binary(stored, parse(stored), (1,)) == octets


def test_only_what_needs_it_is_changed() -> None:
    """Text parts, headers and what stands around them are the same octets as before."""
    plain = b"Content-Type: text/plain\r\n\r\ntext"
    image = HEAD + b"\0\1\2\n\xff"
    stored = without_binary(in_multipart(plain, image, plain, image))
    tree = parse(stored)
    assert [binary(stored, tree, (number,)) for number in (1, 2, 3, 4)] == [b"text", b"\0\1\2\n\xff"] * 2
    assert stored.startswith(
        b"Content-Type: multipart/mixed; boundary=limit\r\nContent-Transfer-Encoding: binary\r\n"
    )
    assert stored.endswith(b"\r\n--limit--\r\nafter\r\n") and b"before\r\n--limit\r\n" + plain in stored
    assert HEAD.replace(b"BINARY", b"base64") + b"AAEC" in stored


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"Subject: x\r\n\r\n\0", in_multipart(b"\r\na\0b"), HEAD + b"lines\r\nonly\r\n"]
)
def test_the_rest_stays(content: bytes) -> None:
    """NUL that no part owns up to is not made something else of; text in `binary` needs nothing."""
    assert without_binary(content) == content
