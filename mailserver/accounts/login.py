"""What a service asks when somebody logs in, and what it is told.

The service (smtpd, pop3d, imapd) knows protocols; whoever answers knows passwords, delays
and penalties (RELIABILITY B20). Where mail has one owner the answer comes from this
process. With system accounts it comes from the helper, and for POP3 and IMAP brings a stream to the
account's session host with it, so that a front can reach no mailbox without a right password.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from mailserver.accounts.account import Account
from mailserver.accounts.scram import Challenge, Proof

PASSWORD_MECHANISMS: Final = ("PLAIN", "LOGIN")


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
    """One try to log in. `service` is imap, pop3 or smtp; `mechanism` as it is logged.

    `session` is the short id that ties the log lines of one connection together. SCRAM has a `proof`
    and no password.
    """

    service: str
    mechanism: str
    name: str
    password: bytes = field(repr=False)  # never in a log, a traceback or a test report
    peer: Peer
    session: str
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The login succeeded. `stream` is a connected stream socket to the account's session host.

    -1 means that the mail is touched in this process. The receiver owns the descriptor. `pid` is the
    host's, 0 for this process. `signature` answers a SCRAM proof.
    """

    account: Account
    stream: int = -1
    pid: int = 0
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Refused:
    """The login failed, for a reason that nobody outside learns. `temporary`: our fault, try again."""

    temporary: bool = False
    reason: str = ""  # for the log only


class Logins(Protocol):
    """Answers attempts, after whatever delay the peer has earned."""

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        """Never fails: a broken data base is `Refused(temporary=True)`."""

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        """What a SCRAM client of that name is told, whoever it is. Never fails, as `login`."""


def offered(mechanisms: Sequence[str], is_tls: bool) -> tuple[str, ...]:
    """The SASL mechanisms to announce: under TLS, SCRAM with channel binding stands before SCRAM."""
    names: list[str] = []
    for name in mechanisms:
        if is_tls and name.startswith("SCRAM-"):
            names.append(f"{name}-PLUS")
        names.append(name)
    return tuple(names)
