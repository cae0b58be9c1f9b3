"""The listener's side of the SMTP server: makes sessions, and ends them when the server stops."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.mail.smtp import SMTPFactory

from mailserver.smtpd.protocol import SmtpServer
from mailserver.smtpd.services import Services


class SmtpFactory(SMTPFactory):
    """Makes an `SmtpServer` for each connection. `is_tls`: the listener puts them under TLS (port 465)."""

    noisy = False

    def __init__(self, services: Services, *, is_tls: bool = False) -> None:
        super().__init__()
        self._services = services
        self._is_tls = is_tls
        self._open: set[SmtpServer] = set()
        self._emptied: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See `IProtocolFactory`."""
        server = SmtpServer(self._services, is_tls=self._is_tls)
        server.factory = self
        return server

    def opened(self, server: SmtpServer) -> None:
        """The connection exists."""
        self._open.add(server)
        if self._emptied is not None:
            server.shut_down()

    def closed(self, server: SmtpServer) -> None:
        """The connection is gone."""
        self._open.discard(server)
        if self._emptied is not None and not self._open and not self._emptied.called:
            self._emptied.callback(None)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def when_empty(self) -> Deferred[None]:
        """Fires when every session has ended; nobody is told to go."""
        if not self._open:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def shut_down(self) -> Deferred[None]:
        """Every client hears 421, after the answer to what is being committed; fires when all are gone."""
        if not self._open:
            return succeed(None)
        self._emptied = Deferred()
        for server in tuple(self._open):
            server.shut_down()
        return self._emptied
