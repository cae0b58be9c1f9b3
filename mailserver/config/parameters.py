"""Every parameter, declared once; docs/PARAMETERS.md, etc/main.cf and postconf are rendered from here.

The declarations lie in `declared`, by topic. Two families are not listed one by one: lmtp_*
mirrors smtp_* (but for LHLO's own), and each transport of master.cf has its own
`TRANSPORT_destination_…` limits, whose defaults are the `default_…` ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from mailserver.config.declaration import Kind, Parameter, Type, type_of
from mailserver.config.declared import (
    delivery,
    dovecot,
    elsewhere,
    host,
    queue,
    retrieval,
    smtp,
    smtpd,
    unsupported,
)

TOPICS: Final = (
    ("This host", host.PARAMETERS),
    ("SMTP server", smtpd.PARAMETERS),
    ("Delivery", delivery.PARAMETERS),
    ("Queue", queue.PARAMETERS),
    ("SMTP client", smtp.PARAMETERS),
    ("POP3, IMAP and accounts", retrieval.PARAMETERS),
    ("Not supported", unsupported.PARAMETERS),
    ("Parts of Postfix that are not here", elsewhere.PARAMETERS),
    ("Parts of Dovecot that are not here", dovecot.PARAMETERS),
)

# The limits that each transport has, after its name, and their defaults.
_COHORT: Final = "_destination_concurrency_failed_cohort_limit"
TRANSPORT_FAMILY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "_delivery_slot_cost": "$default_delivery_slot_cost",
        "_delivery_slot_discount": "$default_delivery_slot_discount",
        "_delivery_slot_loan": "$default_delivery_slot_loan",
        _COHORT: f"$default{_COHORT}",
        "_destination_concurrency_limit": "$default_destination_concurrency_limit",
        "_destination_concurrency_negative_feedback": "$default_destination_concurrency_negative_feedback",
        "_destination_concurrency_positive_feedback": "$default_destination_concurrency_positive_feedback",
        "_destination_rate_delay": "$default_destination_rate_delay",
        "_destination_recipient_limit": "$default_destination_recipient_limit",
        "_extra_recipient_limit": "$default_extra_recipient_limit",
        "_initial_destination_concurrency": "$initial_destination_concurrency",
        "_minimum_delivery_slots": "$default_minimum_delivery_slots",
        "_recipient_limit": "$default_recipient_limit",
        "_recipient_refill_delay": "$default_recipient_refill_delay",
        "_recipient_refill_limit": "$default_recipient_refill_limit",
        "_time_limit": "$command_time_limit",
        "_transport_rate_delay": "$default_transport_rate_delay",
    }
)
_HONOURED_IN_FAMILY: Final = frozenset(
    {"_destination_concurrency_limit", "_destination_recipient_limit", "_initial_destination_concurrency"}
    | {"_time_limit"}
)
_FAMILY_TYPES: Final = {
    "_rate_delay": Type.SECONDS,
    "_refill_delay": Type.SECONDS,
    "_time_limit": Type.SECONDS,
}


# Where LMTP has another default than SMTP, and what it has under another name.
_LMTP_DEFAULTS: Final = {"lmtp_tcp_port": "24", "lmtp_tls_security_level": "", "lmtp_fallback_relay": ""}
_NOT_IN_LMTP: Final = frozenset({"smtp_helo_name", "smtp_helo_timeout"})


def _lmtp(parameter: Parameter) -> Parameter:
    """The parameter of LMTP that mirrors one of SMTP."""
    name = "lmtp_" + parameter.name.removeprefix("smtp_")
    return replace(
        parameter,
        name=name,
        default=_LMTP_DEFAULTS.get(name, parameter.default.replace("$smtp_", "$lmtp_")),
        documentation=f"What {parameter.name} is to SMTP.",
    )


def _all() -> Iterator[Parameter]:
    for _, parameters in TOPICS:
        for parameter in parameters:
            yield parameter
            if parameter.name.startswith("smtp_") and parameter.name not in _NOT_IN_LMTP:
                yield _lmtp(parameter)


def _by_name(parameters: Iterator[Parameter]) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for parameter in parameters:
        if found.setdefault(parameter.name, parameter) is not parameter:
            raise ValueError(f"{parameter.name} is declared twice")
    return found


PARAMETERS: Final[Mapping[str, Parameter]] = MappingProxyType(_by_name(_all()))


def find_parameter(name: str) -> Parameter | None:
    """The declaration of a name, those of the transports' families included; None for a user's own name."""
    declared = PARAMETERS.get(name)
    return declared if declared is not None else _family_member(name)


def _family_member(name: str) -> Parameter | None:
    # The longest ending decides: x_destination_recipient_limit is no x_destination's _recipient_limit.
    endings = [ending for ending in TRANSPORT_FAMILY if name.endswith(ending) and len(name) > len(ending)]
    if not endings:
        return None
    ending = max(endings, key=len)
    kind = Kind.HONOURED if ending in _HONOURED_IN_FAMILY else Kind.HARMLESS
    types = [kind_of for suffix, kind_of in _FAMILY_TYPES.items() if ending.endswith(suffix)]
    return Parameter(
        name,
        kind,
        types[0] if types else type_of("0"),
        TRANSPORT_FAMILY[ending],
        f"The same limit for the transport {name.removesuffix(ending)}.",
    )
