"""SECURITY.md: its table has every threat of the list, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = dict(re.findall(r"^\| (B\d+|§\d+) \| .* \| (.*) \|$", TEXT, re.MULTILINE))
THREATS = [f"B{number}" for number in range(1, 39)]
GROUPS = ["§8", "§9", "§10", "§11"]  # rights, relay probes, limits, TLS
WITHOUT_TESTS = {"B35", "B36"}  # not offered; a task of CI's


def test_every_threat_has_a_row() -> None:
    """None is passed over, and none stands there twice or out of order."""
    assert list(ROWS) == THREATS + GROUPS


def test_every_row_has_tests_that_are_there() -> None:
    """A row whose test has moved is found here, and a file without a test in it."""
    for row, text in ROWS.items():
        paths = re.findall(r"`(tests/[^`]+)`", text)
        assert paths or row in WITHOUT_TESTS, row
        for path in paths:
            assert (ROOT / path).is_file(), f"{row}: {path}"
            assert re.search(r"def test_|TestCase", (ROOT / path).read_text()), f"{row}: {path}"


def test_the_audit_is_a_task_of_ci() -> None:
    """B36 rests on it."""
    assert "\naudit:" in (ROOT / "Makefile").read_text()
