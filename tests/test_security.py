"""SECURITY.md: its table names tests that exist, and that say so."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = re.findall(r"^\| (B\d+) \| .* \| (.*) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


def test_every_threat_has_a_test_that_is_there() -> None:
    """A row whose test has moved is found here."""
    assert len(ROWS) >= 33
    missing = [
        (row, path)
        for row, text in ROWS
        for path in re.findall(r"`([^`]+)`", text)
        if not (ROOT / path).exists()
    ]
    assert not missing
    assert all("`" in text for _, text in ROWS)
