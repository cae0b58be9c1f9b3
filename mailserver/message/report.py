"""Delivery status notifications: multipart/report as Postfix's users know it.

`build_report` makes a whole message with LF line ends, ready for a queue file, whose envelope
sender must be `<>`. It holds a notice for people, a message/delivery-status for programs, and
the original message or its header. RFC 3464, RFC 6522; RFC 6533 where an address or the message
needs UTF-8. Values from outside never begin a line of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from mailserver.message.bounce_template import BUILT_IN, Template
from mailserver.message.fields import format_date, make_field, one_line
from mailserver.message.qualify import Completion
from mailserver.wire.smtp import encode_utf8_address

RETURN_LIMIT: Final = 50_000  # octets of the original that are returned: bounce_size_limit
_WIDTH: Final = 78


class Kind(Enum):
    """What is reported; the value is the Action of all recipients, but for TRACED. RFC 3464 §2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"
    TRACED = "traced"


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """One recipient of a report.

    `original` is `type;address` from ORCPT, or empty. `text` is our own words or the remote
    server's; `remote_host` names that server, and then `text` is its reply. `expanded_from` is the
    address as it was first written, where it was another one. `action` and `via` are there in a trace only:
    Postfix's word, `deliverable`, `undeliverable` or one of RFC 3464, and whoever delivers (`local`).
    """

    address: str
    dsn: str
    text: str
    original: str = ""
    remote_host: str = ""
    expanded_from: str = ""
    action: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All that a report says.

    `sender` is the original envelope sender, "" for `<>`; `recipient` is who gets the report.
    `content` is the original message with LF line ends. Times are POSIX seconds;
    `retry_until` counts for delays only. `message_id` has no angle brackets.
    """

    kind: Kind
    reporting_mta: str
    queue_id: str
    recipient: str
    sender: str
    recipients: tuple[RecipientReport, ...]
    content: bytes
    arrival: float
    now: float
    message_id: str
    envid: str = ""
    return_full: bool = True
    retry_until: float | None = None
    return_limit: int = RETURN_LIMIT
    zone_minutes: int = 0
    smtputf8: bool = False  # the original was sent with SMTPUTF8
    subject: str = ""  # in place of the usual one (postmaster's copy)
    template: Template | None = None  # in place of the built-in one

    @property
    def needs_utf8(self) -> bool:
        """Whether SMTPUTF8 is needed to send it: an address, or the header it returns, is not in ASCII."""
        addresses = [self.recipient, self.sender, *(recipient.address for recipient in self.recipients)]
        if not all(map(str.isascii, addresses)):
            return True
        return self.smtputf8 and not self.content[: _header_end(self.content)].isascii()


TEMPLATE_NAMES: Final = {
    Kind.FAILED: "failure_template",
    Kind.DELAYED: "delay_template",
    Kind.DELIVERED: "success_template",
    Kind.RELAYED: "success_template",
    Kind.EXPANDED: "success_template",
    Kind.TRACED: "verify_template",
}


def build_report(report: Report) -> bytes:
    """The whole notification, header and body, LF line ends."""
    utf8 = report.needs_utf8
    title, media_type, original = _original(report, utf8)
    parts = [
        ("Notification", f"text/plain; charset={_charset(report)}", _notice(report)),
        ("Delivery report", f"message/{'global-' if utf8 else ''}delivery-status", _status(report, utf8)),
        (title, media_type, original),
    ]
    boundary = _boundary(report, [body for _, _, body in parts])
    is_eight_bit = any(not body.isascii() for _, _, body in parts)
    pieces = [_header(report, boundary, utf8, is_eight_bit), b"This is a MIME-encapsulated message.\n"]
    for description, kind, body in parts:
        pieces.append(f"\n--{boundary}\nContent-Description: {description}\nContent-Type: {kind}\n".encode())
        if not body.isascii():
            pieces.append(b"Content-Transfer-Encoding: 8bit\n")
        pieces.append(b"\n" + body)
    pieces.append(f"\n--{boundary}--\n".encode())
    return b"".join(pieces)


def _header(report: Report, boundary: str, utf8: bool, is_eight_bit: bool) -> bytes:
    template = _template(report)
    sender = Completion(report.reporting_mta.encode()).list(template.sender.encode("ascii", "replace"))
    fields = {
        "Date": format_date(report.now, report.zone_minutes),
        "From": sender.decode("ascii", "replace").strip(),
        "Subject": report.subject or template.subject,
        "To": report.recipient,
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
        "Content-Type": f'multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "Content-Transfer-Encoding": "8bit" if is_eight_bit else "7bit",
        "Message-Id": f"<{report.message_id}>",
    }
    return b"".join([make_field(name, value, utf8) for name, value in fields.items()]) + b"\n"


def _notice(report: Report) -> bytes:
    """The part for people."""
    until = format_date(report.retry_until or report.now, report.zone_minutes)
    text = _template(report).text.replace("$retry_until", until)
    lines = [text.replace("$myhostname", one_line(report.reporting_mta)).removesuffix("\n")]
    for recipient in report.recipients:
        is_answer = bool(recipient.remote_host) and recipient.action not in ("deliverable", "relayed")
        said = f"host {recipient.remote_host} said: " if is_answer else ""
        said = f"delivery via {recipient.via}: {said}" if recipient.via else said
        origin = f" (expanded from <{recipient.expanded_from}>)" if recipient.expanded_from else ""
        lines += ["", *_wrapped(f"<{recipient.address}>{origin}: {said}{recipient.text}")]
    return ("\n".join(lines) + "\n").encode(_charset(report), "replace")


def _template(report: Report) -> Template:
    return report.template or BUILT_IN[TEMPLATE_NAMES[report.kind]]


def _charset(report: Report) -> str:
    return "utf-8" if report.needs_utf8 else _template(report).charset


def _wrapped(text: str) -> list[str]:
    """The text in lines of readable width, all but the first indented."""
    lines = [""]
    for word in one_line(text).split():
        if lines[-1].strip() and len(lines[-1]) + len(word) >= _WIDTH:
            lines.append("   ")
        lines[-1] += word if not lines[-1] else " " + word
    return lines


def _status(report: Report, utf8: bool) -> bytes:
    """The part for programs. RFC 3464 §2."""
    about_message = {
        "Reporting-MTA": f"dns; {report.reporting_mta}",
        "Original-Envelope-Id": report.envid,
        "X-Postfix-Queue-ID": report.queue_id,
        "X-Postfix-Sender": _typed(report.sender) if report.sender else "",
        "Arrival-Date": format_date(report.arrival, report.zone_minutes),
    }
    blocks = [_block(about_message, utf8)]
    for recipient in report.recipients:
        blocks.append(_block(_about(report, recipient), utf8))
    return b"\n".join(blocks)


def _about(report: Report, recipient: RecipientReport) -> dict[str, str]:
    kind, _, address = recipient.original.partition(";")
    is_remote = bool(recipient.remote_host)
    via = f"delivery via {recipient.via}: " if recipient.via and not is_remote else ""
    is_delay = report.kind is Kind.DELAYED and report.retry_until is not None
    if kind.lower() == "utf-8" and not report.needs_utf8:
        address = encode_utf8_address(address)
    return {
        "Final-Recipient": _typed(recipient.address),
        "Original-Recipient": f"{kind}; {address}" if address else "",
        "Action": recipient.action or report.kind.value,
        "Status": recipient.dsn,
        "Remote-MTA": f"dns; {recipient.remote_host}" if is_remote else "",
        "Diagnostic-Code": f"{'smtp' if is_remote else 'X-Postfix'}; {via}{recipient.text}",
        "Will-Retry-Until": format_date(report.retry_until or 0, report.zone_minutes) if is_delay else "",
    }


def _typed(address: str) -> str:
    """The address with its type. RFC 3464 §2.3.2, RFC 6533 §3."""
    return f"{'rfc822' if address.isascii() else 'utf-8'}; {address}"


def _block(fields: dict[str, str], utf8: bool) -> bytes:
    return b"".join([make_field(name, value, utf8) for name, value in fields.items() if value])


def _original(report: Report, utf8: bool) -> tuple[str, str, bytes]:
    """Description, type and octets of the part that returns the message, or only its header."""
    what = "Undelivered " if report.kind is Kind.FAILED else "Delayed " if report.kind is Kind.DELAYED else ""
    content = report.content
    if report.return_full and len(content) <= report.return_limit:
        return f"{what}Message", "message/global" if utf8 else "message/rfc822", content
    header = content[: _header_end(content)]
    if len(header) > report.return_limit:
        header = header[: header.rfind(b"\n", 0, report.return_limit) + 1]
    return f"{what}Message Headers", "message/global-headers" if utf8 else "text/rfc822-headers", header


def _header_end(content: bytes) -> int:
    """How many octets the header has."""
    return 0 if content.startswith(b"\n") else content.find(b"\n\n") + 1 or len(content)


def _boundary(report: Report, bodies: list[bytes]) -> str:
    """A boundary that occurs in no part. RFC 2046 §5.1.1."""
    boundary = f"{report.queue_id}.{int(report.now)}/{report.reporting_mta}"[:60]
    boundary = "".join(
        [character if character.isalnum() or character in "./-_" else "_" for character in boundary]
    )
    count = 0
    while any(f"--{boundary}.{count}".encode() in body for body in bodies):
        count += 1
    return f"{boundary}.{count}"
