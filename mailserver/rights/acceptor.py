"""A listening Unix socket in a process with a reactor, where Twisted's own listeners do not fit."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
class Acceptor:
    """Calls `accepted` with each connection, until `stop`. The listener stays the caller's."""

    def __init__(
        self, reactor: Any, listener: socket.socket, accepted: Callable[[socket.socket], None]
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        self._accepted = accepted
        listener.setblocking(False)
        reactor.addReader(self)

    def stop(self) -> None:
        """No connection is accepted any more."""
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._listener.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "acceptor"

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor."""

    def doRead(self) -> None:
        """See IReadDescriptor."""
        try:
            connection, _ = self._listener.accept()
        except (
            OSError
        ):  # the client was gone already; or there are no more descriptors: the next turn tries again
            return
        self._accepted(connection)
