"""THREAD on plain values. RFC 5256 §3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.threading import Threadable, by_references, by_refs, ordered_subject, render


def message(
    number: int, *references: str, subject: str = "", reply: bool = False, at: int = -1
) -> Threadable:
    """Message `number` has the id of its number."""
    ids = tuple(reference.encode() for reference in references)
    return Threadable(number, b"%d" % number, ids, subject, reply, number if at < 0 else at)


def test_ordered_subject() -> None:
    """Threads by their first message's date; the rest are children of the first."""
    dated = [("b", 30), ("a", 20), ("b", 10), ("a", 40), ("a", 50)]
    messages = [message(number, subject=subject, at=at) for number, (subject, at) in enumerate(dated, 1)]
    assert render(ordered_subject(messages)) == b"(3 1)(2 (4)(5))"


@pytest.mark.parametrize(("messages", "threads"), [
    ([message(1), message(2, "1"), message(3, "1", "2"), message(4, "1")], b"(1 (2 3)(4))"),
    # a chain in any order of arrival
    ([message(3, "1", "2"), message(2, "1"), message(1)], b"(1 2 3)"),
    # a parent that is not here: alone it is nothing, with two children it holds them together
    ([message(2, "1")], b"(2)"),
    ([message(2, "1"), message(3, "1")], b"((2)(3))"),
    ([message(2, "0", "1"), message(3, "0", "1")], b"((2)(3))"),
    # references in a circle, to oneself, and twice the same
    ([message(1, "2"), message(2, "1")], b"(2 1)"),
    ([message(1, "1"), message(2, "1", "1", "2")], b"(1 2)"),
    # two messages of one id
    ([message(1), Threadable(2, b"1", (), "", False, 2), message(3, "1")], b"(1 3)(2)"),
    # by subject: a reply goes below, equals stand side by side
    ([message(1, subject="x"), message(2, subject="x", reply=True)], b"(1 2)"),
    ([message(1, subject="x"), message(2, subject="x")], b"((1)(2))"),
    ([message(1, subject="x", reply=True), message(2, subject="x")], b"(2 1)"),
    ([message(1), message(2)], b"(1)(2)"),
    # siblings by date
    ([message(1), message(2, "1", at=9), message(3, "1", at=8)], b"(1 (3)(2))"),
])  # fmt: skip
def test_references(messages: list[Threadable], threads: bytes) -> None:
    """RFC 5256 §3, steps 1 to 6."""
    assert render(by_references(messages)) == threads


def test_refs_merges_no_subjects_and_sorts_by_the_newest() -> None:
    """A thread with news comes last."""
    messages = [message(1, subject="x"), message(2, subject="x"), message(3, "1", subject="x")]
    assert render(by_refs(messages)) == b"(2)(1 3)"
    as_old = [message(1, at=5), message(2, at=9), message(3, "1", at=9)]
    assert render(by_refs(as_old)) == b"(1 3)(2)", "of two as new, the one that began first"


def test_long_chains_and_wide_threads() -> None:
    """Neither recursion nor quadratic time."""
    count = 30_000
    chain = [message(number, str(number - 1)) for number in range(1, count)]
    assert (
        render(by_references(chain)) == b"(" + b" ".join(b"%d" % number for number in range(1, count)) + b")"
    )
    assert render(by_references(chain[::-1])) == render(by_refs(chain))
    wide = [message(number, *(["1"] if number > 1 else [])) for number in range(1, count)]
    assert render(by_references(wide)).startswith(b"(1 (2)(3)(4)")


NUMBERS = st.integers(1, 12)
VALUES = st.tuples(NUMBERS, st.lists(NUMBERS, max_size=4), st.sampled_from("abc"), st.booleans(), NUMBERS)


@given(st.lists(VALUES, max_size=12))
def test_every_message_is_in_one_thread(values: list[tuple[int, list[int], str, bool, int]]) -> None:
    """Whatever the references say, nothing is lost and nothing comes twice."""
    messages = [
        Threadable(number, b"%d" % own, tuple(b"%d" % reference for reference in ids), subject, is_reply, at)
        for number, (own, ids, subject, is_reply, at) in enumerate(values, 1)
    ]
    for algorithm in (by_references, by_refs, ordered_subject):
        rendered = render(algorithm(messages))
        found = rendered.replace(b"(", b" ").replace(b")", b" ").split()
        assert sorted(map(int, found)) == list(range(1, len(messages) + 1))
        assert rendered.count(b"(") == rendered.count(b")")
        assert b"()" not in rendered and b" )" not in rendered and b"( " not in rendered
