"""Builds the protocol for each connection of an IMAP listener.

`roles/retrieval` makes one `ImapFactory` per listener row; a session host makes one with a registry and
calls `resumed` for each stream that a front hands over.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress

from mailserver.accounts.account import Account
from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.login import Logins
from mailserver.imapd.entrance import Preamble
from mailserver.imapd.protocol import Handover, ImapServer
from mailserver.imapd.session import Service
from mailserver.imapd.settings import ImapSettings
from mailserver.maillog import MailLog
from mailserver.open_sessions import OpenSessions, SessionFactory
from mailserver.rawlog import RawLog
from mailserver.store.contract import StoreRegistry
from mailserver.threads import Threads


class ImapFactory(SessionFactory):
    """See the module. `tls` is a context factory for STARTTLS, None where it is not offered.

    `reactor` provides time and `callFromThread`. `handover` is called for a login that was
    granted with a stream: it takes the transport over, with the octets that were read already.
    `logged_in` is shared with other listeners.
    """

    def __init__(
        self,
        settings: ImapSettings,
        logins: Logins,
        registry: StoreRegistry,
        threads: Threads,
        reactor: Any,
        log: MailLog,
        tls: Any = None,
        handover: Handover | None = None,
        logged_in: LoggedIn | None = None,
        rawlog: RawLog | None = None,
    ) -> None:
        super().__init__(OpenSessions(reactor))
        self._service = Service(settings, threads, reactor, rawlog=rawlog)
        self._logins = logins
        self._registry = registry
        self._log = log
        self._tls = tls
        self._handover = handover
        self._logged_in = logged_in or LoggedIn()

    def buildProtocol(self, addr: IAddress | None) -> ImapServer:
        """A connection's protocol, not connected yet."""
        protocol = ImapServer(
            self._service,
            self._logins,
            self._registry,
            self._log,
            self.sessions,
            self._tls,
            self._handover,
            self._logged_in,
        )
        protocol.factory = self
        return protocol

    def resumed(self, account: Account, preamble: Preamble) -> ImapServer:
        """The protocol for a stream that a front handed over after login; for `makeConnection`."""
        protocol = self.buildProtocol(None)
        protocol.resume(account, preamble)
        return protocol
