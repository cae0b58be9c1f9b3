"""IMAP's words: strings, numbers, dates. RFC 3501 §4, §9."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.imap_arguments import ArgumentReader, ImapSyntaxError
from mailserver.wire.imap_responses import internal_date, string


def test_quoted_strings_are_unescaped() -> None:
    r"""`\"` and `\\` stand for one octet each. RFC 3501 §9 quoted."""
    assert ArgumentReader(rb'"a\"b\\c"').string() == rb'a"b\c'


@pytest.mark.parametrize("text", [rb'"a\b"', b'"a', b'"a\rb"', b'"a\nb"', b'"a\0b"', b"", b"{3}\r\n"])
def test_broken_strings_are_refused(text: bytes) -> None:
    """Only `"` and `\\` may be escaped; CR, LF and NUL cannot be quoted."""
    with pytest.raises(ImapSyntaxError):
        ArgumentReader(text).string()


@given(st.binary(max_size=80).filter(lambda content: b"\0" not in content))
def test_what_is_rendered_as_a_string_is_read_back(content: bytes) -> None:
    """Quoted or literal: the octets survive the round trip."""
    rendered = string(content)
    if rendered.startswith(b"{"):
        head, _, _ = rendered.partition(b"\r\n")
        assert ArgumentReader(head + b"\r\n", [content]).astring() == content
    else:
        assert ArgumentReader(rendered).astring() == content


@given(st.integers(min_value=0, max_value=2**33))
def test_dates_survive_the_round_trip(posix: int) -> None:
    """INTERNALDATE as it is sent can be given to APPEND. RFC 3501 §9 date-time."""
    assert ArgumentReader(internal_date(posix)).date_time() == posix


@pytest.mark.parametrize(
    ("text", "posix"),
    [
        (b'" 1-Jan-1970 00:00:00 +0000"', 0),
        (b'"01-jan-1970 01:00:00 +0100"', 0),
        (b'"31-Dec-1969 16:00:00 -0800"', 0),
        (b'"29-Feb-2024 12:00:60 +0000"', 1709208059),
    ],
)
def test_date_time(text: bytes, posix: int) -> None:
    """Day with one or two digits, any case, any zone, a leap second."""
    assert ArgumentReader(text).date_time() == posix


@pytest.mark.parametrize(
    "text",
    [b'"30-Feb-2024 00:00:00 +0000"', b'"01-Foo-2024 00:00:00 +0000"', b'"01-Jan-2024 25:00:00 +0000"',
     b'"01-Jan-2024 00:00:00 +9900"', b'"1-Jan-2024 00:00:00 +0000"', b"01-Jan-2024"],
)  # fmt: skip
def test_impossible_dates_are_refused(text: bytes) -> None:
    """No date is guessed."""
    with pytest.raises(ImapSyntaxError):
        ArgumentReader(text).date_time()


def test_parentheses_are_counted() -> None:
    """A list may not be deeper than 50 levels, whatever is in it."""
    reader = ArgumentReader(b"(" * 1000)

    def nested() -> list[object]:
        return reader.list_of(nested)

    with pytest.raises(ImapSyntaxError, match="nested"):
        nested()


@given(st.binary(max_size=60))
def test_no_word_raises_anything_but_a_syntax_error(text: bytes) -> None:
    """Hostile octets are BAD, never a traceback."""
    for name in ("astring", "number", "date", "date_time", "flag", "nstring", "pattern", "tag"):
        try:
            getattr(ArgumentReader(text), name)()
        except ImapSyntaxError:
            pass
