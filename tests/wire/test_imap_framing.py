"""Commands are cut at the right places, whatever the pieces; what is refused never runs. RFC 7888."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.imap_framing import CommandReader, CommandText, Continue, Event, Fatal, Limits, Refused

LIMITS = Limits(line=200, literals=100, message=1000)
STRICT = Limits(line=200, literals=50, message=0, is_strict=True)


def events(data: bytes, limits: Limits = LIMITS, piece: int = 0) -> list[Event]:
    """What the data becomes, fed whole or in pieces of that many octets."""
    reader = CommandReader(limits)
    found: list[Event] = []
    for start in range(0, len(data), piece or max(1, len(data))):
        reader.feed(data[start : start + (piece or len(data))])
        while (event := reader.next_event()) is not None:
            found.append(event)
    return found


STREAM = (
    b"a NOOP\r\nb LOGIN {5}\r\nalice {6+}\r\nse\r\net\r\nc NOOP\nd APPEND x {500+}\r\n" + b"m" * 500 + b"\r\n"
    b"e LOGIN {101+}\r\n" + b"z NOOP\r\n" * 12 + b"yyyyy {8+}\r\nf NOOP\r\n\r\ng NOOP\r\n"
    b"h APPEND x {2000}\r\ni NOOP\r\nj " + b"x" * 300 + b" {9+}\r\nk NOOP\r\nX\r\nl NOOP\r\n"
)


def test_a_stream_of_commands() -> None:
    """Literals are taken out, refused ones thrown away with the rest of their command."""
    assert events(STREAM) == [
        CommandText(b"a NOOP"),
        Continue(5),
        CommandText(b"b LOGIN {5}\r\n {6+}\r\n", (b"alice", b"se\r\net")),
        CommandText(b"c NOOP"),
        CommandText(b"d APPEND x {500+}\r\n", (b"m" * 500,)),
        Refused(b"e", True),
        CommandText(b"g NOOP"),
        Refused(b"h", True),
        CommandText(b"i NOOP"),
        Refused(b"j", False),
        CommandText(b"l NOOP"),
    ]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64])
def test_pieces_make_no_difference(piece: int) -> None:
    """Byte by byte the same events come."""
    assert events(STREAM, piece=piece) == events(STREAM)


@pytest.mark.parametrize(
    "data", [b"a LOGIN {51+}\r\n", b"a " + b"x" * 300, b"a APPEND x {51+}\r\n", b"a LOGIN {99999999999+}\r\n"]
)
def test_before_login_whatever_is_too_large_ends_the_connection(data: bytes) -> None:
    """A literal that comes unasked cannot be refused otherwise."""
    assert isinstance(events(data, STRICT)[-1], Fatal)


def test_before_login_a_literal_that_waits_is_refused() -> None:
    """The client then sends its next command."""
    assert events(b"a LOGIN {51}\r\nb NOOP\r\n", STRICT) == [Refused(b"a", True), CommandText(b"b NOOP")]


@pytest.mark.parametrize("number", [b"-5", b"999999999999999999999999", b"x", b""])
def test_what_is_no_literal_is_part_of_the_line(number: bytes) -> None:
    """`{-5}` announces nothing: the line ends there, and the parser refuses it."""
    assert events(b"a LOGIN {" + number + b"}\r\nb NOOP\r\n")[-1] == CommandText(b"b NOOP")


def test_an_impossibly_large_literal_is_refused_and_never_stored() -> None:
    """`{999999999999}` (twisted: accepted, into an unbounded temporary file)."""
    assert events(b"a APPEND x {999999999999}\r\n") == [Refused(b"a", True)]
    assert isinstance(events(b"a APPEND x {999999999999+}\r\n")[0], Fatal)


def test_literals_are_bounded_in_number() -> None:
    """A thousand empty literals are no command."""
    assert events(b"a X" + b" {0+}\r\n" * 1000 + b"\r\nb NOOP\r\n")[-1] == CommandText(b"b NOOP")


@given(st.binary(max_size=300), st.integers(1, 20))
def test_any_octets_in_any_pieces(data: bytes, piece: int) -> None:
    """Pieces never matter, and the buffer stays bounded."""
    assert events(data, piece=piece) == events(data)


@given(st.lists(st.binary(max_size=25), max_size=4), st.integers(1, 50))
def test_literals_come_through_octet_for_octet(literals: list[bytes], piece: int) -> None:
    """Whatever is in a literal, line ends and braces too."""
    data = b"a X" + b"".join(b" {%d+}\r\n%b" % (len(content), content) for content in literals) + b"\r\n"
    found = events(data, piece=piece)
    assert [event.literals for event in found if isinstance(event, CommandText)] == [tuple(literals)]


def test_dropped_lines_are_not_held() -> None:
    """A line of any length costs no more memory than the limit (twisted: it vanished without BAD)."""
    reader = CommandReader(LIMITS)
    for _ in range(1000):
        reader.feed(b"x" * 1000)
        assert reader.next_event() is None
        assert reader.pending <= LIMITS.line + 2
    reader.feed(b"\r\n")
    assert isinstance(reader.next_event(), Refused)
