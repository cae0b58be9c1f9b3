"""The restrictions that ask DNS: unknown clients, HELO names, domains, and block lists.

A lookup that fails for a while never refuses for good: it defers, and only what would else
have passed (RELIABILITY P5).
"""

from __future__ import annotations

import ipaddress
from typing import Final

from mailserver.dns import TemporaryLookupFailure
from mailserver.envelope import Address
from mailserver.smtpd.address_restrictions import RecipientDirectory
from mailserver.smtpd.basic_restrictions import Restriction
from mailserver.smtpd.lookups import Resolver
from mailserver.smtpd.verdict import Evaluation, Subject, Verdict

NULL_MX: Final = ("",)


async def reject_unknown_client_hostname(evaluation: Evaluation) -> Verdict | None:
    """The client has a name, and the name has its address."""
    request = evaluation.request
    if request.client_name != "unknown":
        return None
    return _no_name(evaluation, "hostname", request.name_is_temporary)


async def reject_unknown_reverse_client_hostname(evaluation: Evaluation) -> Verdict | None:
    """The client has a name in DNS, whatever that name's addresses."""
    request = evaluation.request
    if request.reverse_name != "unknown":
        return None
    return _no_name(evaluation, "reverse hostname", request.name_is_temporary)


def _no_name(evaluation: Evaluation, kind: str, is_temporary: bool) -> Verdict | None:
    text = f"Client host rejected: cannot find your {kind}, [{evaluation.request.address}]"
    verdict = evaluation.verdict(evaluation.codes.unknown_client_reject_code, "4.7.25", text)
    if is_temporary:
        evaluation.postpone(evaluation.verdict(450, "4.7.25", text))
        return None
    return verdict


class DomainChecks:
    """`reject_unknown_{helo_hostname,sender_domain,recipient_domain}` over one resolver."""

    def __init__(self, resolver: Resolver, directory: RecipientDirectory) -> None:
        self._resolver = resolver
        self._directory = directory

    async def reject_unknown_helo_hostname(self, evaluation: Evaluation) -> Verdict | None:
        """The HELO name has an address or a mail exchanger."""
        helo = evaluation.request.helo
        if not helo or helo.startswith("["):
            return None
        return await self._require(evaluation, helo, Subject.HELO, "4.7.1", "Host not found")

    async def reject_unknown_sender_domain(self, evaluation: Evaluation) -> Verdict | None:
        """The sender's domain can receive mail, or is ours."""
        return await self._address(evaluation, evaluation.request.sender, Subject.SENDER, "4.1.8")

    async def reject_unknown_recipient_domain(self, evaluation: Evaluation) -> Verdict | None:
        """The recipient's domain can receive mail, or is ours."""
        return await self._address(evaluation, evaluation.request.recipient, Subject.RECIPIENT, "4.1.2")

    async def _address(
        self, evaluation: Evaluation, address: Address | None, subject: Subject, dsn: str
    ) -> Verdict | None:
        if address is None or not address.domain or address.domain.startswith("["):
            return None
        if await self._directory.is_final(address):
            return None
        return await self._require(evaluation, address.domain, subject, dsn, "Domain not found")

    async def _require(
        self, evaluation: Evaluation, domain: str, subject: Subject, dsn: str, text: str
    ) -> Verdict | None:
        codes = evaluation.codes
        is_helo = subject is Subject.HELO
        code = codes.unknown_hostname_reject_code if is_helo else codes.unknown_address_reject_code
        verdict = evaluation.refuse(code, dsn, subject, text, domain)
        try:
            exchangers = await self._resolver.mx(domain)
            if exchangers == NULL_MX and not is_helo:
                return _null_mx(evaluation, subject, domain)
            if exchangers or await self._resolver.addresses(domain):
                return None
        except TemporaryLookupFailure:
            evaluation.postpone(evaluation.refuse(450, f"4{dsn[1:]}", subject, text, domain))
            return None
        return verdict


def _null_mx(evaluation: Evaluation, subject: Subject, domain: str) -> Verdict:
    code, dsn = (556, "5.1.10") if subject is Subject.RECIPIENT else (550, "5.7.27")
    return evaluation.refuse(code, dsn, subject, f"Domain {domain} does not accept mail (nullMX)")


def block_list_name(address: str, zone: str) -> str:
    """The name to ask a DNS block list about an address. RFC 5782 §2.1, §2.4."""
    pointer = ipaddress.ip_address(address).reverse_pointer
    return f"{pointer.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}"


def reject_rbl_client(resolver: Resolver, argument: str) -> Restriction:
    """The client is not listed in the zone; `zone=127.0.0.2` names the answers that count.

    Without such a filter every answer within 127.0.0.0/8 counts but 127.255.255.0/24, by which
    lists say that they refuse to answer: that is no listing.
    """
    zone, _, wanted = argument.partition("=")

    async def check(evaluation: Evaluation) -> Verdict | None:
        try:
            answers = await resolver.addresses(block_list_name(evaluation.request.address, zone))
        except (TemporaryLookupFailure, ValueError):
            return None
        if not any(_is_listing(answer, wanted) for answer in answers):
            return None
        text = f"Service unavailable; Client host [{evaluation.request.address}] blocked using {zone}"
        return evaluation.verdict(evaluation.codes.maps_rbl_reject_code, "5.7.1", text, ", ".join(answers))

    return check


def reject_rhsbl(resolver: Resolver, subject: Subject, argument: str) -> Restriction:
    """The domain of the HELO name, sender or recipient is not listed in the zone."""
    zone, _, wanted = argument.partition("=")

    async def check(evaluation: Evaluation) -> Verdict | None:
        value = evaluation.request.value_of(subject)
        domain = evaluation.request.client_name if subject is Subject.CLIENT else value.rpartition("@")[2]
        if not domain or domain == "unknown" or domain.startswith("["):
            return None
        try:
            answers = await resolver.addresses(f"{domain}.{zone}")
        except TemporaryLookupFailure:
            return None
        if not any(_is_listing(answer, wanted) for answer in answers):
            return None
        text = f"Service unavailable; {subject.value} [{value}] blocked using {zone}"
        return evaluation.verdict(evaluation.codes.maps_rbl_reject_code, "5.7.1", text, ", ".join(answers))

    return check


def _is_listing(answer: str, wanted: str) -> bool:
    if wanted:
        return answer == wanted
    return answer.startswith("127.") and not answer.startswith("127.255.255.")
