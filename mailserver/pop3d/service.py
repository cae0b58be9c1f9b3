"""What all POP3 sessions of one listener share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mailserver.accounts.logged_in import LoggedIn
from mailserver.accounts.login import Granted, Logins
from mailserver.maillog import MailLog
from mailserver.pop3d.entrance import Preamble
from mailserver.pop3d.settings import Pop3Settings
from mailserver.rawlog import RawLog
from mailserver.store.contract import StoreRegistry
from mailserver.threads import Threads

# (the session's protocol, what was granted, where the session stands, octets that were read already)
Handover = Callable[[Any, Granted, Preamble, bytes], None]


@dataclass(frozen=True, slots=True)
class Service:
    """See the module.

    `reactor` gives time. `tls` is a context factory for STLS, None where it is not offered. `handover` is
    called for a login that was granted with a stream: it takes the transport over. `logged_in` is
    shared with other listeners. `rawlog` is None where sessions are not written down.
    """

    settings: Pop3Settings
    logins: Logins
    registry: StoreRegistry
    threads: Threads
    reactor: Any
    log: MailLog
    tls: Any = None
    handover: Handover | None = None
    logged_in: LoggedIn = field(default_factory=LoggedIn)
    rawlog: RawLog | None = None
