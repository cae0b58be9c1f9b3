"""What a FUZZY search finds, and how well. RFC 6203."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.fuzzy import FuzzyText
from mailserver.message.text import fold, without_accents


def score(wanted: str, text: str) -> int:
    """Of a field that says only that."""
    return FuzzyText(wanted).of_value(fold(text))


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ("invoice", "Invoice", 100),
        ("resume", "Résumé", 100),
        ("Résumé", "RESUME", 100),
        ("Ελλάδα", "ελλαδα", 100),
        ("straße", "STRASSE", 100),
        ("invoice", "invoices", 80),
        ("inv", "invoice", 80),
        ("meetings", "meeting", 60),
        ("searching", "search", 60),
        ("cats", "cat", 0),
        ("invoice", "invioce", 50),
        ("invoice", "invice", 50),
        ("invoice", "invoyce", 50),
        ("invoice", "innvoice", 50),
        ("rechnung", "Stromrechnung", 40),
        ("東京", "会議は東京で", 40),
        ("helo", "hello", 0),
        ("invoice", "voyage", 0),
        ("!?", "what!?", 80),
        ("!?", "what", 0),
    ],
)
def test_a_word(wanted: str, text: str, expected: int) -> None:
    """As it is, as a beginning, with another ending, a letter wrong, within a word; or not at all."""
    assert score(wanted, text) == expected


def test_several_words_are_all_there_in_any_order() -> None:
    """The order that was asked for is worth more."""
    assert score("imap break", "IMAP break") == 100
    assert 0 < score("imap break", "break IMAP") < 100
    assert score("imap break", "IMAP is breaking") > 0
    assert score("imap break", "IMAP") == 0


def test_where_it_stands_counts() -> None:
    """The subject before the body, the body by how often, both before the rest of the header."""
    wanted = FuzzyText("budget")
    subject = wanted.of_text("from: ann\r\nsubject: budget\r\n", "", with_header=True)
    often = wanted.of_text("subject: plan\r\n", "budget, budget, budget", with_header=True)
    once = wanted.of_text("subject: plan\r\n", "the budget is here", with_header=True)
    elsewhere = wanted.of_text("list-id: budgets\r\n", "", with_header=True)
    assert 100 == subject > often > once > elsewhere > 0
    assert wanted.of_text("subject: budget\r\n", "", with_header=False) == 0
    both = FuzzyText("budget ann")
    assert 0 < both.of_text("from: ann\r\n", "budget", with_header=True) < once


TEXTS = st.text(alphabet="abAe\u0301\u00e9\u00dfк й,.!-_19東京", max_size=20)


@settings(max_examples=300)
@given(text=TEXTS, start=st.integers(0, 19), length=st.integers(1, 12))
def test_whatever_an_exact_search_finds_is_found(text: str, start: int, length: int) -> None:
    """A part of the text answers, and its pieces stand in the text: the index leaves nothing out."""
    folded = fold(text)
    needle = folded[start : start + length]
    wanted = FuzzyText(needle)
    if needle in folded and without_accents(needle):
        assert 1 <= wanted.of_text("", folded, with_header=False) <= 100
        assert all(any(piece in without_accents(folded) for piece in group) for group in wanted.pieces)


@settings(max_examples=300)
@given(word=st.text("abcdefgh", min_size=4, max_size=12), other=st.text("abcdefgh", min_size=3, max_size=13))
def test_the_pieces_are_in_every_text_that_answers(word: str, other: str) -> None:
    """No text that has a score lacks a piece."""
    for text in (other, word[1:], word[:-1], word[:2] + "x" + word[2:], word[:2] + word[3:4] + word[2:3]):
        wanted = FuzzyText(word)
        if wanted.of_value(text):
            assert all(any(piece in text for piece in group) for group in wanted.pieces), text


def test_bad_input_takes_no_time_and_no_memory() -> None:
    """Very long words and very many of them. RFC 6203 §8."""
    assert FuzzyText("x" * 100_000).of_value("y" * 100_000 + " xy") == 0
    wanted = FuzzyText(" ".join(f"word{n}" for n in range(10_000)))
    assert wanted.of_text("", " ".join(f"word{n}" for n in range(20_000)), with_header=True) > 0
    assert len(wanted.pieces) == 32
