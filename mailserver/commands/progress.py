"""A line on the terminal that says how far a long command is; silence where nobody looks."""

from __future__ import annotations

import sys
import time
from typing import IO, Final

_INTERVAL: Final = 0.1  # seconds between two redrawings
_WIDTH: Final = 30


class Progress:
    """Counts up to `total` (0: unknown) on standard error; `label` says of what."""

    def __init__(self, label: str, total: int, stream: IO[str] | None = None) -> None:
        self._label = label
        self._total = total
        self._stream = stream or sys.stderr
        self._is_shown = self._stream.isatty()
        self._done = 0
        self._drawn = 0.0

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        if self._is_shown and time.monotonic() - self._drawn >= _INTERVAL:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        filled = min(_WIDTH, self._done * _WIDTH // self._total) if self._total else 0
        bar = f" [{'#' * filled:{_WIDTH}}]" if self._total else ""
        total = f"/{self._total}" if self._total else ""
        self._stream.write(f"\r{self._label}{bar} {self._done}{total}\x1b[K")
        self._stream.flush()

    def finish(self) -> None:
        """The line is gone: what follows is for the result."""
        if self._is_shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
