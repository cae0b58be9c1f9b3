"""The restrictions that need no table and no DNS: who the client is, and how names are written.

Each is `async (Evaluation) -> Verdict | None`; None leaves the decision to the next one.
Texts and codes are Postfix's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Final

from mailserver.envelope import Address
from mailserver.smtpd.verdict import Evaluation, Stage, Subject, Verdict
from mailserver.wire.address import is_domain

Restriction = Callable[[Evaluation], Awaitable[Verdict | None]]

_NO_PIPELINE_BEHIND: Final = (Stage.HELO, Stage.DATA, Stage.END_OF_MESSAGE)
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:-*[A-Za-z0-9_])*(?:\.[A-Za-z0-9_](?:-*[A-Za-z0-9_])*)*\.?")


async def permit(evaluation: Evaluation) -> Verdict | None:
    """Everything passes."""
    return evaluation.permit()


def _last_subject(evaluation: Evaluation) -> Subject:
    """What the list being evaluated is about; a recipient, where one is being asked about."""
    parameter = evaluation.parameter
    for word, subject in (
        ("_client_", Subject.CLIENT),
        ("_helo_", Subject.HELO),
        ("_sender_", Subject.SENDER),
    ):
        if word in parameter:
            return subject
    if "_end_of_data_" in parameter:
        return Subject.END_OF_DATA
    return Subject.DATA if "_data_" in parameter else Subject.RECIPIENT


async def reject(evaluation: Evaluation) -> Verdict | None:
    """Nothing passes."""
    return evaluation.refuse(
        evaluation.codes.reject_code, "5.7.1", _last_subject(evaluation), "Access denied"
    )


async def defer(evaluation: Evaluation) -> Verdict | None:
    """Nothing passes for now."""
    return evaluation.refuse(
        evaluation.codes.defer_code, "4.3.2", _last_subject(evaluation), "Try again later"
    )


async def defer_if_permit(evaluation: Evaluation) -> Verdict | None:
    """What would pass is deferred."""
    subject = _last_subject(evaluation)
    evaluation.postpone(evaluation.refuse(450, "4.7.0", subject, "defer_if_permit requested"))
    return None


async def defer_if_reject(evaluation: Evaluation) -> Verdict | None:
    """What would be refused for good is deferred."""
    subject = _last_subject(evaluation)
    verdict = evaluation.refuse(450, "4.7.0", subject, "defer_if_reject requested")
    evaluation.defer_if_reject = evaluation.defer_if_reject or verdict
    return None


async def permit_sasl_authenticated(evaluation: Evaluation) -> Verdict | None:
    """Whoever logged in passes."""
    login = evaluation.request.login
    return evaluation.permit(f"login {login}") if login else None


async def permit_tls_all_clientcerts(evaluation: Evaluation) -> Verdict | None:
    """Whoever shows a certificate of an authority that we know passes."""
    request = evaluation.request
    if request.certificate is None or not request.certificate_is_trusted:
        return None
    return evaluation.permit(f"certificate of {request.certificate.subject}")


async def reject_unauth_pipelining(evaluation: Evaluation) -> Verdict | None:
    """A client that talks before it may is refused. RFC 2920 §3.1."""
    request = evaluation.request
    if not request.has_pipelined or request.stage not in _NO_PIPELINE_BEHIND:
        return None
    text = "Improper use of SMTP command pipelining"
    return evaluation.refuse(503, "5.5.0", _last_subject(evaluation), text)


async def reject_multi_recipient_bounce(evaluation: Evaluation) -> Verdict | None:
    """A message from the null sender has one recipient."""
    request = evaluation.request
    if request.sender is None and request.recipient_count > 1:
        code = evaluation.codes.multi_recipient_bounce_reject_code
        return evaluation.refuse(code, "5.5.3", _last_subject(evaluation), "Multi-recipient bounce")
    return None


async def reject_plaintext_session(evaluation: Evaluation) -> Verdict | None:
    """Only TLS sessions pass."""
    if evaluation.request.is_tls:
        return None
    return evaluation.verdict(
        evaluation.codes.plaintext_reject_code, "4.7.1", "Session encryption is required"
    )


def _is_literal(name: str) -> bool:
    if not (name.startswith("[") and name.endswith("]")):
        return False
    try:
        ipaddress.ip_address(name[1:-1].lower().removeprefix("ipv6:"))
    except ValueError:
        return False
    return True


async def reject_invalid_helo_hostname(evaluation: Evaluation) -> Verdict | None:
    """The HELO name is well formed."""
    helo = evaluation.request.helo
    if not helo or _is_literal(helo) or _HOST_NAME.fullmatch(helo):
        return None
    code = evaluation.codes.invalid_hostname_reject_code
    return evaluation.refuse(code, "5.5.2", Subject.HELO, "Invalid name")


async def reject_non_fqdn_helo_hostname(evaluation: Evaluation) -> Verdict | None:
    """The HELO name has a domain, or is an address literal. RFC 5321 §4.1.1.1."""
    helo = evaluation.request.helo
    if not helo or _is_literal(helo) or ("." in helo.rstrip(".") and _HOST_NAME.fullmatch(helo)):
        return None
    code = evaluation.codes.non_fqdn_reject_code
    return evaluation.refuse(code, "5.5.2", Subject.HELO, "need fully-qualified hostname")


def _is_fully_qualified(address: Address) -> bool:
    domain = address.domain
    return domain.startswith("[") or ("." in domain and is_domain(domain))


async def reject_non_fqdn_sender(evaluation: Evaluation) -> Verdict | None:
    """The sender has a full domain, or is the null sender."""
    sender = evaluation.request.sender
    if sender is None or _is_fully_qualified(sender):
        return None
    code = evaluation.codes.non_fqdn_reject_code
    return evaluation.refuse(code, "5.5.2", Subject.SENDER, "need fully-qualified address")


async def reject_non_fqdn_recipient(evaluation: Evaluation) -> Verdict | None:
    """The recipient has a full domain, or is `postmaster`. RFC 5321 §4.5.1."""
    recipient = evaluation.request.recipient
    if recipient is None or _is_fully_qualified(recipient):
        return None
    if not recipient.domain and recipient.local.lower() == "postmaster":
        return None
    code = evaluation.codes.non_fqdn_reject_code
    return evaluation.refuse(code, "5.5.2", Subject.RECIPIENT, "need fully-qualified address")


BASIC: Final[dict[str, Restriction]] = {
    "permit": permit,
    "reject": reject,
    "defer": defer,
    "defer_if_permit": defer_if_permit,
    "defer_if_reject": defer_if_reject,
    "permit_sasl_authenticated": permit_sasl_authenticated,
    "permit_tls_all_clientcerts": permit_tls_all_clientcerts,
    "reject_unauth_pipelining": reject_unauth_pipelining,
    "reject_multi_recipient_bounce": reject_multi_recipient_bounce,
    "reject_plaintext_session": reject_plaintext_session,
    "reject_invalid_helo_hostname": reject_invalid_helo_hostname,
    "reject_invalid_hostname": reject_invalid_helo_hostname,
    "reject_non_fqdn_helo_hostname": reject_non_fqdn_helo_hostname,
    "reject_non_fqdn_hostname": reject_non_fqdn_helo_hostname,
    "reject_non_fqdn_sender": reject_non_fqdn_sender,
    "reject_non_fqdn_recipient": reject_non_fqdn_recipient,
}
