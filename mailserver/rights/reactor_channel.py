"""A channel's end in a process with a reactor."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import main
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.rights import messages
from mailserver.rights.messages import BadMessage, Message

_MOST_AT_ONCE = 32  # messages a turn of the reactor


@implementer(IReadDescriptor)
class ReactorChannel:
    """Calls `received` for each message (which then owns the descriptors), and `lost` once at the end."""

    def __init__(
        self,
        reactor: Any,
        connection: socket.socket,
        received: Callable[[Message, list[int]], None],
        lost: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._socket = connection
        self._received = received
        self._lost = lost
        self._is_open = True
        connection.setblocking(False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "channel"

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """The message is with the kernel. Raises OSError where the other end is gone or does not read."""
        messages.send(self._socket, message, descriptors)

    def doRead(self) -> Exception | None:
        """See IReadDescriptor."""
        for _ in range(_MOST_AT_ONCE):
            try:
                received = messages.receive(self._socket)
            except BlockingIOError:
                return None
            except (BadMessage, OSError):
                return main.CONNECTION_LOST
            if received is None:
                return main.CONNECTION_DONE
            self._received(*received)
            if not self._is_open:
                return None
        return None

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor."""
        self.close()

    def close(self) -> None:
        """The channel is closed; `lost` was called."""
        if not self._is_open:
            return
        self._is_open = False
        self._reactor.removeReader(self)
        self._socket.close()
        self._lost()
