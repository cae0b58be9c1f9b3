"""reject_unverified_sender and reject_unverified_recipient: does mail to this address arrive? verify(8).

An address is probed as far as RCPT, at most once at a time, and the answer is remembered: while a good one
grows old it is asked for again in the background, and a temporary failure does not undo it. A client
waits a few seconds for a first answer; then it hears a temporary refusal. The memory is this
process's, and ends with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailserver.envelope import Address, Outcome, Status
from mailserver.smtpd.verdict import Evaluation, Subject, Verdict

Probe = Callable[[Address], Awaitable[Outcome]]

MOST_REMEMBERED: Final = 100_000  # addresses
_IN_PROGRESS: Final = Outcome.deferred("Address verification in progress", "4.0.0", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRules:
    """Under the names of address_verify_*; times in seconds."""

    positive_expire_time: float = 31 * 86_400
    positive_refresh_time: float = 7 * 86_400
    negative_expire_time: float = 3 * 86_400
    negative_refresh_time: float = 3 * 3600
    negative_cache: bool = True
    pending_request_limit: int = 5000
    poll_count: int = 3
    poll_delay: float = 3


@dataclass(slots=True)
class _Known:
    outcome: Outcome
    since: float


@dataclass(slots=True)
class _Pending:
    waiting: list[Deferred[None]] = field(default_factory=list)


class AddressVerifier:
    """Remembers what `probe` found. `clock` is a reactor's."""

    def __init__(self, rules: VerifyRules, probe: Probe, clock: Any) -> None:
        self._rules = rules
        self._probe = probe
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._pending: dict[str, _Pending] = {}

    async def verify(self, address: Address) -> Outcome:
        """Delivered: mail would arrive; failed: it would not; deferred: that is not known now."""
        key = str(address).lower()
        known = self._usable(key)
        if known is not None:
            if self._age(known) > self._times(known.outcome)[1]:
                self._begin(key, address)
            return known.outcome
        self._begin(key, address)
        await self._wait(key)
        known = self._usable(key)
        return known.outcome if known is not None else _IN_PROGRESS

    def _usable(self, key: str) -> _Known | None:
        known = self._known.get(key)
        if known is None or self._age(known) > self._times(known.outcome)[0]:
            return None
        return known

    def _age(self, known: _Known) -> float:
        return float(self._clock.seconds()) - known.since

    def _times(self, outcome: Outcome) -> tuple[float, float]:
        """When what was found is forgotten, and when it is asked for again."""
        rules = self._rules
        if outcome.status is Status.DELIVERED:
            return rules.positive_expire_time, rules.positive_refresh_time
        if outcome.status is Status.FAILED and rules.negative_cache:
            return rules.negative_expire_time, rules.negative_refresh_time
        return rules.poll_count * rules.poll_delay, 0

    def _begin(self, key: str, address: Address) -> None:
        if key in self._pending or len(self._pending) >= self._rules.pending_request_limit:
            return
        self._pending[key] = _Pending()
        Deferred.fromCoroutine(self._ask(key, address))

    async def _ask(self, key: str, address: Address) -> None:
        try:
            self._remember(key, await self._probe(address))
        finally:
            for each in self._pending.pop(key).waiting:
                if not each.called:
                    each.callback(None)

    def _remember(self, key: str, outcome: Outcome) -> None:
        if outcome.status is Status.DEFERRED and self._usable(key) is not None:
            return
        self._known[key] = _Known(outcome, float(self._clock.seconds()))
        self._known.move_to_end(key)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    async def _wait(self, key: str) -> None:
        """The probe has ended, or the client has waited for long enough."""
        pending = self._pending.get(key)
        if pending is None:
            return
        waiting: Deferred[None] = Deferred()
        pending.waiting.append(waiting)
        seconds = self._rules.poll_count * self._rules.poll_delay
        timer = self._clock.callLater(seconds, lambda: None if waiting.called else waiting.callback(None))
        await waiting
        if timer.active():
            timer.cancel()


@dataclass(frozen=True, slots=True)
class Verification:
    """What the restrictions need: a verifier, and the texts of unverified_*_reject_reason."""

    verifier: AddressVerifier
    sender_reason: str = ""
    recipient_reason: str = ""

    async def reject_unverified_sender(self, evaluation: Evaluation) -> Verdict | None:
        """A sender that bounces would not reach is refused."""
        codes = evaluation.codes
        return await self._check(
            evaluation,
            evaluation.request.sender,
            Subject.SENDER,
            (codes.unverified_sender_reject_code, codes.unverified_sender_defer_code),
            "5.1.7",
            self.sender_reason,
        )

    async def reject_unverified_recipient(self, evaluation: Evaluation) -> Verdict | None:
        """A recipient that mail would not reach is refused."""
        codes = evaluation.codes
        return await self._check(
            evaluation,
            evaluation.request.recipient,
            Subject.RECIPIENT,
            (codes.unverified_recipient_reject_code, codes.unverified_recipient_defer_code),
            "5.1.1",
            self.recipient_reason,
        )

    async def _check(
        self,
        evaluation: Evaluation,
        address: Address | None,
        subject: Subject,
        codes: tuple[int, int],
        dsn: str,
        reason: str,
    ) -> Verdict | None:
        if address is None:
            return None
        outcome = await self.verifier.verify(address)
        if outcome.status is Status.DELIVERED:
            return None
        reject, defer = codes
        text = reason or f"unverified address: {outcome.text[:250]}"
        if outcome.status is Status.FAILED:
            return evaluation.refuse(reject, dsn, subject, text)
        evaluation.postpone(evaluation.refuse(defer, dsn, subject, text))
        return None
