"""A TCP transport that sends at once.

Twisted's own waits for the next turn of the reactor with every write: two system calls and
one turn more for each reply. Here octets go to the socket in `write`, where nothing waits
before them; what the socket does not take goes the usual way. Everything else is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from twisted.internet import tcp

_MOST_PIECES: Final = 1024  # IOV_MAX of Linux


class PromptServer(tcp.Server):  # type: ignore[misc,unused-ignore]
    """A server's end of a TCP connection; see the module's description."""

    def write(self, data: bytes) -> None:
        """See ITransport.write."""
        if self._may_send_now():
            sent = self.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):
                data = data[sent:]
        super().write(data)  # after an error too: the reactor's next turn meets and reports it

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
