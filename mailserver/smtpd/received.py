"""The header fields that the SMTP server itself gives a message. RFC 5321 §4.4."""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from functools import lru_cache

from mailserver.envelope import Envelope

_UNSAFE_IN_COMMENT = re.compile(r"[^ -'*-\[\]-~\u00a0-\U0010ffff]")


def received_field(
    envelope: Envelope,
    queue_id: str,
    host: str,
    mail_name: str,
    arrival: float,
    show_login: bool = False,
    certificate: str | None = "",
) -> bytes:
    """`Received: from HELO (NAME [IP]) … by HOST (MAIL_NAME) with PROTOCOL id ID for <rcpt>; date`.

    Folded as Postfix folds it, LF line ends. The recipient is named only where there is one:
    another's address is nobody's business. `arrival` is wall-clock seconds. What came with SMTPUTF8
    says UTF8SMTP (RFC 6531 §4.3). What came under TLS says which, and `certificate` is a comment on the
    client's; with None neither (smtpd_tls_received_header). Where the queue id is "" the mail is on its way
    to a proxy filter.
    """
    client = envelope.client
    origin = f"{_safe(client.name)} [{_literal(client.address)}]"
    lines = [f"Received: from {_safe(client.helo or client.name)} ({origin})"]
    if client.tls and certificate is not None:
        lines.append(f"(using {client.tls})")
        lines += [f"({certificate})"] if certificate else []
    if show_login and client.login:
        lines.append(f"(Authenticated sender: {_safe(client.login)})")
    protocol = f"UTF8{client.protocol.removeprefix('E')}" if envelope.smtputf8 else client.protocol
    lines.append(f"by {host} ({mail_name}) with {protocol}" + (f" id {queue_id}" if queue_id else ""))
    stamp = arrival_date(arrival)
    if len(envelope.recipients) == 1:
        recipient = envelope.recipients[0]
        lines.append(f"for <{recipient.original or recipient.address}>; {stamp}")
    elif queue_id:
        lines[-1] += f"; {stamp}"
    else:
        lines[-1:] = [f"{lines[-1]};", stamp]
    return ("\n\t".join(lines) + "\n").encode("utf-8", "replace")


def arrival_date(arrival: float) -> str:
    """The time as header fields have it, with the zone's name: `Tue, 24 Nov 2026 02:22:04 +0000 (UTC)`."""
    return _date(int(arrival))


@lru_cache(maxsize=16)
def _date(second: int) -> str:
    return f"{formatdate(second, localtime=True)} ({time.localtime(second).tm_zone})"


@lru_cache(maxsize=16)
def _digits(second: int) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(second))


def missing_fields(envelope: Envelope, queue_id: str, host: str, arrival: float) -> dict[str, str]:
    """The fields that a message of a local client gets where it lacks them."""
    sender = envelope.sender
    address = f"MAILER-DAEMON@{host}" if sender is None else str(sender)
    stamp = _digits(int(arrival))
    return {
        "Message-Id": f"<{stamp}.{queue_id}@{host}>",
        "Date": arrival_date(arrival),
        "From": address if "@" in address else f"{address}@{host}",
    }


@lru_cache(maxsize=64)
def _safe(text: str) -> str:
    return _UNSAFE_IN_COMMENT.sub("?", text)


def _literal(address: str) -> str:
    return f"IPv6:{address}" if ":" in address else address
