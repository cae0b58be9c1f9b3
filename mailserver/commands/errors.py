"""What goes wrong in a command and can be mended by whoever typed it."""

from __future__ import annotations


class CommandError(Exception):
    """The text says what, where, and how to fix it; `status` is the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status
