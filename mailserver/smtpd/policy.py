"""Access decisions of the SMTP server: may this client, name, sender, recipient, message pass?

`Policy` runs the lists of main.cf in Postfix's order. With `smtpd_delay_reject` everything about
client, HELO name and sender is decided at RCPT. Who may relay is decided by the client's
address and its login, before any content is taken; the sender address never matters for it.
A table that cannot be read gives 451 4.3.5, an account data base that cannot be read 451 4.3.0:
a fault of ours is never a permanent answer (RELIABILITY P5).

A configuration whose relay and recipient lists could both let strangers relay is refused
when the policy is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.smtpd.basic_restrictions import Restriction
from mailserver.smtpd.lookups import Networks
from mailserver.smtpd.restrictions import Compiler, RestrictionList, Tools, run, stops_relaying
from mailserver.smtpd.verdict import Effects, Evaluation, Request, RestrictionError, Verdict
from mailserver.tables.table import TableError

DEFAULT_RELAY: Final = "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination"
_ALL_BEFORE_DATA: Final = ("client", "helo", "sender", "relay", "recipient")
_DELAYED: Final = ("client", "helo", "sender")

FinalChecks = tuple[tuple[str, Restriction], ...]  # parameter, what it checks


@dataclass(frozen=True, slots=True)
class RestrictionTexts:
    """The values of `smtpd_*_restrictions`, as in main.cf."""

    client: str = ""
    helo: str = ""
    sender: str = ""
    relay: str = DEFAULT_RELAY
    recipient: str = ""
    data: str = ""
    end_of_data: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the client hears, None where it may go on; and what the log is to say beside that."""

    refusal: Verdict | None = None
    warnings: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ""


PASS: Final = Decision()


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict for a recipient, and what each restriction on the way to it answered."""

    verdict: Verdict
    trace: tuple[str, ...] = field(default_factory=tuple)


class Policy:
    """The access rules of one listener. All methods may be called for many sessions at once."""

    def __init__(
        self,
        texts: RestrictionTexts,
        tools: Tools,
        *,
        delay_reject: bool = True,
        reject_unlisted_recipient: bool = True,
        reject_unlisted_sender: bool = False,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        """Raises RestrictionError. `sources` gives the `file:line` of each `smtpd_*_restrictions`."""
        compiler = Compiler(tools)
        names = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
        self._parameters = {name: f"smtpd_{name}_restrictions" for name in names}
        self._lists: dict[str, RestrictionList] = {
            name: compiler.compile(self._parameters[name], getattr(texts, name)) for name in names
        }
        if not stops_relaying(self._lists["relay"]) and not stops_relaying(self._lists["recipient"]):
            raise RestrictionError(
                "smtpd_relay_restrictions and smtpd_recipient_restrictions: neither has a restriction that "
                "stops relaying by strangers; add reject_unauth_destination or defer_unauth_destination"
            )
        if sources:
            self._parameters = {
                name: f"{parameter} ({sources[parameter]})" if parameter in sources else parameter
                for name, parameter in self._parameters.items()
            }
        self._delay_reject = delay_reject
        self._mynetworks = tools.mynetworks
        self._codes = tools.codes
        final = (
            ("smtpd_reject_unlisted_sender", reject_unlisted_sender, compiler.reject_unlisted_sender),
            (
                "smtpd_reject_unlisted_recipient",
                reject_unlisted_recipient,
                compiler.reject_unlisted_recipient,
            ),
        )
        self._final_checks: FinalChecks = tuple(
            (name, check) for name, is_wanted, check in final if is_wanted
        )

    @property
    def mynetworks(self) -> Networks:
        """The networks whose clients are trusted; limits do not count them."""
        return self._mynetworks

    def decides(self, name: str) -> bool:
        """Whether the list (`sender`, `data`, …) has anything to say when its own command comes."""
        return bool(self._lists[name]) and not (self._delay_reject and name in _DELAYED)

    async def client(self, request: Request, effects: Effects) -> Decision:
        """May this client speak to us?"""
        return await self._early("client", request, effects)

    async def helo(self, request: Request, effects: Effects) -> Decision:
        """May it call itself that?"""
        return await self._early("helo", request, effects)

    async def sender(self, request: Request, effects: Effects) -> Decision:
        """May it send mail from this address?"""
        return await self._early("sender", request, effects)

    async def recipient(self, request: Request, effects: Effects) -> Decision:
        """May it send mail to this address? `postmaster` without a domain is always one. RFC 5321 §4.5.1."""
        address = request.recipient
        if address is not None and not address.domain and address.local.lower() == "postmaster":
            return PASS
        return await self._decide(
            self._recipient_lists(), Evaluation(request, effects, self._codes), self._final_checks
        )

    async def data(self, request: Request, effects: Effects) -> Decision:
        """May the content follow?"""
        return await self._decide(("data",), Evaluation(request, effects, self._codes))

    async def end_of_data(self, request: Request, effects: Effects) -> Decision:
        """May the message stay?"""
        return await self._decide(("end_of_data",), Evaluation(request, effects, self._codes))

    async def explain_recipient(self, request: Request) -> Explanation:
        """The verdict that RCPT would get, and how it came about; nothing is changed or logged."""
        evaluation = Evaluation(request, Effects(), self._codes, trace=[])
        decision = await self._decide(_ALL_BEFORE_DATA, evaluation, self._final_checks)
        accepted = Verdict(250, "2.1.5", "Ok", evaluation.reason() if evaluation.asked else "")
        trace = (*(evaluation.trace or ()), *decision.notes, *((decision.error,) if decision.error else ()))
        return Explanation(decision.refusal or accepted, trace)

    def _recipient_lists(self) -> tuple[str, ...]:
        return _ALL_BEFORE_DATA if self._delay_reject else ("relay", "recipient")

    async def _early(self, name: str, request: Request, effects: Effects) -> Decision:
        if not self.decides(name):
            return PASS
        return await self._decide((name,), Evaluation(request, effects, self._codes))

    async def _decide(
        self, names: tuple[str, ...], evaluation: Evaluation, final: FinalChecks = ()
    ) -> Decision:
        error = ""
        try:
            refusal = await self._first_refusal(names, evaluation, final)
        except TemporaryAccountFailure as failure:
            error = f"warning: {failure}"
            refusal = Verdict(451, "4.3.0", "Temporary lookup error", evaluation.reason(str(failure)))
        except (TableError, RestrictionError) as failure:
            error = f"warning: {failure}"
            refusal = Verdict(451, "4.3.5", "Server configuration error", evaluation.reason(str(failure)))
        if refusal is None and not evaluation.warnings and not evaluation.notes:
            return PASS
        return Decision(refusal, tuple(evaluation.warnings), tuple(evaluation.notes), error)

    async def _first_refusal(
        self, names: tuple[str, ...], evaluation: Evaluation, final: FinalChecks
    ) -> Verdict | None:
        for name in names:
            items = self._lists[name]
            if not items or (name == "helo" and not evaluation.request.helo):
                continue
            evaluation.parameter = self._parameters[name]
            verdict = await run(items, evaluation)
            if verdict is not None and not verdict.permits:
                return self._perhaps_deferred(verdict, evaluation)
        for parameter, check in final:
            evaluation.parameter, evaluation.asked = parameter, "yes"
            verdict = await check(evaluation)
            if evaluation.trace is not None:
                evaluation.trace.append(f"{parameter}: {'pass' if verdict is None else verdict}")
            if verdict is not None:
                return self._perhaps_deferred(verdict, evaluation)
        return evaluation.defer_if_permit

    def _perhaps_deferred(self, verdict: Verdict, evaluation: Evaluation) -> Verdict:
        if verdict.code >= 500 and evaluation.defer_if_reject is not None:
            return evaluation.defer_if_reject
        return verdict
