"""`From ` lines and their quoting. ECOSYSTEM §6; RFC 4155."""

from __future__ import annotations

import calendar
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.mbox_lines import from_line, parse_from_line, quoted, unquoted

MOMENT = calendar.timegm((2026, 11, 24, 2, 22, 4))
LOCAL = int(time.mktime((2026, 11, 24, 2, 22, 4, 0, 0, -1)))


def test_line_as_postfix_writes_it() -> None:
    """Two spaces, asctime in local time; MAILER-DAEMON for the null sender; no control characters."""
    assert from_line("sender@example.com", LOCAL) == b"From sender@example.com  Tue Nov 24 02:22:04 2026\n"
    assert from_line("", LOCAL) == b"From MAILER-DAEMON  Tue Nov 24 02:22:04 2026\n"
    assert from_line("a\nb@c", LOCAL).startswith(b"From a?b@c  Tue")


@pytest.mark.parametrize(
    "line",
    [
        b"From a@b  Tue Nov 24 02:22:04 2026",
        b"From a@b Tue Nov 24 02:22:04 2026\r",
        b"From - Tue Nov 24 02:22:04 2026",
        b"From Tue Nov 24 02:22:04 2026",
        b'From "a b"@c  Tue Nov 24 02:22:04 2026',
        b"From a@b  Tue Nov 24 02:22:04 PST 2026",
        b"From a@b  Tue Nov 24 02:22:04 2026 PST",
        b"From a!b Tue Nov 24 02:22:04 2026 remote from c",
        b"From a@b Tue, 24 Nov 2026 02:22:04",
        b"From a@b  Die Nov 24 02:22:04 2026",
        b"From a@b  tue nov 24 02:22:04 2026",
        b"From a@b  Tue Nov 24 02:22:04 GMT+2 2026",
    ],
)
def test_forms_in_local_time(line: bytes) -> None:
    """What mutt and Dovecot take for a separator is one here."""
    assert parse_from_line(line) == LOCAL


@pytest.mark.parametrize(
    ("line", "offset"),
    [
        (b"From a@b Tue Nov 24 02:22:04 2026 +0130", -5400),
        (b"From a@b Tue Nov 24 02:22:04 -0800 2026", 28800),
        (b"From a@b Tue, 24 Nov 2026 02:22:04 +0000", 0),
        (b"From a@b Tue Nov 24 02:22:04 CEST 2026 +0200", -7200),
    ],
)
def test_numeric_zones(line: bytes, offset: int) -> None:
    """A numeric zone is honoured."""
    assert parse_from_line(line) == MOMENT + offset


@pytest.mark.parametrize(
    "line",
    [
        b"From here on it is text",
        b"From Tuesday on",
        b"From a@b  Tue Nov 24 2026",
        b"From a@b  Tue Xxx 24 02:22:04 2026",
        b"From: a@b  Tue Nov 24 02:22:04 2026",
        b"",
    ],
)
def test_text_that_is_no_separator(line: bytes) -> None:
    """A sentence that begins with From divides no message."""
    assert parse_from_line(line) is None


@pytest.mark.parametrize("filler", [b" ", b'"', b"\\a", b"a ", b'"a" '])
def test_hostile_lines_cost_nothing(filler: bytes) -> None:
    """RELIABILITY B18: a thousand lines made to make the expression try again, in no time worth a test."""
    for start in (b"From ", b"From a ", b'From "', b"From a Tue Nov 24 02:22:04 "):
        assert parse_from_line((start + filler * 500)[:1000]) is None


@given(st.integers(min_value=0, max_value=2**32))
def test_dates_round_trip(moment: int) -> None:
    """What we write is what we read, but for the hour that a clock change repeats."""
    read = parse_from_line(from_line("a@b", moment).rstrip(b"\n"))
    assert read is not None and abs(read - moment) in (0, 3600)


def cut(text: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in at)})
    return [text[a:b] for a, b in pairwise(edges)]


TEXT = st.lists(
    st.sampled_from([b"From ", b">From ", b">", b"\n", b"Fro", b"m ", b"x", b"F", b"\r\n"]), max_size=30
).map(b"".join)


@given(TEXT, st.lists(st.integers(min_value=0, max_value=200), max_size=8))
def test_quoting_wherever_the_pieces_are_cut(text: bytes, places: list[int]) -> None:
    """Every line that begins with `From ` gets one `>`, no other line changes."""
    expected = b"\n".join(b">" + line if line.startswith(b"From ") else line for line in text.split(b"\n"))
    assert b"".join(quoted(cut(text, places))) == expected


@given(TEXT, st.lists(st.integers(min_value=0, max_value=200), max_size=8))
def test_mboxrd_is_undone(text: bytes, places: list[int]) -> None:
    """mboxrd loses nothing: what is read is what was stored."""
    stored = b"".join(quoted(cut(text, places), mboxrd=True))
    assert not any(line.startswith(b"From ") for line in stored.split(b"\n"))
    assert unquoted(stored) == text
