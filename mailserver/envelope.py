"""The envelope of a message, and what became of each recipient.

These values travel with a message from MAIL FROM to the last status line. They
hold facts only: parsing is in `wire`, storage in `queue`, decisions in `delivery`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final

_DOT_ATOM: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
                              r"(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+)*")  # fmt: skip


@lru_cache(maxsize=1024)
def _written(local: str, domain: str) -> str:
    if not _DOT_ATOM.fullmatch(local):
        local = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
    return f"{local}@{domain}" if domain else local


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox address. `local` is unquoted; `domain` is as given, "" where none was.

    An address literal keeps its brackets in `domain`. RFC 5321 §4.1.2.
    """

    local: str
    domain: str = ""

    def __str__(self) -> str:
        """The address as it is written in SMTP and in header fields, without angle brackets."""
        return _written(self.local, self.domain)

    @property
    def is_ascii(self) -> bool:
        """Whether the address can travel without SMTPUTF8. RFC 6531 §3.2."""
        return self.local.isascii() and self.domain.isascii()


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a message.

    `original` is the address as it was first written, extension and spelling kept:
    X-Original-To and `orig_to=` show it. `notify` is empty where RCPT carried no NOTIFY,
    else a subset of NEVER SUCCESS FAILURE DELAY; `orcpt` is "type;xtext-decoded address".
    RFC 3461 §4.
    """

    address: Address
    original: str = ""
    notify: frozenset[str] = frozenset()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """Where a message came from, for Received:, the log and commands' environment.

    `name` is the confirmed host name or "unknown". `protocol` is SMTP, ESMTP, ESMTPS, ESMTPA,
    ESMTPSA (RFC 3848) or "" for local submission, whose uid is in `uid`.
    """

    name: str = "unknown"
    address: str = ""
    helo: str = ""
    protocol: str = ""
    login: str = ""
    sasl_method: str = ""
    tls: str = ""
    uid: int = -1


@dataclass(frozen=True, slots=True)
class Envelope:
    """Sender, recipients and SMTP parameters of one message. `sender` None is the null sender `<>`.

    `content_filter` is `transport:nexthop`: all of the message goes there, and is expanded when it comes
    back as a new one. "" where there is no filter.
    `trace` is "verify" where nothing is to be delivered and the sender hears what would become of it
    (sendmail -bv), "record" where the sender hears of the first attempt (sendmail -v).
    """

    sender: Address | None
    recipients: tuple[Recipient, ...] = ()
    client: Client = field(default_factory=Client)
    body: str = ""  # "", "7BIT" or "8BITMIME"
    smtputf8: bool = False
    ret: str = ""  # "", "FULL" or "HDRS"
    envid: str = ""
    content_filter: str = ""
    trace: str = ""


class Status(Enum):
    """What happened to a recipient, in the words of the `status=` field of the log."""

    DELIVERED = "sent"
    DEFERRED = "deferred"
    FAILED = "bounced"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt for one recipient.

    `dsn` is the enhanced status code (RFC 3463), `text` is safe to show to the sender and has
    no line break; `relay` is "local", "none" or "host[ip]:port"; `remote` is the reply of a
    remote server, for Diagnostic-Code (RFC 3464 §2.3.6). Where it `reports_itself`, the next server
    took over the duty to report success (RFC 3461 §5.2.1); where it `is_final`, the message was not passed
    on but delivered, whatever the way.
    """

    status: Status
    dsn: str
    text: str
    relay: str = "local"
    remote: str = ""
    reports_itself: bool = False
    is_final: bool = False

    @classmethod
    def delivered(cls, text: str, dsn: str = "2.0.0", relay: str = "local", remote: str = "") -> Outcome:
        """The recipient's copy is durable where it belongs."""
        return cls(Status.DELIVERED, dsn, text, relay, remote)

    @classmethod
    def deferred(cls, text: str, dsn: str = "4.0.0", relay: str = "local", remote: str = "") -> Outcome:
        """Nothing is decided; the attempt is to be repeated."""
        return cls(Status.DEFERRED, dsn, text, relay, remote)

    @classmethod
    def failed(cls, text: str, dsn: str = "5.0.0", relay: str = "local", remote: str = "") -> Outcome:
        """A fact about the address or the message makes delivery impossible: it bounces."""
        return cls(Status.FAILED, dsn, text, relay, remote)
