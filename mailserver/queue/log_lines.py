"""What the log says of a message's deliveries, in the words of qmgr(8) and local(8)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mailserver.envelope import Address, Envelope, Outcome, Status


@dataclass(frozen=True, slots=True)
class Times:
    """When the message arrived, the attempt began, this delivery began, and it ended: wall-clock seconds."""

    arrival: float
    attempt: float
    delivery: float
    end: float


def active_line(queue_id: str, envelope: Envelope, size: int) -> str:
    """An attempt begins; `size` is the content's, in octets."""
    sender, count = envelope.sender or "", len(envelope.recipients)
    return f"{queue_id}: from=<{sender}>, size={size}, nrcpt={count} (queue active)"


def outcome_line(
    queue_id: str,
    recipient: Address,
    original: str,
    outcome: Outcome,
    times: Times,
    only_verifies: bool = False,
) -> str:
    """What became of one recipient, or would; `original` is the address as it was first written."""
    verdict = "deliverable" if outcome.status is Status.DELIVERED else "undeliverable"
    status = verdict if only_verifies else outcome.status.value
    shown = str(recipient)
    orig_to = f" orig_to=<{original}>," if original and original.lower() != shown.lower() else ""
    return (
        f"{queue_id}: to=<{shown}>,{orig_to} relay={outcome.relay}, {_delays(times)}, "
        f"dsn={outcome.dsn}, status={status} ({outcome.text})"
    )


@lru_cache(maxsize=16)
def _delays(times: Times) -> str:
    """Recipients that were tried together have the same."""
    waited, prepared = delay(times.attempt - times.arrival), delay(times.delivery - times.attempt)
    took, whole = delay(times.end - times.delivery), delay(times.end - times.arrival)
    return f"delay={whole}, delays={waited}/{prepared}/0/{took}"


def local_service(outcome: Outcome) -> str:
    """The name that the line of a local delivery is logged under: Postfix's daemon for it."""
    return {"none": "error", "virtual": "virtual"}.get(outcome.relay, "local")


def delay(seconds: float) -> str:
    """Seconds with two digits that count and hundredths at most, as Postfix writes them."""
    if seconds < 0.005:
        return "0"
    if seconds >= 9.95:
        return f"{seconds:.0f}"
    text = f"{seconds:.1f}" if seconds >= 0.995 else f"{seconds:.2f}"
    return text.rstrip("0").removesuffix(".")
