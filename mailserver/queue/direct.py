"""Delivery before the reply: a message goes straight into the one mailbox it is for, past the queue.

Most mail is for one mailbox of this host. Where all mail has one owner, whoever receives it may write
there, and a mailbox is as durable as the queue. So such a message is written and synced once, in one
visit to a thread, and the log says what the queue would have said. Messages that come for a recipient
while one is being written wait, and then go together: one lock, one sync of the directory or of the mbox.
A large one goes by itself, out of the queue file where it was gathered, which nobody syncs.

Whatever stands in the way (several recipients, an alias for several, a .forward, a command, a filter,
a report that is wanted, a full mailbox, a lock that somebody holds, an error) is left to the queue: then
nothing of the message is in the mailbox. A crash before the reply leaves nothing, or a copy that nobody
acknowledged.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from mailserver.delivery.job import Job
from mailserver.envelope import Outcome
from mailserver.queue.batches import Batches
from mailserver.queue.file import QueueFile
from mailserver.queue.incoming import IncomingMessage
from mailserver.queue.jobs import named
from mailserver.queue.local import HEADER_LIMIT, delivered_to
from mailserver.queue.log_lines import Times, active_line, local_service, outcome_line
from mailserver.queue.mailbox_plans import MailboxPlan, MailboxPlans
from mailserver.queue.record import HEADER_SIZE
from mailserver.queue.services import Services

MOST_AT_ONCE: Final = 32  # messages for one recipient in one visit to a thread
LOCK_PATIENCE: Final = 0.05  # seconds
PATIENCE: Final = 2.0  # seconds that a message waits for those before it


class MailboxWriter(Protocol):
    """`mailserver.delivery.local.LocalAgents`, with little patience for locks. Blocking."""

    def deposit(self, mail: Sequence[tuple[Job, bytes | int]]) -> Outcome | None:
        """All of the messages are durable in the mailbox that their jobs name; or none, and None.

        Contents are octets, or in the descriptor of a file where the job says.
        """


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message that lies in its mailbox. `lines` (service, text) are for the log.

    `tell` tells whoever has the mailbox open.
    """

    queue_id: str
    lines: Sequence[tuple[str, str]]
    tell: Callable[[], None]


@dataclass(slots=True)
class _Delivery:
    """A message on its way into a mailbox, or, without an `outcome` in the end, into the queue.

    `plan` is there where it is for one mailbox. `slot` is the account's that was taken for it.
    """

    message: IncomingMessage
    began: float
    plan: MailboxPlan | None = None
    slot: str | None = None
    outcome: Outcome | None = None
    end: float = 0.0
    queued: QueueFile | None = None
    failure: OSError | None = None  # why it could not even be queued


class DirectDelivery:
    """Takes messages in, and delivers at once what it can. For the reactor's thread, an IReactorTime."""

    def __init__(self, services: Services, writer: MailboxWriter, reactor: Any) -> None:
        self._services = services
        self._writer = writer
        self._plans = MailboxPlans(services)
        self._batches = Batches(reactor, services.threads, self._deliver, MOST_AT_ONCE, PATIENCE)

    async def take(self, message: IncomingMessage) -> QueueFile | Delivered:
        """The message is durable, in its mailbox or in the queue. Raises OSError: nothing of it is left."""
        services = self._services
        if _may_be_direct(message):
            key = str(message.envelope.recipients[0].address).lower()
            if not message.is_in_memory:
                key = f"{key} {message.queue_id}"  # a batch of its own
                await services.threads.run(message.flush)
            delivery = await self._batches.run(key, message)
            if delivery is not None:
                if delivery.slot is not None:
                    services.account_slots.release(delivery.slot)
                if delivery.plan is not None and delivery.outcome is not None:
                    return self._delivered(message, delivery, delivery.plan, delivery.outcome)
                if delivery.failure is not None:
                    raise delivery.failure
                if delivery.queued is not None:
                    return delivery.queued
        return await services.threads.run(message.commit)

    def _delivered(
        self, message: IncomingMessage, delivery: _Delivery, plan: MailboxPlan, outcome: Outcome
    ) -> Delivered:
        leaf = plan.leaf
        queue_id, accepted = message.queue_id, message.accepted
        times = Times(accepted.arrival, delivery.began, delivery.began, delivery.end)
        line = outcome_line(queue_id, leaf.recipient, plan.original, outcome, times)
        lines = (
            ("qmgr", active_line(queue_id, accepted.envelope, message.octets)),
            (local_service(outcome), line),
            ("qmgr", f"{queue_id}: removed"),
        )
        return Delivered(queue_id, lines, partial(self._services.delivered, leaf.target))

    # ------------------------------------------------------------ in a thread

    def _deliver(self, messages: Sequence[IncomingMessage]) -> Sequence[_Delivery]:
        """What could be delivered has an outcome. Never raises but for bugs; *blocking*."""
        plans: dict[object, MailboxPlan | None] = {}  # what holds for one holds for all that came by now
        deliveries = [self._planned(message, plans) for message in messages]
        for group in _by_mailbox(deliveries):
            slot = group[0][1].job.owner.name
            if not self._services.account_slots.try_take(slot):
                continue
            group[0][0].slot = slot
            self._write(group)
        if len(deliveries) == 1 and deliveries[0].outcome is None:
            _queue(deliveries[0])  # several are better queued by several threads
        return deliveries

    def _planned(self, message: IncomingMessage, plans: dict[object, MailboxPlan | None]) -> _Delivery:
        """With a plan where the message is for one mailbox, and there is nothing to be said about that."""
        delivery = _Delivery(message, self._services.clock())
        with contextlib.suppress(Exception):  # the queue meets it again, and says so
            message.complete()
            if _may_be_direct(message) and not self._services.defer_transports:
                already = delivered_to(message.head(HEADER_LIMIT))
                accepted = message.accepted
                key = accepted.envelope.recipients, accepted.envelope.sender, already
                if key not in plans:
                    plans[key] = self._plans.find(accepted, already)
                delivery.plan = plans[key]
        return delivery

    def _write(self, group: _Group) -> None:
        try:
            outcome = self._writer.deposit([_with_content(each.message, plan.job) for each, plan in group])
        except Exception:  # the queue meets it again, and says so
            return
        end = self._services.clock()
        for each, plan in group:
            if outcome is not None:
                each.outcome = named(outcome, plan.leaf)
                if not each.message.is_in_memory:
                    each.message.discard()
            each.end = end


_Group = Sequence[tuple[_Delivery, MailboxPlan]]


def _with_content(message: IncomingMessage, job: Job) -> tuple[Job, bytes | int]:
    content = message.content()
    if isinstance(content, int):
        job = replace(job, content_offset=HEADER_SIZE, content_length=message.octets)
    return job, content


def _queue(delivery: _Delivery) -> None:
    try:
        delivery.queued = delivery.message.commit()
    except OSError as error:
        delivery.failure = error


def _may_be_direct(message: IncomingMessage) -> bool:
    """Whether what is known of the message lets it go without the queue."""
    envelope = message.envelope
    return (
        len(envelope.recipients) == 1
        and not message.is_held
        and not envelope.content_filter
        and "SUCCESS" not in envelope.recipients[0].notify
    )


def _by_mailbox(deliveries: Sequence[_Delivery]) -> Iterable[_Group]:
    """Those that have a plan, for each mailbox together; a quota is judged for each by itself."""
    groups: dict[object, list[tuple[_Delivery, MailboxPlan]]] = defaultdict(list)
    for each in deliveries:
        if each.plan is not None:
            job = each.plan.job
            own = each.message.queue_id if job.quota else ""
            groups[job.target, job.owner, own].append((each, each.plan))
    return groups.values()
