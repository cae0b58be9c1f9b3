"""Citations are found as they are written."""

from __future__ import annotations

import pytest

from tests.compliance import citations


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("RFC 5321 §4.5.4.1.", {(5321, "4.5.4.1")}),
        ("RFC 7162 §3.1.4 and §3.2.6, RFC 3516", {(7162, "3.1.4"), (7162, "3.2.6"), (3516, "")}),
        ("RFC 3501 §6.4, §7.4.1 (EXPUNGE)", {(3501, "6.4"), (3501, "7.4.1")}),
        ("see RFC\n    9051 §B", {(9051, "B")}),
        ("no citation", set()),
    ],
)
def test_citations(text: str, found: set[tuple[int, str]]) -> None:
    """`RFC n §x`, and several sections of one RFC."""
    assert citations(text) == found
