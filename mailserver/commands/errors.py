"""What goes wrong in a command and can be mended by whoever typed it."""

from __future__ import annotations

import os


class CommandError(Exception):
    """The text says what, where, and how to fix it; `status` is the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def nobody_reads() -> int:
    """Whoever read standard output has seen enough, as head(1) does: no error. The exit status.

    For `except BrokenPipeError`, behind a `flush` of what was printed last.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0
