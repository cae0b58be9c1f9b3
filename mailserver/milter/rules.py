"""How a milter is spoken to, as plain values; and what it can decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mailserver.service_endpoint import ServiceEndpoint
from mailserver.wire.milter import VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class MilterRules:
    """Under the names of milter_*; times in seconds. `macros` are the names for each stage, braces left off.

    `default_action` is accept, reject, tempfail or quarantine: what becomes of mail while the milter fails.
    """

    endpoint: ServiceEndpoint
    connect_timeout: float = 30
    command_timeout: float = 30
    content_timeout: float = 300
    default_action: str = "tempfail"
    protocol: int = VERSION
    macros: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    macro_defaults: Mapping[str, str] = field(default_factory=dict)


class MilterFailure(Exception):
    """The milter cannot be asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the client hears. `disconnects`: nothing more is said to it."""

    code: int
    dsn: str
    text: str
    disconnects: bool = False

    def __str__(self) -> str:
        return f"{self.code} {self.dsn} {self.text}".replace("  ", " ")


@dataclass(frozen=True, slots=True)
class Discarded:
    """The message is taken and goes nowhere."""


Verdict = Refusal | Discarded | None

TEMPFAILED = Refusal(451, "4.7.1", "Service unavailable - try again later")
REJECTED = Refusal(550, "5.7.1", "Command rejected")
UNAVAILABLE = Refusal(550, "5.5.0", "Service unavailable")
SHUT_DOWN = Refusal(421, "4.7.0", "Server closing connection", disconnects=True)
