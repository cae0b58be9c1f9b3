"""The listener's side of the SMTP server: makes sessions, and ends them when the server stops."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.mail.smtp import SMTPFactory

from mailserver.open_sessions import OpenSessions, SessionFactory
from mailserver.smtpd.protocol import SmtpServer
from mailserver.smtpd.services import Services


class SmtpFactory(SessionFactory, SMTPFactory):
    """Makes an `SmtpServer` for each connection. `is_tls`: the listener puts them under TLS (port 465).

    When the server stops no session is cut off: a message may be on its way to the disk, and each
    session has its own time limits.
    """

    def __init__(self, services: Services, *, is_tls: bool = False) -> None:
        super().__init__(OpenSessions(services.clock, patience=None))
        self._services = services
        self._is_tls = is_tls

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See `IProtocolFactory`."""
        server = SmtpServer(self._services, self.sessions, is_tls=self._is_tls)
        server.factory = self
        return server
