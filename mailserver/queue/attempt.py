"""One attempt to deliver one message: expand, deliver every open leaf, conclude.

A message that only verifies (sendmail -bv) goes the same way up to each delivery; then its sender hears what
would become of it, and it is gone.

The journal is ahead of every act that cannot be undone: an expansion into several leaves is
written before any of them is delivered, an outcome right after its delivery, in the same
thread. A crash in between repeats that delivery, and loses none. A message leaves the queue
when each leaf is delivered, or failed and reported to its sender.

Whatever goes wrong with one message stays with that message: it is deferred, and the log says why.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from mailserver.delivery.plan import Leaf, LeafKind
from mailserver.delivery.transport import Outgoing
from mailserver.envelope import Outcome, Recipient, Status
from mailserver.queue.bounce import Sent, sender_of
from mailserver.queue.directory import State
from mailserver.queue.file import QueueFile
from mailserver.queue.jobs import ACTIONS, named
from mailserver.queue.local import WAITS_FOR_FLUSH, LocalWork
from mailserver.queue.log_lines import Times, active_line, local_service, outcome_line
from mailserver.queue.progress import Progress
from mailserver.queue.record import Record
from mailserver.queue.schedule import is_expired, next_attempt, wants_warning
from mailserver.queue.services import Services
from mailserver.tables.table import TableError
from mailserver.wire.address import parse_sender

_LOCAL_KINDS = frozenset(ACTIONS) | {LeafKind.FORWARD}


class Attempt:
    """One attempt. `submit` takes messages that come into being on the way (bounces, forwards).

    `is_stopping` says whether the server goes down: then no further leaf is begun. `is_flushed`: somebody
    asked for this attempt, and defer_transports do not count.
    """

    def __init__(
        self,
        services: Services,
        message: QueueFile,
        submit: Callable[[QueueFile], None],
        is_stopping: Callable[[], bool] = lambda: False,
        is_flushed: bool = False,
    ) -> None:
        self._services = services
        self._message = message
        self._submit = submit
        self._is_stopping = is_stopping
        self._progress = Progress(message.accepted, message.records)
        self._work = LocalWork(services, message, self._progress, is_flushed)
        self._only_verifies = message.accepted.envelope.trace == "verify"
        self._began = services.clock()
        self._slot: str | None = None  # taken in the thread of `_expand_in_thread`
        self._tried: set[int] = set()

    async def run(self) -> float | None:
        """The message is out of the queue (None), or waits until the time given. The file is closed.

        Never raises.
        """
        try:
            self._log_active()
            if not self._progress.is_forced_to_expire:
                await self._expand()
                await self._deliver()
            return await self._conclude()
        except Exception as error:  # one poison message never stops the others (P9)
            for line in "".join(traceback.format_exception(error)).splitlines():
                self._services.log.write("qmgr", f"error: {self._message.queue_id}: {line}")
            return self._services.clock() + self._services.retry.minimum
        finally:
            for made in self._work.made:
                self._submit(made)
            self._message.close()

    # ------------------------------------------------------------ expansion

    async def _expand(self) -> None:
        pending = [
            number
            for number in self._progress.open_leaves()
            if self._progress.leaves[number].kind is LeafKind.PENDING
        ]
        if not pending:
            return
        try:
            done = await self._services.threads.run(self._expand_in_thread, pending)
        finally:
            if self._slot is not None:
                self._services.account_slots.release(self._slot)
        for number in range(len(self._progress.leaves)):
            if self._progress.leaves[number].kind is LeafKind.PENDING and self._progress.is_open(number):
                outcome = self._progress.outcomes[number]
                if outcome is not None:
                    self._log_outcome(number, outcome, self._began)
        if done is not None:
            number, outcome = done
            self._tried.add(number)
            self._note(number, outcome, self._began)

    def _expand_in_thread(self, pending: Sequence[int]) -> tuple[int, Outcome] | None:
        """*Blocking.* The usual message, with one local leaf, is delivered in the same visit."""
        self._work.expand_all(pending)
        open_leaves = self._progress.open_leaves()
        if len(open_leaves) != 1 or self._services.defer_transports or self._only_verifies:
            return None
        number = open_leaves[0]
        leaf = self._progress.leaves[number]
        if leaf.kind not in _LOCAL_KINDS:
            return None
        key = _account_key(leaf)
        if not self._services.account_slots.try_take(key):
            return None
        self._slot = key
        return number, self._work.deliver(number, self._is_last(number))

    def _is_last(self, number: int) -> bool:
        """Whether nothing is left to be done for the message once this leaf is delivered."""
        progress = self._progress
        return (
            progress.open_count == 1
            and progress.is_open(number)
            and "SUCCESS" not in progress.root(number).notify
            and not progress.accepted.envelope.trace
            and not progress.unreported(Status.FAILED)
            and not self._successes()
        )

    # ------------------------------------------------------------ delivery

    async def _deliver(self) -> None:
        remote: dict[tuple[str, str, str, bool], list[int]] = defaultdict(list)
        tasks: list[Deferred[None]] = []
        held_back = await self._hold_back()
        for number in self._progress.open_leaves():
            leaf = self._progress.leaves[number]
            if number in held_back:
                self._log_outcome(number, WAITS_FOR_FLUSH, self._services.clock())
            elif leaf.kind in _LOCAL_KINDS:
                if self._only_verifies:
                    self._note(number, named(Outcome.delivered(_intention(leaf)), leaf), self._began)
                elif number not in self._tried:
                    tasks.append(Deferred.fromCoroutine(self._deliver_local(number, leaf)))
            elif leaf.kind is LeafKind.REMOTE:
                key = (
                    leaf.transport,
                    leaf.target,
                    sender_of(self._progress, number),
                    self._is_forwarded(number),
                )
                remote[key].append(number)
            elif leaf.kind is not LeafKind.PENDING:
                self._settle(number, leaf)
        for (transport, nexthop, sender, _), numbers in remote.items():
            limit = self._services.recipient_limit(transport) or len(numbers)
            for first in range(0, len(numbers), limit):
                part = numbers[first : first + limit]
                tasks.append(Deferred.fromCoroutine(self._deliver_remote(transport, nexthop, sender, part)))
        for success, result in await DeferredList(tasks, consumeErrors=True):
            if not success:
                cast(Failure, result).raiseException()

    async def _hold_back(self) -> frozenset[int]:
        """The expanded leaves that wait until the queue is flushed. defer_transports."""
        if not self._services.defer_transports:
            return frozenset()
        leaves = self._progress.leaves
        numbers = [n for n in self._progress.open_leaves() if leaves[n].kind is not LeafKind.PENDING]
        return frozenset(await self._services.threads.run(self._work.held_back, numbers))

    def _is_forwarded(self, number: int) -> bool:
        """Whether we, and not the sender, chose this recipient."""
        progress = self._progress
        own, first = progress.leaves[number].recipient, progress.root(number).address
        return progress.accepted.origin == "forward" or str(own).lower() != str(first).lower()

    def _settle(self, number: int, leaf: Leaf) -> None:
        """A leaf that needs no delivery has its outcome."""
        if leaf.kind is LeafKind.DISCARD:
            outcome = Outcome.delivered(leaf.target or leaf.transport, relay="none")
        else:
            is_ours = leaf.dsn in ("5.1.1", "5.4.6", "5.7.1")
            outcome = Outcome.failed(leaf.target, leaf.dsn, relay="local" if is_ours else "none")
        outcome = self._services.judged(outcome)
        self._work.record_outcomes({number: outcome})
        self._note(number, outcome, self._services.clock())

    async def _deliver_local(self, number: int, leaf: Leaf) -> None:
        key = _account_key(leaf)
        await self._services.account_slots.take(key)
        try:
            if self._is_stopping():
                return
            began = self._services.clock()
            is_last = self._is_last(number)
            outcome = await self._services.threads.run(self._work.deliver, number, is_last)
            self._note(number, outcome, began)
        finally:
            self._services.account_slots.release(key)

    async def _deliver_remote(self, transport: str, nexthop: str, sender: str, numbers: list[int]) -> None:
        key = f"{transport}:{nexthop.lower()}"
        await self._services.destination_slots.take(key)
        try:
            if self._is_stopping():
                return
            began = self._services.clock()
            suspended = self._services.suspensions.outcome(key, began)
            if suspended is not None:
                outcomes: Sequence[Outcome] = [suspended] * len(numbers)
            else:
                outcomes = await self._hand_over(transport, nexthop, sender, numbers)
                self._suspend_unreachable(key, outcomes)
        finally:
            self._services.destination_slots.release(key)
        by_number = dict(zip(numbers, outcomes, strict=True))
        self._work.record_outcomes(by_number)
        for number, outcome in by_number.items():
            self._progress.settle(number, outcome)
        self._log_outcomes(by_number, began)

    async def _hand_over(
        self, transport: str, nexthop: str, sender: str, numbers: list[int]
    ) -> Sequence[Outcome]:
        try:
            mail = self._outgoing(transport, nexthop, sender, numbers)
        except TableError as error:
            self._services.log.write("qmgr", f"warning: {self._message.queue_id}: {error}")
            return [Outcome.deferred("temporary lookup failure", "4.3.0")] * len(numbers)
        return list(map(self._services.judged, await self._services.transport.deliver(mail)))

    def _suspend_unreachable(self, key: str, outcomes: Sequence[Outcome]) -> None:
        """A next hop that nobody was spoken to at is left alone for minimal_backoff_time."""
        if all(each.status is Status.DEFERRED and each.relay == "none" for each in outcomes):
            until = self._services.clock() + self._services.retry.minimum
            self._services.suspensions.suspend(key, outcomes[0], until)

    def _outgoing(self, transport: str, nexthop: str, sender: str, numbers: Sequence[int]) -> Outgoing:
        message = self._message
        recipients = tuple(self._remote_recipient(number) for number in numbers)
        envelope = message.accepted.envelope
        address = parse_sender(sender)
        if address is not None and self._is_forwarded(numbers[0]):
            address = self._services.routing.sender_for(address, recipients[0].address)
        if str(address or "") != str(envelope.sender or ""):
            envelope = replace(envelope, sender=address)
        return Outgoing(
            queue_id=message.queue_id,
            transport=transport,
            nexthop=nexthop,
            envelope=replace(envelope, recipients=recipients),
            descriptor=message.descriptor,
            content_offset=message.content_offset,
            content_length=message.content_length,
            is_probe=self._only_verifies,
        )

    def _remote_recipient(self, number: int) -> Recipient:
        root = self._progress.root(number)
        return Recipient(self._progress.leaves[number].recipient, root.original, root.notify, root.orcpt)

    # ------------------------------------------------------------ outcomes

    def _note(self, number: int, outcome: Outcome, began: float) -> None:
        """The outcome is known in memory and in the log; the journal has it already, where it must."""
        self._progress.settle(number, outcome)
        self._log_outcome(number, outcome, began)
        leaf = self._progress.leaves[number]
        if leaf.kind is LeafKind.MAILBOX and outcome.status is Status.DELIVERED and not self._only_verifies:
            self._services.delivered(leaf.target)

    def _successes(self) -> list[int]:
        return [
            number
            for number in self._progress.unreported(Status.DELIVERED)
            if "SUCCESS" in self._progress.root(number).notify and not self._reports_itself(number)
        ]

    def _reports_itself(self, number: int) -> bool:
        outcome = self._progress.outcomes[number]
        return outcome is not None and outcome.reports_itself

    async def _conclude(self) -> float | None:
        """The senders know what they must, and the message is removed or waits."""
        if self._message.descriptor < 0:  # removed with its last delivery
            self._services.log.write("qmgr", f"{self._message.queue_id}: removed")
            return None
        if self._is_stopping() and self._progress.open_count:
            return self._services.clock()
        if not self._only_verifies:
            self._expire()
        sent = await self._services.threads.run(self._trace if self._only_verifies else self._report)
        for report in sent:
            self._services.log.write("bounce", report.line)
            self._submit(report.message)
        if self._progress.open_count and not self._only_verifies:
            return await self._services.threads.run(self._postpone)
        await self._services.threads.run(self._services.queue.remove, self._message)
        self._services.log.write("qmgr", f"{self._message.queue_id}: removed")
        return None

    def _expire(self) -> None:
        """Open leaves of a message that is too old have failed."""
        accepted, progress = self._progress.accepted, self._progress
        is_bounce = accepted.envelope.sender is None
        now = self._services.clock()
        status, reason = "force-expired", "message is administratively expired"
        if not progress.is_forced_to_expire:
            if not is_expired(accepted.arrival, progress.last_attempt, now, is_bounce, self._services.retry):
                return
            status, reason = "expired", "delivery time expired"
        open_leaves = progress.open_leaves() if not self._services.soft_bounce else []
        if open_leaves:
            sender = accepted.envelope.sender or ""
            line = f"{self._message.queue_id}: from=<{sender}>, status={status}, returned to sender"
            self._services.log.write("qmgr", line)
        for number in open_leaves:
            last = progress.outcomes[number] or Outcome.deferred(reason, "4.4.7")
            progress.settle(number, replace(last, status=Status.FAILED))

    def _report(self) -> list[Sent]:
        """*Blocking.* The reports are in the queue, and the journal knows."""
        bounces, message, progress = self._services.bounces, self._message, self._progress
        failures, successes = progress.unreported(Status.FAILED), self._successes()
        sent = self._trace() if progress.accepted.envelope.trace and not progress.attempts else []
        if failures:
            sent += bounces.failed(message, progress, failures)
        if successes:
            sent += bounces.succeeded(message, progress, successes)
        told = [*failures, *successes]
        waiting = progress.open_leaves()
        records: list[Record] = []
        if told:
            records.append(["reported", told])
        now, retry = self._services.clock(), self._services.retry
        if waiting and not progress.is_warned and wants_warning(progress.accepted.arrival, now, retry):
            until = progress.accepted.arrival + retry.lifetime
            sent += bounces.delayed(message, progress, waiting, until)
            records.append(["warned"])
        if records:
            self._work.record(records)
        for record in records:
            progress.apply(record)
        return sent

    def _trace(self) -> list[Sent]:
        """*Blocking.* What became of each leaf, or would, is in a report to the sender."""
        return self._services.bounces.traced(self._message, self._progress, self._progress.tried())

    def _postpone(self) -> float:
        """*Blocking.* The message is in deferred, and its file says until when."""
        progress, message = self._progress, self._message
        now = self._services.clock()
        after = next_attempt(now, progress.attempts + 1, self._services.retry, self._is_locked_out())
        self._work.record([["attempt", now, after]], durable=True)
        message.set_next_attempt(after)
        self._services.queue.move(message, State.DEFERRED)
        return after

    def _is_locked_out(self) -> bool:
        """Whether what waits here waits for a mailbox that somebody else had locked."""
        outcomes = (self._progress.outcomes[leaf] for leaf in self._progress.open_leaves())
        return any(outcome and outcome.relay == "local" and outcome.dsn == "4.2.0" for outcome in outcomes)

    # ------------------------------------------------------------ the log

    def _log_active(self) -> None:
        message, envelope = self._message, self._progress.accepted.envelope
        self._services.log.write("qmgr", active_line(message.queue_id, envelope, message.content_length))

    def _log_outcome(self, number: int, outcome: Outcome, began: float) -> None:
        self._log_outcomes({number: outcome}, began)

    def _log_outcomes(self, outcomes: Mapping[int, Outcome], began: float) -> None:
        """A line for each leaf that was tried from `began` until now."""
        times = Times(self._progress.accepted.arrival, self._began, began, self._services.clock())
        self._services.log.write_all(
            [self._outcome_line(number, outcome, times) for number, outcome in outcomes.items()]
        )

    def _outcome_line(self, number: int, outcome: Outcome, times: Times) -> tuple[str, str]:
        leaf, original = self._progress.leaves[number], self._progress.root(number).original
        queue_id, only_verifies = self._message.queue_id, self._only_verifies
        line = outcome_line(queue_id, leaf.recipient, original, outcome, times, only_verifies)
        return self._service(leaf, outcome), line

    def _service(self, leaf: Leaf, outcome: Outcome) -> str:
        """The name that the line is logged under: Postfix's daemon for such a delivery."""
        if leaf.kind is LeafKind.REMOTE and outcome != WAITS_FOR_FLUSH:
            return self._services.transport.service(leaf.transport)
        return local_service(outcome)


def _intention(leaf: Leaf) -> str:
    """What local(8) would do."""
    match leaf.kind:
        case LeafKind.COMMAND:
            return f"delivers to command: {leaf.target}"
        case LeafKind.FILE:
            return f"delivers to file: {leaf.target}"
        case LeafKind.FORWARD:
            return f"forwards to {', '.join(map(str, leaf.addresses))}"
    return "delivers to mailbox"


def _account_key(leaf: Leaf) -> str:
    return leaf.owner.name if leaf.owner is not None else ""
