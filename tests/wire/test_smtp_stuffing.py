"""Content on its way out: whatever it is and however it is cut, one message arrives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.lines import DataDecoder
from mailserver.wire.smtp_stuffing import END_OF_DATA, LONGEST_LINE, Stuffing

CONTENT = st.lists(
    st.sampled_from([b".", b"\n", b"\r", b"\r\n", b"a", b"\n.\n", b"\r\n.\r\n", b"x" * 997, b"\x00", b" "])
).map(b"".join)


def encode(pieces: list[bytes]) -> bytes:
    stuffing = Stuffing()
    return b"".join(stuffing.feed(piece) for piece in pieces) + stuffing.finish()


@given(CONTENT, st.integers(1, 7))
def test_the_end_of_data_comes_once_and_last(content: bytes, size: int) -> None:
    """RELIABILITY B1: no bare CR or LF, no early end, lines of at most 998 octets, at any chunk border."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    wire = encode(pieces)
    assert (b"\r\n" + wire).index(b"\r\n.\r\n") == len(wire) - len(END_OF_DATA)
    assert wire.replace(b"\r\n", b"").count(b"\n") == wire.replace(b"\r\n", b"").count(b"\r") == 0
    assert max(len(line) for line in wire.split(b"\r\n")) <= LONGEST_LINE + 1  # one for a stuffed dot


@given(st.lists(st.sampled_from([b".", b"..", b"a", b"", b".a", b"From x"])), st.integers(1, 5))
def test_what_goes_out_is_what_a_server_reads(lines: list[bytes], size: int) -> None:
    """Our own DATA decoder gives the content back. RFC 5321 §4.5.2."""
    content = b"".join(line + b"\n" for line in lines)
    wire = encode([content[at : at + size] for at in range(0, len(content), size)])
    assert DataDecoder().feed(wire) == content


def test_a_line_without_end_is_folded() -> None:
    """A line of 300,000 octets goes out in lines that every server takes."""
    wire = encode([b"y" * 100_000] * 3)
    assert max(len(line) for line in wire.split(b"\r\n")) <= LONGEST_LINE
    assert wire.replace(b"\r\n", b"").replace(b" ", b"") == b"y" * 300_000 + b"."
