"""The mail log in a file: what is written together arrives whole and in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.maillog import FileLog


@pytest.mark.parametrize("count", [0, 1, 16, 17, 50])
def test_lines_that_are_written_together(tmp_path: Path, count: int) -> None:
    """Each is a line of its own, in order, however many there are; control characters are made harmless."""
    path = tmp_path / "mail.log"
    log = FileLog(str(path))
    log.write("qmgr", "before")
    log.write_all([("smtp", f"number {number}\n") for number in range(count)])
    log.write("qmgr", "after")
    texts = [line.rpartition(": ")[2] for line in path.read_text().splitlines()]
    assert texts == ["before", *(f"number {number}?" for number in range(count)), "after"]
