"""Builds the protocol for each connection of a POP3 listener.

`roles/retrieval` makes one `Pop3Factory` per listener row; a session host makes one with a registry and
calls `resumed` for each stream that a front hands over.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress

from mailserver.accounts.account import Account
from mailserver.open_sessions import OpenSessions, SessionFactory
from mailserver.pop3d.entrance import Preamble
from mailserver.pop3d.protocol import Pop3Server
from mailserver.pop3d.service import Service


class Pop3Factory(SessionFactory):
    """See the module."""

    protocol: Any = Pop3Server

    def __init__(self, service: Service) -> None:
        super().__init__(OpenSessions(service.reactor))
        self._service = service

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection's protocol, not connected yet."""
        protocol = self.protocol(self._service, self.sessions)
        protocol.factory = self
        return protocol

    def resumed(self, account: Account, preamble: Preamble) -> Pop3Server:
        """The protocol for a stream that a front handed over after login; for `makeConnection`."""
        protocol: Pop3Server = self.buildProtocol(None)
        protocol.resume(account, preamble)
        return protocol
