"""A word that a role gives its supervisor once, through one shared page of memory."""

from __future__ import annotations

import mmap


class Sign:
    """Made before the fork; `give` is the role's, the rest the supervisor's."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def give(self) -> None:
        """The supervisor sees it when it next looks."""
        self._page[0] = 1

    def withdraw(self) -> None:
        """It was not given: another process of the role begins."""
        self._page[0] = 0

    def is_given(self) -> bool:
        """Whether the role has given it."""
        return self._page[0] == 1
