"""What `mailserver explain ADDRESS` shows: would it be accepted, and where would it go, and why.

Makes the same plan as delivery does and sends nothing. As text for people, as JSON values for
programs. *Blocking*; faults of tables and files are part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.delivery.expand import CannotExpandNow, expand
from mailserver.delivery.lookups import LocalRules, Lookups
from mailserver.delivery.plan import Leaf, LeafKind, Plan
from mailserver.delivery.routing import AddressClass, Routing
from mailserver.envelope import Address
from mailserver.tables.table import TableError

_VERBS = {
    LeafKind.PENDING: "wait",
    LeafKind.MAILBOX: "mailbox",
    LeafKind.FILE: "file",
    LeafKind.COMMAND: "command",
    LeafKind.REMOTE: "relay",
    LeafKind.FORWARD: "forward",
    LeafKind.DISCARD: "discard",
    LeafKind.FAILED: "bounce",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer for one address. `plan` is None where nothing can be decided now; `trouble` says why."""

    address: Address
    address_class: AddressClass
    is_known: bool
    plan: Plan | None
    trouble: str = ""

    @property
    def verdict(self) -> str:
        """What RCPT would be told about the address itself; whether a client may relay is not asked."""
        if self.trouble:
            return "451 4.3.0 temporary failure"
        if self.is_known:
            return "accept"
        return f"refuse: 550 5.1.1 User unknown in {self.address_class.value}"


def explain(address: Address, routing: Routing, rules: LocalRules, lookups: Lookups) -> Explanation:
    """Where mail for the address would go. *Blocking.* Sends nothing, never raises for a fault."""
    address = routing.complete(address)
    address_class = routing.classify(address)
    try:
        is_known = routing.is_known(address)
        leaf = Leaf(LeafKind.PENDING, address)
        plan = expand(leaf, routing=routing, rules=rules, lookups=lookups)
    except (CannotExpandNow, TableError, TemporaryAccountFailure, OSError) as error:
        return Explanation(address, address_class, False, None, str(error))
    return Explanation(address, address_class, is_known, plan)


def as_lines(explanation: Explanation) -> Iterator[str]:
    """The answer for people: one line a step, indented by depth, its `file:line` in parentheses."""
    name = explanation.address_class.name.lower().replace("_", " ")
    yield f"{explanation.address}: {name} address: {explanation.verdict}"
    if explanation.trouble:
        yield f"  {explanation.trouble}"
    if explanation.plan is None:
        return
    for step in explanation.plan.steps:
        source = f"  ({step.source})" if step.source else ""
        yield f"{'  ' * (step.depth + 1)}{step.text}{source}"
    for warning in explanation.plan.warnings:
        yield f"  {warning}"
    for leaf in explanation.plan.leaves:
        yield f"=> {_VERBS[leaf.kind]} {_where(leaf)}"


def _where(leaf: Leaf) -> str:
    owner = f", as {leaf.owner.name}" if leaf.owner is not None else ""
    sender = f", from <{leaf.sender}>" if leaf.sender is not None else ""
    match leaf.kind:
        case LeafKind.REMOTE:
            return f"{leaf.recipient} by {leaf.transport} to {leaf.target}{sender}"
        case LeafKind.FORWARD:
            return f"{', '.join(map(str, leaf.addresses))} in a new message{sender}"
        case LeafKind.FAILED:
            return f"{leaf.recipient}: {leaf.dsn} {leaf.target}"
        case LeafKind.PENDING | LeafKind.DISCARD:
            return f"{leaf.recipient}: {leaf.target}"
    return f"{leaf.target}{owner}{sender}"


def as_values(explanation: Explanation) -> dict[str, Any]:
    """The answer for programs, ready for json.dumps."""
    plan = explanation.plan or Plan(())
    return {
        "address": str(explanation.address),
        "class": explanation.address_class.name.lower(),
        "accepted": explanation.is_known,
        "verdict": explanation.verdict,
        "trouble": explanation.trouble,
        "steps": [{"depth": step.depth, "text": step.text, "source": step.source} for step in plan.steps],
        "warnings": list(plan.warnings),
        "destinations": [_leaf_values(leaf) for leaf in plan.leaves],
    }


def _leaf_values(leaf: Leaf) -> dict[str, Any]:
    values = {
        "action": _VERBS[leaf.kind],
        "recipient": str(leaf.recipient),
        "target": leaf.target,
        "transport": leaf.transport,
        "owner": leaf.owner.name if leaf.owner is not None else "",
        "sender": leaf.sender,
        "status": leaf.dsn,
        "addresses": [str(address) for address in leaf.addresses],
    }
    return {name: value for name, value in values.items() if value}
