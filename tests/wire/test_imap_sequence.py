"""Sequence sets. RFC 3501 §9."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_sequence import SequenceSet, parse_sequence_set, render_set


def expanded(spans: list[range]) -> list[int]:
    return [number for span in spans for number in span]


def test_ranges_in_any_order_give_ascending_positions() -> None:
    """`4:2,1,*` of five messages is 1, 2, 3, 4, 5 once each."""
    assert expanded(parse_sequence_set(b"4:2,1,*,3").positions(5)) == [0, 1, 2, 3, 4]


def test_a_range_to_the_last_includes_the_last_even_from_above() -> None:
    """`559:*` is at least the last message. RFC 3501 §6.4.8."""
    uids = array("I", [3, 5, 9])
    assert expanded(parse_sequence_set(b"559:*").uid_positions(uids)) == [2]
    assert expanded(parse_sequence_set(b"*").uid_positions(uids)) == [2]
    assert expanded(parse_sequence_set(b"4:8").uid_positions(uids)) == [1]
    assert not parse_sequence_set(b"1:*").uid_positions(array("I"))


@pytest.mark.parametrize(
    "text", [b"", b"0", b"1,", b",1", b"1:", b":1", b"1:2:3", b"1,,2", b"01", b"4294967296", b"**"]
)
def test_what_is_no_set(text: bytes) -> None:
    """Zero, empty items and numbers above 2³²-1 are refused."""
    with pytest.raises(ImapSyntaxError):
        parse_sequence_set(text)


def test_huge_ranges_cost_nothing() -> None:
    """Ranges are never expanded beyond the mailbox (twisted: quadratic, and memory by the number)."""
    text = b",".join(b"%d:4294967295" % number for number in range(1, 3001))
    assert expanded(parse_sequence_set(text).positions(10)) == list(range(10))
    assert parse_sequence_set(text).spans(2**32 - 1) == [(1, 2**32 - 1)]


def test_more_than_ten_thousand_items_are_refused() -> None:
    """The bound of items in one set."""
    assert len(parse_sequence_set(b",".join([b"1"] * 10_000)).ranges) == 10_000
    with pytest.raises(ImapSyntaxError):
        parse_sequence_set(b",".join([b"1"] * 10_001))


@given(st.lists(st.integers(1, 40), max_size=30, unique=True))
def test_rendered_sets_keep_the_order(numbers: list[int]) -> None:
    """COPYUID's two sets answer to each other element by element. RFC 4315 §3."""
    text = render_set(numbers)
    if not numbers:
        assert text == b""
        return
    ranges = parse_sequence_set(text).ranges
    assert [number for low, high in ranges for number in range(low, high + 1)] == numbers


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=10), st.integers(1, 40)
)
def test_positions_are_those_of_a_naive_reading(ranges: list[tuple[int, int]], count: int) -> None:
    """The model: every number of every range, `*` as the last, cut at the mailbox's end."""
    naive = set()
    for low, high in ranges:
        first, last = sorted((low or count, high or count))
        naive.update(number - 1 for number in range(first, last + 1) if number <= count)
    assert expanded(SequenceSet(tuple(ranges)).positions(count)) == sorted(naive)
    uids = array("I", range(1, count + 1))
    assert expanded(SequenceSet(tuple(ranges)).uid_positions(uids)) == sorted(naive)
