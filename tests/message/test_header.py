"""Header fields and HEADER blocks, octet for octet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.header import fields, first, header_end, scan, selected, unfold, values, verbatim

HEADER = (
    b"Received: from a\r\n\tby b\r\nSUBJECT: one\r\nreceived:  c\r\nno colon here\r\nX-Empty:\r\n"
    b"Subject : two\r\n folded\r\n\r\n"
)


def test_fields_are_kept_in_order_and_in_their_spelling() -> None:
    """Duplicates stay; a line without a colon is a field of its own. RFC 7103 §7."""
    assert [field.name for field in fields(HEADER)] == [
        b"Received", b"SUBJECT", b"received", b"no colon here\r", b"X-Empty", b"Subject "
    ]  # fmt: skip
    assert b"".join(field.raw for field in fields(HEADER)) + b"\r\n" == HEADER
    assert fields(HEADER)[0].value == b"from a\tby b"
    assert values(HEADER, b"subject") == [b"one", b"two folded"]
    assert first(HEADER, b"subject") == b"one"
    assert first(HEADER, b"nowhere") is None


def test_header_fields_sections_are_the_message_s_own_octets() -> None:
    """RFC 3501 §6.4.5: duplicates, case and folding kept, the blank line follows; Twisted loses all three."""
    assert selected(HEADER, [b"received"]) == b"Received: from a\r\n\tby b\r\nreceived:  c\r\n\r\n"
    assert selected(HEADER, [b"subject"]) == b"SUBJECT: one\r\nSubject : two\r\n folded\r\n\r\n"
    assert selected(HEADER, [b"nothing"]) == b"\r\n"
    assert selected(HEADER, [b"received", b"subject"], exclude=True) == b"no colon here\r\nX-Empty:\r\n\r\n"
    assert selected(b"Subject: x\r\n", [b"subject"]) == b"Subject: x\r\n"
    assert selected(b"\r\n", [b"subject"]) == b"\r\n"


def test_where_a_header_ends() -> None:
    """After its blank line; at once where that comes first; with the message where it never comes."""
    assert header_end(b"A: b\r\n\r\nbody\r\n\r\n") == 8
    assert header_end(b"\r\nbody") == 2
    assert header_end(b"A: b\r\n") == 6
    assert header_end(b"") == 0


def test_unfolding() -> None:
    """RFC 5322 §2.2.3; stray line ends never get through."""
    assert unfold(b": a\r\n\tb\r\n  c \r\n") == b"a\tb  c"
    assert verbatim(b": \r\n\tb\r\n  c \r\n") == b"\tb  c "
    assert unfold(b": a\rb\nc") == b"a b c"
    assert unfold(b"") == b""


@given(
    st.lists(
        st.sampled_from([b"A: b\r\n", b" c\r\n", b"\t\r\n", b"x\r\n", b":\r\n", b"\n", b"\r", b"\xff", b":"])
    )
)
def test_no_octet_is_lost(pieces: list[bytes]) -> None:
    """The pairs are the header, but for blank lines at its end."""
    block = b"".join(pieces)
    joined = b"".join(name + body for name, body in scan(block))
    assert block.startswith(joined)
    assert not block[len(joined) :].strip(b"\r\n\t :c")
