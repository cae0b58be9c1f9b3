"""What is to be done with a message, as values: leaves to deliver and the steps that led there.

A plan is made by `delivery.expand` and touches nothing. The queue's journal holds the leaves,
so that an expansion happens once, before any leaf is delivered; `mailserver explain` shows
the steps. What is written by one release is read by the next: fields are only ever added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from mailserver.delivery.job import Owner
from mailserver.envelope import Address


class LeafKind(Enum):
    """What happens at a leaf. The values stand in queue files."""

    PENDING = "pending"  # not expanded yet: a recipient as it came, or a part that had to wait
    MAILBOX = "mailbox"  # append to the mailbox `target`, as `owner`
    FILE = "file"  # append to the file `target`, as `owner`
    COMMAND = "command"  # run `target`, as `owner`
    REMOTE = "remote"  # hand to `transport` with next hop `target`
    FORWARD = "forward"  # a new message to `addresses`, for a .forward that leaves the account
    DISCARD = "discard"  # the transport of that name: it counts as delivered
    FAILED = "failed"  # bounce with `dsn` and the text `target`


@dataclass(frozen=True, slots=True)
class Leaf:
    """One place where the message goes.

    `recipient` is what the log calls `to=`. `delivered_to` is the address written into
    Delivered-To:, the first one of ours on the way. `sender` replaces the envelope sender (owner-alias),
    None keeps it. `root` is the index of the envelope recipient. A PENDING leaf with
    `past_aliases` goes on with the account, its aliases being done.
    """

    kind: LeafKind
    recipient: Address
    root: int = 0
    target: str = ""
    owner: Owner | None = None
    delivered_to: Address | None = None
    sender: str | None = None
    dsn: str = ""
    transport: str = ""
    addresses: tuple[Address, ...] = ()
    past_aliases: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One decision on the way: what was decided, and the `file:line` or parameter that did."""

    depth: int
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a recipient's mail goes, and why. `warnings` are for the log, without the word `warning:`."""

    leaves: tuple[Leaf, ...]
    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()


_NAMES: Final = ("r", "t", "d", "s", "c", "x", "p")


def encode_leaf(leaf: Leaf) -> list[Any]:
    """The leaf as JSON values, without what has its default."""
    owner = leaf.owner
    rest = (
        leaf.root,
        leaf.target,
        [leaf.delivered_to.local, leaf.delivered_to.domain] if leaf.delivered_to else 0,
        0 if leaf.sender is None else [leaf.sender],
        leaf.dsn,
        leaf.transport,
        int(leaf.past_aliases),
    )
    named: dict[str, Any] = {name: value for name, value in zip(_NAMES, rest, strict=True) if value}
    if owner is not None:
        named["o"] = [owner.name, owner.uid, owner.gid, owner.home, owner.shell]
    if leaf.addresses:
        named["a"] = [[address.local, address.domain] for address in leaf.addresses]
    return [leaf.kind.value, leaf.recipient.local, leaf.recipient.domain, named]


def decode_leaf(value: Sequence[Any]) -> Leaf:
    """The inverse of `encode_leaf`. Raises ValueError, TypeError or KeyError for anything else."""
    kind, local, domain, named = value
    delivered_to, sender, owner = named.get("d"), named.get("s"), named.get("o")
    return Leaf(
        kind=LeafKind(kind),
        recipient=Address(local, domain),
        root=named.get("r", 0),
        target=named.get("t", ""),
        owner=Owner(*owner) if owner else None,
        delivered_to=Address(*delivered_to) if delivered_to else None,
        sender=sender[0] if sender else None,
        dsn=named.get("c", ""),
        transport=named.get("x", ""),
        addresses=tuple(Address(*each) for each in named.get("a", ())),
        past_aliases=bool(named.get("p", 0)),
    )
