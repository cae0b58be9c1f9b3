"""Reports to senders: what failed, what is delayed, what they asked to be told. RFC 3461, 3464, bounce(8).

Every report goes out from `<>` through the queue. What happens to a report that cannot be
delivered: nobody gets a report about it, but postmaster a copy, once ("double bounce");
a copy that fails is dropped. NOTIFY, RET, ENVID and ORCPT are honoured. All of this blocks.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mailserver.delivery.plan import LeafKind
from mailserver.envelope import Address, Envelope, Outcome, Recipient, Status
from mailserver.message.bounce_template import BUILT_IN, Template
from mailserver.message.fields import format_date
from mailserver.message.report import (
    RETURN_LIMIT,
    TEMPLATE_NAMES,
    Kind,
    RecipientReport,
    Report,
    build_report,
)
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.file import QueueFile
from mailserver.queue.progress import Progress
from mailserver.wire.address import AddressError, parse_lenient

_ORIGINS = {Kind.FAILED: "bounce", Kind.DELAYED: "delay"}
_NAMES = {Kind.FAILED: "non-delivery", Kind.DELAYED: "delay"}


@dataclass(frozen=True, slots=True)
class Reporter:
    """Whom reports come from and how they look. Times are wall clock."""

    host: str  # myhostname
    mail_name: str = "Postfix"
    return_limit: int = RETURN_LIMIT  # bounce_size_limit
    double_bounce_recipient: str = "postmaster"  # 2bounce_notice_recipient; "" drops double bounces
    my_origin: str = ""
    copies: Mapping[Kind, str] = field(default_factory=dict)  # notify_classes: who else hears of it
    templates: Mapping[str, Template] = field(
        default_factory=lambda: BUILT_IN
    )  # of bounce_template_file, expanded


@dataclass(frozen=True, slots=True)
class Sent:
    """A report that is in the queue, durable; `line` is for the log."""

    message: QueueFile
    line: str


class Bounces:
    """Makes reports about messages and commits them to the queue."""

    def __init__(self, queue: QueueDirectory, reporter: Reporter, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._reporter = reporter
        self._clock = clock

    def failed(self, message: QueueFile, progress: Progress, leaves: Sequence[int]) -> list[Sent]:
        """Those who must know of these failures have a report each. Raises OSError."""
        wanted = [leaf for leaf in leaves if _wants(progress.root(leaf), "FAILURE")]
        copies = self._copies(message, progress, leaves, Kind.FAILED)
        return self._report(message, progress, wanted, Kind.FAILED) + copies

    def delayed(
        self, message: QueueFile, progress: Progress, leaves: Sequence[int], until: float
    ) -> list[Sent]:
        """Those who want to know that these recipients must wait have a report each. Raises OSError."""
        wanted = [leaf for leaf in leaves if _wants(progress.root(leaf), "DELAY")]
        copies = self._copies(message, progress, leaves, Kind.DELAYED, until)
        return self._report(message, progress, wanted, Kind.DELAYED, until) + copies

    def succeeded(self, message: QueueFile, progress: Progress, leaves: Sequence[int]) -> list[Sent]:
        """Those who asked have a report for each way their message went. Raises OSError."""
        kinds: dict[Kind, list[int]] = defaultdict(list)
        for leaf in leaves:
            if "SUCCESS" in progress.root(leaf).notify:
                kinds[_success_kind(progress.leaves[leaf].kind, progress.outcomes[leaf])].append(leaf)
        return [
            sent for kind, group in kinds.items() for sent in self._report(message, progress, group, kind)
        ]

    def traced(self, message: QueueFile, progress: Progress, leaves: Sequence[int]) -> list[Sent]:
        """The sender has a report of these leaves, as sendmail -bv and -v ask for. Raises OSError."""
        to = _address(str(progress.sender or ""), self._reporter.my_origin or self._reporter.host)
        if to is None or not leaves:
            return []
        made = self._commit(message, progress, leaves, Kind.TRACED, to, "success", None)
        return [Sent(made, f"{message.queue_id}: sender delivery status notification: {made.queue_id}")]

    def _copies(
        self,
        message: QueueFile,
        progress: Progress,
        leaves: Sequence[int],
        kind: Kind,
        until: float | None = None,
    ) -> list[Sent]:
        """The postmaster's copy, where notify_classes has it: without the message's body."""
        text = self._reporter.copies.get(kind, "")
        to = _address(text, self._reporter.my_origin or self._reporter.host) if text else None
        if to is None or not leaves or not sender_of(progress, leaves[0]) or progress.accepted.origin:
            return []
        made = self._commit(message, progress, leaves, kind, to, "double-bounce", until, is_copy=True)
        name = _NAMES[kind]
        return [Sent(made, f"{message.queue_id}: postmaster {name} notification: {made.queue_id}")]

    def _report(
        self,
        message: QueueFile,
        progress: Progress,
        leaves: Iterable[int],
        kind: Kind,
        until: float | None = None,
    ) -> list[Sent]:
        by_sender: dict[str, list[int]] = defaultdict(list)
        for leaf in leaves:
            by_sender[sender_of(progress, leaf)].append(leaf)
        sent = []
        for sender, group in by_sender.items():
            recipient, origin, noun = sender, _ORIGINS.get(kind, "success"), "sender"
            if not sender:
                if kind is not Kind.FAILED or progress.accepted.origin == "double-bounce":
                    continue
                recipient, origin, noun = (
                    self._reporter.double_bounce_recipient,
                    "double-bounce",
                    "postmaster",
                )
            to = _address(recipient, self._reporter.my_origin or self._reporter.host)
            if to is not None:
                name = _NAMES.get(kind, "delivery status")
                made = self._commit(message, progress, group, kind, to, origin, until)
                line = f"{message.queue_id}: {noun} {name} notification: {made.queue_id}"
                sent.append(Sent(made, line))
        return sent

    def _commit(
        self,
        message: QueueFile,
        progress: Progress,
        leaves: Sequence[int],
        kind: Kind,
        to: Address,
        origin: str,
        until: float | None,
        is_copy: bool = False,
    ) -> QueueFile:
        now = self._clock()
        accepted = progress.accepted
        envelope = accepted.envelope
        host, limit = self._reporter.host, self._reporter.return_limit
        template = self._reporter.templates[TEMPLATE_NAMES[kind]]
        new = self._queue.create(Envelope(None, (Recipient(to, str(to)),)), now, origin)
        report = Report(
            kind=kind,
            reporting_mta=host,
            queue_id=message.queue_id,
            recipient=str(to),
            sender=str(envelope.sender or ""),
            recipients=tuple(_recipient(progress, leaf, kind) for leaf in leaves),
            content=message.read_head(limit + 1),
            arrival=accepted.arrival,
            now=now,
            message_id=f"{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}.{new.queue_id}@{host}",
            envid=envelope.envid,
            smtputf8=envelope.smtputf8,
            return_full=envelope.ret != "HDRS" and kind is Kind.FAILED and not is_copy,
            retry_until=until,
            return_limit=limit,
            zone_minutes=time.localtime(now).tm_gmtoff // 60,
            subject=template.postmaster_subject if origin == "double-bounce" else "",
            template=template,
        )
        new.write(received_field(host, self._reporter.mail_name, new.queue_id, now))
        new.write(build_report(report))
        if report.needs_utf8:
            new.envelope = Envelope(None, new.envelope.recipients, smtputf8=True)
        return new.commit()


def received_field(host: str, mail_name: str, queue_id: str, now: float) -> bytes:
    """The Received: field of a message that this server makes itself, with its line end."""
    date = format_date(now, time.localtime(now).tm_gmtoff // 60)
    return f"Received: by {host} ({mail_name})\n\tid {queue_id}; {date}\n".encode()


def sender_of(progress: Progress, leaf: int) -> str:
    """The envelope sender that a leaf is delivered with: owner-alias, or the message's; "" is `<>`."""
    own = progress.leaves[leaf].sender
    return str(progress.sender or "") if own is None else own


def _wants(recipient: Recipient, condition: str) -> bool:
    """Whether a report on that condition is wanted: without NOTIFY, yes. RFC 3461 §4.1."""
    return not recipient.notify or condition in recipient.notify


def _success_kind(kind: LeafKind, outcome: Outcome | None) -> Kind:
    if kind is LeafKind.REMOTE and not (outcome is not None and outcome.is_final):
        return Kind.RELAYED
    return Kind.EXPANDED if kind is LeafKind.FORWARD else Kind.DELIVERED


def _address(text: str, domain: str) -> Address | None:
    """The address that a report goes to; None where there is none, or none that can be written to."""
    try:
        address = parse_lenient(text)
    except AddressError:
        return None
    return address if address.domain else Address(address.local, domain)


def _recipient(progress: Progress, leaf: int, kind: Kind) -> RecipientReport:
    root = progress.root(leaf)
    outcome = progress.outcomes[leaf] or Outcome(Status.DEFERRED, "4.0.0", "unknown")
    address = str(progress.leaves[leaf].recipient)
    original = root.orcpt
    expanded_from = root.original if root.original.lower() != address.lower() else ""
    if not original and expanded_from:
        original = f"rfc822;{expanded_from}"
    host = outcome.relay.partition("[")[0] if outcome.remote else ""
    text = outcome.remote or outcome.text
    if kind is not Kind.TRACED:
        return RecipientReport(address, outcome.dsn, text, original, host, expanded_from)
    via = "" if outcome.relay == "none" else outcome.relay
    action = _traced_action(progress, leaf, outcome.status)
    return RecipientReport(address, outcome.dsn, text, original, host, expanded_from, action, via)


def _traced_action(progress: Progress, leaf: int, status: Status) -> str:
    """The Action of a leaf that was tried, or would be. bounce(8)."""
    if progress.accepted.envelope.trace == "verify":
        return "deliverable" if status is Status.DELIVERED else "undeliverable"
    if status is Status.DELIVERED:
        goes_on = progress.leaves[leaf].kind in (LeafKind.REMOTE, LeafKind.FORWARD)
        return "relayed" if goes_on else "delivered"
    return "failed" if status is Status.FAILED else "delayed"
