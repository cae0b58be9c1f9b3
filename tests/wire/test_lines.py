"""Line ends: bounded command lines, and content that nothing but CRLF.CRLF ends. RELIABILITY B1, T3, T4."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.lines import BareNewline, ChunkDecoder, CommandLines, DataDecoder, LineTooLong


def decode(wire: bytes, step: int, mode: BareNewline = BareNewline.NORMALIZE) -> tuple[bytes, bytes | None]:
    """The content and what came behind its end (None: no end), fed in pieces of `step` octets."""
    decoder = DataDecoder(mode)
    content = b""
    for start in range(0, len(wire), step):
        content += decoder.feed(wire[start : start + step])
        if decoder.is_finished:
            return content, decoder.rest + wire[start + step :]
    return content, None


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\n"),
        (b"a\r\n.\r\n", b"a\n"),
        (b"a\r\n..\r\n.\r\n", b"a\n.\n"),
        (b"..\r\n.\r\n", b".\n"),
        (b"...a\r\n.b\r\n.\r\n", b"..a\nb\n"),
        (b"a\r\n\r\n\r\n.\r\n", b"a\n\n\n"),
        (b"a\nb\r\n.\r\n", b"a\nb\n"),
        (b"a\rb\r\n.\r\n", b"a b\n"),
        (b"a\r\r\n.\r\n", b"a \n"),
        (b"a\0b\r\n.\r\n", b"a\0b\n"),
        (b"caf\xe9\r\n.\r\n", b"caf\xe9\n"),
    ],
)
def test_data(wire: bytes, content: bytes, step: int) -> None:
    """RFC 5321 §4.5.2, whatever the segments; the rest is kept for what comes behind."""
    assert decode(wire + b"QUIT\r\n", step) == (content, b"QUIT\r\n")


NO_ENDS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n. \r\n",
]


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize("no_end", NO_ENDS)
def test_what_does_not_end_data(no_end: bytes, step: int) -> None:
    """Smuggling: each of these is content, and so is what follows it."""
    content, rest = decode(b"body" + no_end + b"MAIL FROM:<evil@x>\r\nDATA\r\n.\r\nQUIT\r\n", step)
    assert rest == b"QUIT\r\n"
    assert content.endswith(b"MAIL FROM:<evil@x>\nDATA\n")
    assert b"\r" not in content


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\n"])
def test_the_old_way_on_demand(end: bytes) -> None:
    """`smtpd_forbid_bare_newline = no` is for old software that ends DATA with bare LFs."""
    for step in (1, 2, 1000):
        assert decode(b"a" + end + b"QUIT", step, BareNewline.ACCEPT) == (b"a\n", b"QUIT")


@pytest.mark.parametrize("step", [1, 2, 1000])
def test_reject_notices(step: int) -> None:
    """`reject` sees a bare LF anywhere, and only there."""
    for wire, saw in (
        (b"a\r\nb\r\n.\r\n", False),
        (b"a\nb\r\n.\r\n", True),
        (b"a\n.\r\n.\r\n", True),
        (b"\n\r\n.\r\n", True),
    ):
        decoder = DataDecoder(BareNewline.REJECT)
        for start in range(0, len(wire), step):
            decoder.feed(wire[start : start + step])
        assert decoder.is_finished
        assert decoder.saw_bare_newline is saw


def test_every_short_content_in_every_segmentation() -> None:
    """All 3,125 contents of five octets out of CR LF . a NUL: the pieces never matter."""
    for octets in itertools.product(b"\r\n.a\0", repeat=5):
        wire = bytes(octets) + b"\r\n.\r\nREST"
        expected = decode(wire, len(wire))
        assert expected[1] is not None
        for step in (1, 2, 3):
            assert decode(wire, step) == expected, wire


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", max_codepoint=0x7F), max_size=90)),
    st.integers(1, 50),
)
def test_stuffed_text_comes_back(lines: list[str], step: int) -> None:
    """Whatever a client stuffs by RFC 5321 §4.5.2 is stored as it was, with LF."""
    stuffed = b"".join((b"." if line.startswith(".") else b"") + line.encode() + b"\r\n" for line in lines)
    content, rest = decode(stuffed + b".\r\nX", step)
    assert content == b"".join(line.encode() + b"\n" for line in lines)
    assert rest == b"X"


def test_a_line_of_any_length_streams() -> None:
    """A line of 1 MiB comes out as it goes in; nothing is held, no mode changes."""
    decoder = DataDecoder()
    given_out = 0
    for _ in range(64):
        given_out += len(decoder.feed(b"x" * 16_384))
    assert given_out == 1 << 20
    assert decoder.feed(b"\r\n.\r\n") == b"\n"
    assert decoder.is_finished


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_chunks(step: int) -> None:
    """BDAT is counted, not stuffed: RFC 3030 §2. A dot is a dot."""
    wire = b"a\r\n.\r\n..b\rc\nd\r"
    decoder = ChunkDecoder()
    content = b"".join(decoder.feed(wire[start : start + step]) for start in range(0, len(wire), step))
    assert content + decoder.finish() == b"a\n.\n..b c\nd \n"


def test_command_lines_byte_by_byte() -> None:
    """Lines come whole, bare LF noticed, the rest held."""
    lines = CommandLines()
    seen = []
    for octet in b"EHLO a\r\nNOOP\nQUI":
        lines.feed(bytes([octet]))
        line = lines.next_line()
        if line is not None:
            seen.append((line, lines.bare_newline))
    assert seen == [(b"EHLO a", False), (b"NOOP", True)]
    assert lines.take_all() == b"QUI"


def test_an_overlong_command_line_is_swallowed_to_its_end() -> None:
    """One refusal for the line; memory stays bounded; what follows is the next command."""
    lines = CommandLines(limit=100)
    for _ in range(1000):
        lines.feed(b"x" * 50)
        assert lines.next_line() is None
        assert len(lines) <= 150
    lines.feed(b"\r\nNOOP\r\n")
    with pytest.raises(LineTooLong):
        lines.next_line()
    assert lines.next_line() == b"NOOP"
