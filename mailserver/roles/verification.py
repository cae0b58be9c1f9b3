"""Probes for reject_unverified_sender and reject_unverified_recipient, made when a listener wants them."""

from __future__ import annotations

from typing import Any, Final

from mailserver.config.config import Config
from mailserver.delivery.smtp_mail import Mail, RemoteRecipient
from mailserver.dns import Resolver
from mailserver.envelope import Address, Outcome, Status
from mailserver.roles.parts import Parts
from mailserver.roles.relays import Relays
from mailserver.smtpd.verification import AddressVerifier, Verification, VerifyRules
from mailserver.threads import Threads
from mailserver.wire.address import AddressError, parse_lenient

_TIMES: Final = (
    "positive_expire_time",
    "positive_refresh_time",
    "negative_expire_time",
    "negative_refresh_time",
    "poll_delay",
)
_NUMBERS: Final = ("pending_request_limit", "poll_count")
_PROBE_OCTETS: Final = 1000  # what SIZE says of mail that is not sent


class Verifications:
    """The one verifier of a process."""

    def __init__(
        self, parts: Parts, threads: Threads, reactor: Any, resolver: Resolver, own_ports: frozenset[int]
    ) -> None:
        self._parts = parts
        self._threads = threads
        self._reactor = reactor
        self._resolver = resolver
        self._own_ports = own_ports
        self._verifier: AddressVerifier | None = None
        self._relays: Relays | None = None

    def of(self, config: Config) -> Verification:
        """What a listener's restrictions ask. Raises ConfigError."""
        if self._verifier is None:
            self._relays = Relays(self._parts, self._threads, self._reactor, self._resolver, self._own_ports)
            self._verifier = AddressVerifier(_rules(self._parts.config), self.probe, self._reactor)
        reasons = (config.string(f"unverified_{side}_reject_reason") for side in ("sender", "recipient"))
        return Verification(self._verifier, *reasons)

    def close(self) -> None:
        """Idle sessions say QUIT."""
        if self._relays is not None:
            self._relays.close()

    async def probe(self, address: Address) -> Outcome:
        """Whether mail to the address would be taken. Never fails."""
        try:
            outcome = await self._probe(address)
        except Exception as error:  # whatever it is, it is our own trouble (P5)
            outcome = Outcome.deferred(f"Address verification failed: {error}", "4.3.0", "none")
        word = "deliverable" if outcome.status is Status.DELIVERED else "undeliverable"
        line = f"to=<{address}>, relay={outcome.relay}, dsn={outcome.dsn}, status={word} ({outcome.text})"
        self._parts.log.write("verify", line)
        return outcome

    async def _probe(self, address: Address) -> Outcome:
        assert self._relays is not None
        routing = self._parts.routing
        if not await self._threads.run(routing.is_known, address):
            return Outcome.failed("User unknown", "5.1.1")
        if await self._threads.run(routing.find_virtual_alias, address) is not None:
            return Outcome.delivered("aliased")
        route = await self._threads.run(routing.resolve, address, None)
        if route.transport == "error":
            return Outcome.failed(route.nexthop, "5.0.0", "none")
        relay = self._relays.find(route.transport)
        if relay is None:
            return Outcome.delivered(f"delivers to {route.transport}")
        mail = Mail(self._sender(), (RemoteRecipient(str(address)),), _PROBE_OCTETS, _nothing, is_probe=True)
        (outcome,) = await relay.deliver(route.nexthop, mail)
        return outcome

    def _sender(self) -> str:
        """address_verify_sender, "" for the null sender."""
        text = self._parts.config.string("address_verify_sender").strip().removeprefix("<").removesuffix(">")
        try:
            return str(self._parts.routing.complete(parse_lenient(text))) if text else ""
        except AddressError:
            return ""


async def _nothing(offset: int, length: int) -> bytes:
    return b""


def _rules(config: Config) -> VerifyRules:
    values: dict[str, Any] = {}
    values |= {name: config.seconds(f"address_verify_{name}") for name in _TIMES}
    values |= {name: config.integer(f"address_verify_{name}") for name in _NUMBERS}
    return VerifyRules(**values, negative_cache=config.boolean("address_verify_negative_cache"))
