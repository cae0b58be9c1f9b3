"""What a transcript shows: the dialogue, no content, no password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.redaction import LONGEST_LINE, Redaction

SERVER = (
    b"* 1 FETCH (UID 7 BODY[] {12}\r\nsecret words FLAGS (\\Seen))\r\n"
    b'* 2 FETCH (BODY[HEADER.FIELDS (SUBJECT)]<0> "Subject: \\"secret\\"" RFC822.TEXT "secret")\r\n'
    b'* 3 FETCH (PREVIEW "secret" RFC822.SIZE 12 BINARY[1] ~{6}\r\nsecret)\r\n'
    b"a OK Fetch completed.\r\n"
)
SHOWN = [
    b"* 1 FETCH (UID 7 BODY[] {12} [12 octets]",
    b" FLAGS (\\Seen))",
    b'* 2 FETCH (BODY[HEADER.FIELDS (SUBJECT)]<0> "[19 octets]" RFC822.TEXT "[6 octets]")',
    b'* 3 FETCH (PREVIEW "[6 octets]" RFC822.SIZE 12 BINARY[1] ~{6} [6 octets]',
    b")",
    b"a OK Fetch completed.",
]


def in_pieces(redaction: Redaction, octets: bytes, size: int) -> list[bytes]:
    pieces = [octets[start : start + size] for start in range(0, len(octets), size)]
    return [line for piece in pieces for line in redaction.feed(piece)]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_no_content_of_the_server(size: int) -> None:
    """Literals and quoted content are told by their octets, in any pieces."""
    assert in_pieces(Redaction(True, is_client=False), SERVER, size) == SHOWN


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_no_content_of_the_client(size: int) -> None:
    """What APPEND brings is left out; what follows is shown."""
    said = b"a APPEND INBOX {6+}\r\nsecret\r\nb NOOP\r\n"
    assert in_pieces(Redaction(True, is_client=True), said, size) == [
        b"a APPEND INBOX {6+} [6 octets]", b"", b"b NOOP",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        b"a LOGIN alice secret\r\n",
        b'a login {5}\r\nalice "secret"\r\n',
        b"a AUTHENTICATE PLAIN\r\nc2VjcmV0\r\n",
        b"a UNAUTHENTICATE\r\nb LOGIN alice secret\r\n",
        b"PASS secret\r\n",
        b"AUTH PLAIN c2VjcmV0\r\nc2VjcmV0\r\n",
        b"USER alice\r\npass secret\r\n",
    ],
)
def test_no_password(said: bytes) -> None:
    """From a command on that carries or leads to one nothing of the client's side is shown."""
    shown = b"\n".join(Redaction(True, is_client=True).feed(said))
    assert b"secret" not in shown and b"c2VjcmV0" not in shown and b"left out" in shown


def test_bounds() -> None:
    """A long line is cut, an endless one ends the transcript; nothing unprintable is shown."""
    redaction = Redaction(True, is_client=False)
    (line,) = redaction.feed(b"x" * 5000 + b"\x1b[2J\xff\r\n")
    assert line == b"x" * LONGEST_LINE + b"... [4005 more octets]"
    assert redaction.feed(b"\x1b\xff\n") == [b"??"]
    for _ in range(20):
        redaction.feed(b"y" * 65_536)
    assert redaction.feed(b"z\r\n") == []


@given(st.binary(max_size=200), st.booleans(), st.integers(1, 50))
def test_anything(octets: bytes, is_client: bool, size: int) -> None:
    """Never raises; every line is printable; pieces make no difference."""
    lines = in_pieces(Redaction(True, is_client), octets, size)
    assert lines == Redaction(True, is_client).feed(octets)
    assert all(32 <= octet < 127 for line in lines for octet in line)
