"""What a service asks when somebody logs in, and what it is told.

The service (smtpd, pop3d, imapd) knows protocols; whoever answers knows passwords, delays
and penalties (RELIABILITY B20). Where mail has one owner the answer comes from this
process. With system accounts it comes from the helper, and for POP3 and IMAP brings a stream to the
account's session host with it, so that a front can reach no mailbox without a right password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred

from mailserver.accounts.account import Account


@dataclass(frozen=True, slots=True)
class Peer:
    """Both ends of the connection a login comes over. `is_secure`: under TLS, or loopback."""

    address: str
    port: int
    local_address: str
    local_port: int
    is_tls: bool
    is_secure: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to log in. `service` is imap, pop3 or smtp; `mechanism` PLAIN or LOGIN, as logged.

    `session` is the short id that ties the log lines of one connection together.
    """

    service: str
    mechanism: str
    name: str
    password: bytes = field(repr=False)  # never in a log, a traceback or a test report
    peer: Peer
    session: str


@dataclass(frozen=True, slots=True)
class Granted:
    """The login succeeded. `stream` is a connected stream socket to the account's session host.

    -1 means that the mail is touched in this process. The receiver owns the descriptor. `pid` is the
    host's, 0 for this process.
    """

    account: Account
    stream: int = -1
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """The login failed, for a reason that nobody outside learns. `temporary`: our fault, try again."""

    temporary: bool = False
    reason: str = ""  # for the log only


class Logins(Protocol):
    """Answers attempts, after whatever delay the peer has earned."""

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        """Never fails: a broken data base is `Refused(temporary=True)`."""
