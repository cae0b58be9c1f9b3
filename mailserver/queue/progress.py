"""How far a message has come: its leaves, and what the journal says about each.

A message starts with one PENDING leaf for each envelope recipient. Leaves are numbered in the
order they came to be, so a journal record names a leaf by its number:

    ["expanded", leaf, [leaf, ...]]         the leaf was replaced by those, appended in order
    ["done", leaf, status, dsn, text, relay, remote, (reports itself)]
    ["delayed", leaf, dsn, text, relay, remote]
    ["attempt", when, next]                 all leaves were tried; next attempt
    ["reported", [leaf, ...]]               the sender knows about these failures or successes
    ["warned"]                              the sender knows that the message is delayed
    ["expire"]                              an operator wants it returned, whatever its age

Unknown records are skipped: a later release may have written them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from mailserver.delivery.plan import Leaf, LeafKind, decode_leaf, encode_leaf
from mailserver.envelope import Outcome, Recipient, Status
from mailserver.queue.record import Accepted, Damaged, Record

_EXPANDED: Final = Outcome(Status.DELIVERED, "2.0.0", "expanded")


class Progress:
    """What became of each leaf.

    `outcomes[leaf]` is None until something is known; `settle` changes it. `open_count` leaves are
    still to be delivered.
    """

    def __init__(self, accepted: Accepted, records: Iterable[Record] = ()) -> None:
        self.accepted = accepted
        self.sender = accepted.envelope.sender  # canonical_maps may change it for this attempt
        self.leaves: list[Leaf] = [
            Leaf(LeafKind.PENDING, recipient.address, root)
            for root, recipient in enumerate(accepted.envelope.recipients)
        ]
        self.outcomes: list[Outcome | None] = [None] * len(self.leaves)
        self.open_count = len(self.leaves)
        self.reported: set[int] = set()
        self.attempts = 0
        self.last_attempt = 0.0
        self.next_attempt = 0.0
        self.is_warned = False
        self.is_forced_to_expire = False
        for record in records:
            try:
                self.apply(record)
            except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                raise Damaged(f"its journal cannot be read: {error}") from error

    def root(self, leaf: int) -> Recipient:
        """The envelope recipient that the leaf came from."""
        return self.accepted.envelope.recipients[self.leaves[leaf].root]

    def is_open(self, leaf: int) -> bool:
        """Whether the leaf is still to be delivered."""
        outcome = self.outcomes[leaf]
        return outcome is None or outcome.status is Status.DEFERRED

    def settle(self, leaf: int, outcome: Outcome | None) -> None:
        """The outcome is known, for now or for good."""
        self.open_count -= self.is_open(leaf)
        self.outcomes[leaf] = outcome
        self.open_count += self.is_open(leaf)

    def is_news(self, leaf: int, outcome: Outcome) -> bool:
        """Whether the journal lacks it: the same delay again would only make the journal grow."""
        return outcome != self.outcomes[leaf]

    def open_leaves(self) -> list[int]:
        """The leaves still to be delivered."""
        return [
            leaf
            for leaf, outcome in enumerate(self.outcomes)
            if outcome is None or outcome.status is Status.DEFERRED
        ]

    def tried(self) -> list[int]:
        """The leaves of which something is known."""
        return [
            leaf
            for leaf, outcome in enumerate(self.outcomes)
            if outcome is not None and outcome is not _EXPANDED
        ]

    def unreported(self, status: Status) -> list[int]:
        """Final leaves of that status that the sender was not told about."""
        return [
            leaf
            for leaf in self.tried()
            if (outcome := self.outcomes[leaf]) is not None
            and outcome.status is status
            and leaf not in self.reported
        ]

    def apply(self, record: Record) -> None:
        """The record's fact is known. Raises what its values make it raise."""
        match record:
            case ["expanded", int(leaf), list(leaves)]:
                self._expand(leaf, [decode_leaf(each) for each in leaves])
            case ["done", int(leaf), str(status), *rest]:
                self.settle(leaf, Outcome(Status(status), *rest))
            case ["delayed", int(leaf), *rest]:
                self.settle(leaf, Outcome(Status.DEFERRED, *rest))
            case ["attempt", last, after]:
                self.attempts += 1
                self.last_attempt, self.next_attempt = float(last), float(after)
            case ["reported", list(leaves)]:
                self.reported.update(leaves)
            case ["warned"]:
                self.is_warned = True
            case ["expire"]:
                self.is_forced_to_expire = True

    def _expand(self, leaf: int, leaves: Sequence[Leaf]) -> None:
        self.settle(leaf, _EXPANDED)
        self.leaves.extend(leaves)
        self.outcomes.extend([None] * len(leaves))
        self.open_count += len(leaves)


def expanded_record(leaf: int, leaves: Iterable[Leaf]) -> Record:
    """See the table at the head of this module."""
    return ["expanded", leaf, [encode_leaf(each) for each in leaves]]


def outcome_record(leaf: int, outcome: Outcome) -> Record:
    """A "done" or "delayed" record."""
    values: list[Any] = [outcome.dsn, outcome.text, outcome.relay, outcome.remote]
    if outcome.status is Status.DEFERRED:
        return ["delayed", leaf, *values]
    values += [True] if outcome.reports_itself else []
    return ["done", leaf, outcome.status.value, *values]
