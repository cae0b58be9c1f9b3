"""BODY[section] and BINARY over a message of RFC 3501 §6.4.5's own shape."""

from __future__ import annotations

import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.mime import parse
from mailserver.message.section import UnknownEncoding, binary, decode, find_part, section_bytes

SAMPLE = b"""\
From: me@example.org
Subject: whole
Content-Type: MULTIPART/MIXED; boundary="x"

--x
Content-Type: TEXT/PLAIN

one
--x
Content-Type: MESSAGE/RFC822

Subject: two
Content-Type: MULTIPART/MIXED; boundary="2.x"

--2.x
Content-Type: TEXT/PLAIN

two one
--2.x
Content-Type: APPLICATION/OCTET-STREAM
Content-Transfer-Encoding: base64

AAECAw==
--2.x--
epilogue
--x
Content-Type: MESSAGE/RFC822

Subject: three

three one
--x--
""".replace(b"\n", b"\r\n")
TREE = parse(SAMPLE)
SECTIONS = [
    ((1,), "", b"one"),
    ((1,), "MIME", b"Content-Type: TEXT/PLAIN\r\n\r\n"),
    ((1,), "HEADER", None),
    ((1,), "TEXT", None),
    ((1, 1), "", None),
    ((2,), "HEADER", b'Subject: two\r\nContent-Type: MULTIPART/MIXED; boundary="2.x"\r\n\r\n'),
    ((2,), "MIME", b"Content-Type: MESSAGE/RFC822\r\n\r\n"),
    ((2, 1), "", b"two one"),
    ((2, 2), "MIME", b"Content-Type: APPLICATION/OCTET-STREAM\r\nContent-Transfer-Encoding: base64\r\n\r\n"),
    ((2, 2), "", b"AAECAw=="),
    ((2, 3), "", None),
    ((3,), "TEXT", b"three one"),
    ((3, 1), "", b"three one"),
    ((3, 1), "MIME", b"Subject: three\r\n\r\n"),
    ((3, 2), "", None),
    ((3, 1, 1), "", None),
    ((4,), "", None),
    ((10_000_000,), "", None),
]


@pytest.mark.parametrize(("numbers", "text", "octets"), SECTIONS)
def test_sections(numbers: tuple[int, ...], text: str, octets: bytes | None) -> None:
    """As Dovecot answers them; where it has an empty string for what is not there, we have NIL."""
    assert section_bytes(SAMPLE, TREE, numbers, text) == octets


def test_the_whole_message() -> None:
    """Header and text are the message."""
    assert section_bytes(SAMPLE, TREE, (), "") == SAMPLE
    header = section_bytes(SAMPLE, TREE, (), "HEADER")
    assert header == SAMPLE[: SAMPLE.index(b"--x")]
    assert header + (section_bytes(SAMPLE, TREE, (), "TEXT") or b"") == SAMPLE
    assert section_bytes(SAMPLE, TREE, (), "HEADER.FIELDS", [b"subject"]) == b"Subject: whole\r\n\r\n"
    assert section_bytes(SAMPLE, TREE, (3,), "HEADER.FIELDS.NOT", [b"x"]) == b"Subject: three\r\n\r\n"


def test_part_one_of_a_message_without_parts() -> None:
    """RFC 3501 §6.4.5: every message has at least one part number."""
    content = b"Subject: x\r\n\r\nhello\r\n"
    message = parse(content)
    assert section_bytes(content, message, (1,), "") == b"hello\r\n"
    assert section_bytes(content, message, (1,), "MIME") == b"Subject: x\r\n\r\n"
    assert section_bytes(content, message, (1, 1), "") is None
    assert find_part(message, (2,)) is None


def test_binary() -> None:
    """RFC 3516 §4: decoded, NULs and all; a message part has nothing to decode."""
    assert binary(SAMPLE, TREE, (2, 2)) == b"\0\1\2\3"
    assert binary(SAMPLE, TREE, (1,)) == b"one"
    assert binary(SAMPLE, TREE, (3,)) == b"Subject: three\r\n\r\nthree one"
    assert binary(SAMPLE, TREE, (9,)) is None
    assert binary(SAMPLE, TREE, ()) == SAMPLE
    with pytest.raises(UnknownEncoding):
        decode(b"x", b"x-uuencode")


@given(st.binary(max_size=200))
def test_encodings_round_trip(octets: bytes) -> None:
    """RFC 2045 §6.7 and §6.8."""
    assert decode(base64.encodebytes(octets).replace(b"\n", b"\r\n"), b"Base64") == octets
    line = octets.replace(b"\r", b"").replace(b"\n", b"")
    assert decode(quopri.encodestring(line).replace(b"\n", b"\r\n"), b"quoted-printable") == line


@given(st.binary(max_size=60))
def test_garbage_decodes_to_something(octets: bytes) -> None:
    """Never an error."""
    decode(octets, b"base64")
    decode(octets, b"quoted-printable")


def test_broken_base64_gives_what_can_be_had() -> None:
    """Cut off, or with blanks and rubbish in it."""
    assert decode(b"AAEC\r\nAw", b"base64") == b"\0\1\2\3"
    assert decode(b"AA*EC A", b"base64") == b"\0\1\2"
    assert decode(b"a =  \r\nb=3D\t\r\n", b"quoted-printable") == b"a b=\r\n"
