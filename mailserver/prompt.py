"""A TCP transport that sends at once, and a reactor that does not ask for names.

Twisted's own transport waits for the next turn of the reactor with every write: two system calls and
one turn more for each reply. Here octets go to the socket in `write`, where nothing waits
before them; what the socket does not take goes the usual way. Everything else is unchanged.

Twisted's reactor asks whoever it calls for the name that `twisted.python.log` writes before a line, and sets
up a context for that: a tenth of what a short command costs. Our lines bear the names of `maillog`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from types import MethodType
from typing import Any, Final

from twisted.internet import tcp
from twisted.internet.epollreactor import EPollReactor

_MOST_PIECES: Final = 1024  # IOV_MAX of Linux


class PromptServer(tcp.Server):  # type: ignore[misc,unused-ignore]
    """A server's end of a TCP connection; see the module's description."""

    def write(self, data: bytes) -> None:
        """See ITransport.write."""
        if self._may_send_now():
            try:
                sent = self.socket.send(data)
            except OSError:
                sent = 0  # the reactor's next turn meets and reports it
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """See ITransport.writeSequence: large pieces go to the socket without being joined."""
        pieces = list(iovec)
        if len(pieces) == 1:
            self.write(pieces[0])
            return
        sent = self._send_pieces(pieces[:_MOST_PIECES]) if self._may_send_now() else 0
        rest = b"".join(pieces)[sent:] if sent < sum(map(len, pieces)) else b""
        if rest:
            super().write(rest)

    def _send_pieces(self, pieces: Sequence[bytes]) -> int:
        """How many octets the socket took; none after an error, which the reactor's next turn meets."""
        try:
            return self.socket.sendmsg(pieces)
        except OSError:
            return 0

    def _may_send_now(self) -> bool:
        is_writable = self.connected and not (self.TLS or self._writeDisconnected)
        return bool(is_writable and not self.dataBuffer and not self._tempDataBuffer)


def make_prompt(port: Any) -> None:
    """Connections accepted by the listening TCP port from now on send at once."""
    port.transport = PromptServer


def hasten(reactor: Any) -> None:
    """The reactor calls whoever has news without asking for a name; see the module. For any reactor."""
    if isinstance(reactor, EPollReactor):
        reactor.doIteration = MethodType(_iterate, reactor)  # type: ignore[method-assign]


def _iterate(reactor: Any, timeout: float | None) -> None:
    """As `EPollReactor.doPoll`. What is raised by those that are called, `_doReadOrWrite` logs."""
    try:
        events = reactor._poller.poll(-1 if timeout is None else timeout, len(reactor._selectables))
    except OSError as error:
        if error.errno == errno.EINTR:
            return
        raise
    selectables, act = reactor._selectables, reactor._doReadOrWrite
    for descriptor, event in events:
        selectable = selectables.get(descriptor)  # gone, where an earlier one closed it
        if selectable is not None:
            act(selectable, descriptor, event)
