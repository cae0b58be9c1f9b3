"""The parts of an attempt that block: expansion, local delivery, .forward to a new message.

Everything here runs in a thread, for one message whose lock the caller holds.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.delivery.expand import CannotExpandNow, PutOff, expand
from mailserver.delivery.plan import Leaf, LeafKind
from mailserver.envelope import Outcome, Recipient, Status
from mailserver.queue.bounce import received_field, sender_of
from mailserver.queue.file import QueueFile
from mailserver.queue.jobs import field_text, job_for, named
from mailserver.queue.progress import Progress, expanded_record, outcome_record
from mailserver.queue.record import Record
from mailserver.queue.services import Services
from mailserver.tables.table import TableError
from mailserver.wire.address import parse_sender

HEADER_LIMIT: Final = 1 << 17  # octets of header in which Delivered-To: counts
WAITS_FOR_FLUSH: Final = Outcome.deferred("deferred transport", "4.3.2", relay="none")
_PIECE: Final = 1 << 16
_DELIVERED_TO: Final = re.compile(rb"^delivered-to:[ \t]*([^\n]*)", re.IGNORECASE | re.MULTILINE)


def delivered_to(head: bytes) -> frozenset[str]:
    """The addresses in the Delivered-To: fields of the content that begins so, in lower case."""
    head = head[:HEADER_LIMIT]
    end = head.find(b"\n\n")
    header = head if end < 0 else head[: end + 1]
    if b"elivered-" not in header and b"ELIVERED-" not in header:
        return frozenset()
    return frozenset(
        found.strip().strip(b"<>").decode("utf-8", "replace").lower()
        for found in _DELIVERED_TO.findall(header)
    )


def filtered(leaf: Leaf, content_filter: str) -> Leaf:
    """The leaf's mail goes to the filter as it came. FILTER_README."""
    transport, _, nexthop = content_filter.partition(":")
    kind = LeafKind.DISCARD if transport == "discard" else LeafKind.REMOTE
    return replace(leaf, kind=kind, transport=transport, target=nexthop or leaf.recipient.domain)


class LocalWork:
    """The blocking half of one attempt."""

    def __init__(
        self, services: Services, message: QueueFile, progress: Progress, is_flushed: bool = False
    ) -> None:
        """Where it `is_flushed` the mail of defer_transports is delivered too."""
        self._services = services
        self._deferred = frozenset() if is_flushed else services.defer_transports
        self._message = message
        self._progress = progress
        self.made: list[QueueFile] = []  # new messages of .forward files, for the runner

    # ------------------------------------------------------------ expansion

    def expand_all(self, pending: Sequence[int]) -> None:
        """Every PENDING leaf has its leaves, or an outcome; the journal says so. Raises OSError.

        A leaf that becomes exactly one other is not journaled: should that one be deferred, the next
        attempt looks again, and a corrected alias counts.
        """
        if content_filter := self._progress.accepted.envelope.content_filter:
            for number in pending:
                self._progress.leaves[number] = filtered(self._progress.leaves[number], content_filter)
            return
        already = delivered_to(self._message.read_head(HEADER_LIMIT))
        if not self._rewrite_sender(pending):
            return
        for number in pending:
            try:
                if self._deferred and self._waits_for_flush(self._progress.leaves[number]):
                    self._settle_waiting(number)
                    continue
                plan = expand(
                    self._progress.leaves[number],
                    routing=self._services.routing,
                    rules=self._services.rules,
                    lookups=self._services.lookups,
                    already_delivered_to=already,
                    sender=self._progress.sender,
                )
            except PutOff as error:
                self._settle_deferred(number, Outcome.deferred(error.text, error.dsn, relay="none"))
                continue
            except (CannotExpandNow, TableError, TemporaryAccountFailure, OSError) as error:
                self._defer(number, error, "temporary lookup failure")
                continue
            except Exception as error:  # our own bug is never a permanent answer (P5)
                self._log_bug(error)
                self._defer(number, error, "internal error")
                continue
            for warning in plan.warnings:
                self._services.log.write("local", f"warning: {warning}")
            self._replace(number, plan.leaves)

    def held_back(self, numbers: Sequence[int]) -> list[int]:
        """Those of the leaves that wait for a flush; they have their outcome."""
        if not self._deferred:
            return []
        found = [number for number in numbers if self._is_held_back(number)]
        for number in found:
            self._settle_waiting(number)
        return found

    def _is_held_back(self, number: int) -> bool:
        try:
            return self._waits_for_flush(self._progress.leaves[number])
        except (TableError, TemporaryAccountFailure):
            return True  # whoever cannot know does not deliver

    def _waits_for_flush(self, leaf: Leaf) -> bool:
        if leaf.kind in (LeafKind.REMOTE, LeafKind.DISCARD):
            return leaf.transport in self._deferred
        if leaf.kind is LeafKind.FAILED:
            return False
        return (
            self._services.routing.resolve(leaf.recipient, self._progress.sender).transport in self._deferred
        )

    def _settle_waiting(self, number: int) -> None:
        self._settle_deferred(number, WAITS_FOR_FLUSH)

    def _rewrite_sender(self, pending: Sequence[int]) -> bool:
        """The sender is what sender_canonical_maps makes of it; where they cannot be read, all waits."""
        sender = self._progress.accepted.envelope.sender
        if sender is None:
            return True
        try:
            self._progress.sender = self._services.routing.canonical_sender(sender)
        except TableError as error:
            for number in pending:
                self._defer(number, error, "temporary lookup failure")
            return False
        return True

    def _replace(self, number: int, leaves: Sequence[Leaf]) -> None:
        progress = self._progress
        if len(leaves) == 1:
            progress.leaves[number] = leaves[0]
            self._note_waiting(number)
            return
        record = expanded_record(number, leaves)
        self._message.append([record])
        first = len(progress.leaves)
        progress.apply(record)
        for new in range(first, len(progress.leaves)):
            self._note_waiting(new)

    def _note_waiting(self, number: int) -> None:
        """A leaf that is PENDING after its expansion must wait; it carries the reason."""
        leaf = self._progress.leaves[number]
        if leaf.kind is LeafKind.PENDING:
            self._progress.leaves[number] = replace(leaf, target="")
            self._defer(number, leaf.target, "temporary lookup failure")

    def _defer(self, number: int, cause: object, text: str) -> None:
        recipient = self._progress.leaves[number].recipient
        self._services.log.write("local", f"warning: {self._message.queue_id}: {recipient}: {text}: {cause}")
        self._settle_deferred(number, Outcome.deferred(text, "4.3.0"))

    def _settle_deferred(self, number: int, outcome: Outcome) -> None:
        self.record_outcomes({number: outcome})
        self._progress.settle(number, outcome)

    def _log_bug(self, error: Exception) -> None:
        for line in "".join(traceback.format_exception(error)).splitlines():
            self._services.log.write("qmgr", f"error: {self._message.queue_id}: {line}")

    # ------------------------------------------------------------ delivery

    def deliver(self, number: int, is_last: bool) -> Outcome:
        """One leaf is done or not, and the journal says so. Never raises.

        Where it `is_last` and delivered, the message leaves the queue at once, without a record.
        """
        leaf = self._progress.leaves[number]
        try:
            outcome = (
                self._forward(number, leaf) if leaf.kind is LeafKind.FORWARD else self._perform(number, leaf)
            )
        except OSError as error:
            self._services.log.write("local", f"warning: {self._message.queue_id}: {error}")
            outcome = Outcome.deferred("local delivery error", "4.3.0")
        except Exception as error:  # our own bug is never a permanent answer (P5)
            self._log_bug(error)
            outcome = Outcome.deferred("internal error", "4.3.0")
        outcome = self._services.judged(outcome)
        if not (is_last and outcome.status is Status.DELIVERED and self._remove()):
            self.record_outcomes({number: outcome})
        return outcome

    def record_outcomes(self, outcomes: Mapping[int, Outcome]) -> None:
        """The journal knows the outcomes that are news."""
        news = [
            outcome_record(number, outcome)
            for number, outcome in outcomes.items()
            if self._progress.is_news(number, outcome)
        ]
        if news:
            self.record(news)

    def _remove(self) -> bool:
        try:
            self._services.queue.remove(self._message)
        except OSError as error:
            self._services.log.write("qmgr", f"warning: remove {self._message.path}: {error.strerror}")
            return False
        return True

    def record(self, records: Sequence[Record], durable: bool = False) -> bool:
        """Whether the journal took the records; where not, memory still knows, and the log says so."""
        try:
            self._message.append(records, durable)
        except OSError as error:
            self._services.log.write("qmgr", f"warning: write {self._message.path}: {error.strerror}")
            return False
        return True

    def _perform(self, number: int, leaf: Leaf) -> Outcome:
        message = self._message
        job = job_for(
            self._services,
            self._progress,
            number,
            message.queue_id,
            message.content_offset,
            message.content_length,
        )
        return named(self._services.agents.perform(job, message.descriptor), leaf)

    def _forward(self, number: int, leaf: Leaf) -> Outcome:
        """The message goes on to a .forward's addresses as a new one, durable before this is done."""
        services, message = self._services, self._message
        accepted = self._progress.accepted
        root = self._progress.root(number)
        sender = sender_of(self._progress, number)
        notify = root.notify - {"SUCCESS"} or (frozenset({"NEVER"}) if root.notify else root.notify)
        recipients = tuple(Recipient(each, root.original, notify, root.orcpt) for each in leaf.addresses)
        envelope = replace(accepted.envelope, sender=parse_sender(sender), recipients=recipients, trace="")
        now = services.clock()
        new = services.queue.create(envelope, now, "forward")
        new.write(received_field(services.host, services.mail_name, new.queue_id, now))
        new.write(b"Delivered-To: %s\n" % field_text(str(leaf.delivered_to or leaf.recipient)))
        position = 0
        while position < message.content_length:
            piece = message.read_content(position, _PIECE)
            position += len(piece)
            new.write(piece)
            if new.wants_flush:
                new.flush()
        self.made.append(new.commit())
        return Outcome.delivered(f"forwarded as {new.queue_id}")
