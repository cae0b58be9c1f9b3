"""A TCP transport that sends at once.

Twisted's own waits for the next turn of the reactor with every write: two system calls and
one turn more for each reply. Here octets go to the socket in `write`, where nothing waits
before them; what the socket does not take goes the usual way. Everything else is unchanged.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp


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

    def _may_send_now(self) -> bool:
        is_writable = self.connected and not (self.TLS or self._writeDisconnected)
        return bool(is_writable and not self.dataBuffer and not self._tempDataBuffer)


def make_prompt(port: Any) -> None:
    """Connections accepted by the listening TCP port from now on send at once."""
    port.transport = PromptServer
