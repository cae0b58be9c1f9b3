"""Messages in an mbox begin where a line does, wherever the file is cut for reading."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.store.mbox_lines import LONGEST_FROM_LINE
from mailserver.store.mbox_scan import WINDOW, scan

_FROM = b"From carol@example.net Tue Nov 24 02:22:04 2026\n"


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_text_in_a_line_separates_nothing(tmp_path: Path, shift: int) -> None:
    """Not even where a window begins with it: what stands before the first message may be of any length."""
    path = tmp_path / "mbox"
    text = b"y" * (WINDOW - LONGEST_FROM_LINE - shift) + _FROM + b"z" * 2 * LONGEST_FROM_LINE + b"\n"
    path.write_bytes(text + _FROM + b"Subject: one\n\nbody\n\n")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = list(scan(descriptor, 0, path.stat().st_size))
    finally:
        os.close(descriptor)
    assert [message.place.offset for message in found] == [len(text)]
