"""What a service asks when somebody logs in, and what it is told.

The service (smtpd, pop3d, imapd) knows protocols; whoever answers knows passwords, delays
and penalties (RELIABILITY B20). Where mail has one owner the answer comes from this
process. With system accounts it comes from the helper, and for POP3 and IMAP brings a stream to the
account's session host with it, so that a front can reach no mailbox without a right password.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from mailserver.accounts.account import Account
from mailserver.accounts.scram import Challenge, Proof
from mailserver.accounts.throttle import Network, is_within

PASSWORD_MECHANISMS: Final = ("PLAIN", "LOGIN")
EXTERNAL: Final = "EXTERNAL"  # the client's certificate says who it is: RFC 4422 Appendix A
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"), ip_network("::ffff:127.0.0.0/104"))


@dataclass(frozen=True, slots=True)
class Peer:
    """Both ends of the connection a login comes over. `is_secure`: under TLS, or loopback."""

    address: str
    port: int
    local_address: str
    local_port: int
    is_tls: bool
    is_secure: bool


def peer_of(transport: Any, is_tls: bool, trusted: Sequence[Network] = ()) -> Peer:
    """Both ends of a connection; a client in a `trusted` network is as safe as one under TLS."""
    there, here = transport.getPeer(), transport.getHost()
    address = str(getattr(there, "host", "") or "local")
    return Peer(
        address,
        int(getattr(there, "port", 0)),
        str(getattr(here, "host", "") or "local"),
        int(getattr(here, "port", 0)),
        is_tls,
        is_tls or is_loopback(address) or is_within(address, trusted),
    )


def is_loopback(address: str) -> bool:
    """Whether the peer is on this machine: 127.0.0.0/8, ::1, or a Unix socket."""
    return address == "local" or is_within(address, _LOOPBACK)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to log in. `service` is imap, pop3 or smtp; `mechanism` as it is logged.

    `session` is the short id that ties the log lines of one connection together. SCRAM has a `proof`
    and no password, EXTERNAL neither; `certificates` are what the client showed, where they may count.
    """

    service: str
    mechanism: str
    name: str
    password: bytes = field(repr=False)  # never in a log, a traceback or a test report
    peer: Peer
    session: str
    proof: Proof | None = None
    certificates: tuple[bytes, ...] = ()


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


def offered(mechanisms: Sequence[str], is_tls: bool, has_certificate: bool = False) -> tuple[str, ...]:
    """The SASL mechanisms to announce: under TLS, SCRAM with channel binding stands before SCRAM.

    EXTERNAL is for a client that showed a good certificate.
    """
    names: list[str] = []
    for name in mechanisms:
        if name == EXTERNAL and not has_certificate:
            continue
        if is_tls and name.startswith("SCRAM-"):
            names.append(f"{name}-PLUS")
        names.append(name)
    return tuple(names)
