"""Descriptors are kept for those who are served: connections that would take the last ones are turned away.

A session opens mailboxes, a delivery files, the log itself: where a crowd of connections leaves them no
descriptor, everybody fails. Twisted gets on accepting as soon as there is one again. RELIABILITY F22.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from typing import Any, Final

RESERVE: Final = 32
_SAY_EVERY: Final = 60.0  # seconds


class Sparing:
    """A factory that makes no protocol while no more than RESERVE descriptors are left.

    `warn` hears of it once a minute.
    """

    def __init__(
        self,
        factory: Any,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._factory = factory
        self._warn = warn
        self._clock = clock
        self._said = -_SAY_EVERY

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)

    def buildProtocol(self, address: Any) -> Any:
        """See IProtocolFactory.buildProtocol; None where the connection is to be closed at once."""
        if not self._are_scarce():
            return self._factory.buildProtocol(address)
        now = self._clock()
        if now - self._said >= _SAY_EVERY:
            self._said = now
            self._warn("too few file descriptors are left: connections are turned away (see LimitNOFILE)")
        return None

    def _are_scarce(self) -> bool:
        """The lowest free number tells how many are in use, as long as none is closed in between."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        try:
            free = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError:
            return True
        os.close(free)
        return most != resource.RLIM_INFINITY and free >= most - RESERVE
