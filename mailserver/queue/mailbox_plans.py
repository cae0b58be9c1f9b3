"""Where a message goes that is for one mailbox of this host alone: found out once, then remembered.

What was found for a sender and a recipient holds for the next message as long as nothing that it came of
has changed. Tables tell that by their version; accounts and .forward files are asked again each time, as the
question is as cheap as any way to know that the answer is the same. What depends on more (an :include:, a
table that does not tell its version, an SRS address, Delivered-To: fields in the message) is found out anew
for each message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mailserver.accounts.account import Account, AccountDirectory
from mailserver.delivery.expand import expand
from mailserver.delivery.job import Forward, Job, Owner
from mailserver.delivery.lookups import Lookups
from mailserver.delivery.plan import Leaf, LeafKind
from mailserver.envelope import Address
from mailserver.queue.jobs import job_for
from mailserver.queue.progress import Progress
from mailserver.queue.record import Accepted
from mailserver.queue.services import Services
from mailserver.tables.table import Entry, version_of

MOST_REMEMBERED: Final = 1000
_SRS: Final = "srs"  # how an address that depends on the day begins. `delivery.srs`

_Key = tuple[Address | None, Address, str]


@dataclass(frozen=True, slots=True)
class MailboxPlan:
    """A leaf that is a mailbox, and the job of a message for it; `original` is the address as it was given.

    The job says nothing of a single message: no queue id, no place of its content.
    """

    leaf: Leaf
    original: str
    job: Job


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A plan, and what it came of."""

    plan: MailboxPlan | None
    version: tuple[object, ...]
    accounts: Sequence[tuple[str, Account | None]]
    users: Sequence[tuple[str, Account | None]]  # asked of `Lookups.account`, not among `accounts`
    forwards: Sequence[tuple[Account, tuple[str, ...]]]  # there was none


class MailboxPlans:
    """The plans that were made, at most MOST_REMEMBERED. Safe to use from any thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tables = (*services.routing.tables, *services.rules.tables)
        self._remembered: dict[_Key, _Remembered] = {}

    def find(self, accepted: Accepted, already_delivered_to: frozenset[str]) -> MailboxPlan | None:
        """The plan for a message with one recipient; None where it is for anything but one mailbox.

        Nor is there one where something is to be said about it in the log. *Blocking.* Raises as `expand`.
        """
        if already_delivered_to:
            return self._made(self._services, accepted, already_delivered_to)
        envelope = accepted.envelope
        recipient = envelope.recipients[0]
        key = (envelope.sender, recipient.address, recipient.original)
        known = self._remembered.get(key)
        if known is not None and self._holds(known):
            return known.plan
        version = version_of(self._tables)  # first: what changes while we ask is another version
        if version is None or self._depends_on_the_day(recipient.address):
            return self._made(self._services, accepted, already_delivered_to)
        return self._learnt(key, version, accepted)

    def _depends_on_the_day(self, address: Address) -> bool:
        return self._services.routing.srs is not None and address.local.lower().startswith(_SRS)

    def _holds(self, known: _Remembered) -> bool:
        services = self._services
        lookups, look_up = services.lookups, services.routing.accounts.lookup
        return (
            known.version == version_of(self._tables)
            and all(look_up(name) == account for name, account in known.accounts)
            and all(lookups.account(name) == account for name, account in known.users)
            and not any(any(lookups.forward(account, paths)) for account, paths in known.forwards)
        )

    def _learnt(self, key: _Key, version: tuple[object, ...], accepted: Accepted) -> MailboxPlan | None:
        services = self._services
        accounts = _NotedAccounts(services.routing.accounts)
        lookups = _NotedLookups(services.lookups)
        noted = replace(services, routing=replace(services.routing, accounts=accounts), lookups=lookups)
        plan = self._made(noted, accepted, frozenset())
        if not lookups.has_read:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            users = [each for each in lookups.asked.items() if each not in accounts.asked.items()]
            self._remembered[key] = _Remembered(
                plan, version, tuple(accounts.asked.items()), users, tuple(lookups.forwards)
            )
        return plan

    def _made(
        self, services: Services, accepted: Accepted, already_delivered_to: frozenset[str]
    ) -> MailboxPlan | None:
        progress = Progress(accepted)
        if progress.sender is not None:
            progress.sender = services.routing.canonical_sender(progress.sender)
        plan = expand(
            progress.leaves[0],
            routing=services.routing,
            rules=services.rules,
            lookups=services.lookups,
            already_delivered_to=already_delivered_to,
            sender=progress.sender,
        )
        if len(plan.leaves) != 1 or plan.warnings or plan.leaves[0].kind is not LeafKind.MAILBOX:
            return None
        progress.leaves[0] = leaf = plan.leaves[0]
        return MailboxPlan(leaf, progress.root(0).original, job_for(services, progress, 0, "", 0, 0))


class _NotedAccounts:
    """An `AccountDirectory` that remembers what it was asked."""

    def __init__(self, accounts: AccountDirectory) -> None:
        self._accounts = accounts
        self.asked: dict[str, Account | None] = {}

    def lookup(self, name: str) -> Account | None:
        """See `AccountDirectory.lookup`."""
        self.asked[name] = found = self._accounts.lookup(name)
        return found

    def names(self) -> Iterator[str]:
        """See `AccountDirectory.names`."""
        return self._accounts.names()


class _NotedLookups:
    """`Lookups` that remember what they were asked; `has_read` a file that may be another one next time."""

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups
        self.asked: dict[str, Account | None] = {}
        self.forwards: list[tuple[Account, tuple[str, ...]]] = []
        self.has_read = False

    def alias(self, name: str) -> Entry | None:
        """See `Lookups.alias`. The version of the tables answers for it."""
        return self._lookups.alias(name)

    def account(self, name: str) -> Account | None:
        """See `Lookups.account`."""
        self.asked[name] = found = self._lookups.account(name)
        return found

    def forward(self, account: Account, paths: tuple[str, ...]) -> tuple[Forward | None, Sequence[str]]:
        """See `Lookups.forward`."""
        found = self._lookups.forward(account, paths)
        self.has_read |= any(found)
        self.forwards.append((account, paths))
        return found

    def include(self, path: str, owner: Owner) -> bytes:
        """See `Lookups.include`."""
        self.has_read = True
        return self._lookups.include(path, owner)

    def mailbox(self, account: Account) -> tuple[str, str]:
        """See `Lookups.mailbox`. The version of the tables answers for it."""
        return self._lookups.mailbox(account)
