"""Builds the protocol for each connection of a POP3 listener.

`tap` makes one `Pop3Factory` per listener row; a session host makes one with a registry and
calls `resumed` for each stream that a front hands over.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from mailserver.accounts.account import Account
from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.login import Logins
from mailserver.maillog import MailLog
from mailserver.open_sessions import OpenSessions
from mailserver.pop3d.entrance import Preamble
from mailserver.pop3d.protocol import Handover, Pop3Server
from mailserver.pop3d.settings import Pop3Settings
from mailserver.rawlog import RawLog
from mailserver.store.contract import StoreRegistry
from mailserver.threads import Threads

__all__ = ["Pop3Factory", "Pop3Server", "Pop3Settings"]


class Pop3Factory(ServerFactory):
    """See the module. `tls` is a context factory for STLS, None where it is not offered.

    `reactor` provides time. `handover` is called for a login that was granted with a stream:
    it takes the transport over, with the octets that were read already. `logged_in` is shared with
    other listeners.
    """

    noisy = False
    protocol: Any = Pop3Server

    def __init__(
        self,
        settings: Pop3Settings,
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
        self._settings = settings
        self._logins = logins
        self._registry = registry
        self._threads = threads
        self._reactor = reactor
        self._log = log
        self._tls = tls
        self._handover = handover
        self._logged_in = logged_in or LoggedIn()
        self._rawlog = rawlog
        self._sessions = OpenSessions(reactor)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection's protocol, not connected yet."""
        protocol = self.protocol(
            self._settings,
            self._logins,
            self._registry,
            self._threads,
            self._reactor,
            self._log,
            self._sessions,
            self._tls,
            self._handover,
            self._logged_in,
            self._rawlog,
        )
        protocol.factory = self
        return protocol

    def when_empty(self) -> Deferred[None]:
        """Fires when every session has ended; nobody is told to go."""
        return self._sessions.when_empty()

    def shut_down(self) -> Deferred[None]:
        """Every connection is closed; fires when all are gone."""
        return self._sessions.shut_down()

    def resumed(self, account: Account, preamble: Preamble) -> Pop3Server:
        """The protocol for a stream that a front handed over after login; for `makeConnection`."""
        protocol: Pop3Server = self.buildProtocol(None)
        protocol.resume(account, preamble)
        return protocol
