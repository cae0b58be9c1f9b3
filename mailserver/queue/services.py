"""What an attempt to deliver needs from the rest of the server, in one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from mailserver.delivery.job import Agents
from mailserver.delivery.lookups import LocalRules, Lookups
from mailserver.delivery.routing import Routing
from mailserver.delivery.transport import NoRelay, Transport
from mailserver.envelope import Outcome, Status
from mailserver.maillog import MailLog
from mailserver.queue.bounce import Bounces
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.schedule import RetryTimes
from mailserver.queue.slots import Slots, Suspensions
from mailserver.threads import Threads

LOCAL_CONCURRENCY: Final = 2  # local_destination_concurrency_limit: for each account
RECIPIENT_LIMIT: Final = 50  # default_destination_recipient_limit: of one delivery
REMOTE_CONCURRENCY: Final = 20  # default_destination_concurrency_limit: for each next hop


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Given once by `tap`. `clock` is wall-clock seconds.

    `delivered` is called in the reactor's thread with the path of a mailbox that got mail.
    `mailbox_size_limit` 0 means none; `command_time_limit` is in seconds. `quota_rules` hold where an
    account has none of its own. Mail of `defer_transports` waits until somebody flushes the queue.
    `environment` is for commands (export_environment). With `soft_bounce` nothing is returned: all
    that fails waits, for as long as the parameter is set.
    """

    queue: QueueDirectory
    threads: Threads
    log: MailLog
    clock: Callable[[], float]
    routing: Routing
    rules: LocalRules
    lookups: Lookups
    agents: Agents
    bounces: Bounces
    host: str
    mail_name: str = "Postfix"
    transport: Transport = field(default_factory=NoRelay)
    retry: RetryTimes = field(default_factory=RetryTimes)
    mailbox_size_limit: int = 51_200_000
    quota_rules: str = ""
    command_time_limit: int = 1000
    environment: tuple[tuple[str, str], ...] = ()
    soft_bounce: bool = False
    defer_transports: frozenset[str] = frozenset()
    enable_original_recipient: bool = True
    delivered: Callable[[str], None] = lambda path: None
    account_slots: Slots = field(default_factory=lambda: Slots(LOCAL_CONCURRENCY))
    destination_slots: Slots = field(default_factory=lambda: Slots(REMOTE_CONCURRENCY))
    suspensions: Suspensions = field(default_factory=Suspensions)
    recipient_limit: Callable[[str], int] = lambda transport: RECIPIENT_LIMIT

    def judged(self, outcome: Outcome) -> Outcome:
        """The outcome that counts: with soft_bounce a failure is a delay, 5.x.y becomes 4.x.y."""
        if not self.soft_bounce or outcome.status is not Status.FAILED:
            return outcome
        return replace(outcome, status=Status.DEFERRED, dsn=f"4{outcome.dsn[1:]}")
