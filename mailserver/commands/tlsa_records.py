"""Whether the TLSA records of this host fit its certificates: who has them must keep them so (RFC 7672 §6).

A sender with DANE sends nothing where they do not. Without records there is nothing to say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from cryptography import x509

from mailserver.commands.domain_setup import OK, UNKNOWN, WRONG, Finding
from mailserver.delivery.certificate_names import CertificateMismatch
from mailserver.delivery.dane import END_ENTITY, PUBLIC_KEY, Dane, authenticate, record_of, usable
from mailserver.dns import TemporaryLookupFailure
from mailserver.dnssec import SecureResolver

_PORT: Final = 25


def read_chains(paths: Sequence[str]) -> Mapping[str, Sequence[x509.Certificate]]:
    """The certificates of each PEM file, leaf first; () where it cannot be read."""
    chains: dict[str, Sequence[x509.Certificate]] = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                chains[path] = x509.load_pem_x509_certificates(file.read())
        except (OSError, ValueError):
            chains[path] = ()
    return chains


async def tlsa_findings(
    resolver: SecureResolver,
    host: str,
    domains: Sequence[str],
    chains: Mapping[str, Sequence[x509.Certificate]],
) -> AsyncIterator[Finding]:
    """What is so of `_25._tcp.HOST`, for the certificates of the files."""
    subject = f"TLSA of {host}"
    try:
        answer = await resolver.tlsa(host, _PORT)
    except TemporaryLookupFailure as failure:
        yield Finding(UNKNOWN, subject, f"no answer: {failure}: senders with DANE wait as long as it is so")
        return
    if not answer.records:
        return
    records = usable(answer.records)
    if not records:
        text = "none is usable: publish `3 1 1` records (RFC 7672 §3.1)"
        yield Finding(WRONG, subject, text)
        return
    for path, chain in chains.items():
        if not chain:
            yield Finding(UNKNOWN, subject, f"{path} cannot be read here: ask as root")
            continue
        try:
            authenticate(Dane(records, host, (host, *domains)), chain)
        except CertificateMismatch as mismatch:
            wanted = record_of(chain[0], END_ENTITY, PUBLIC_KEY).data.hex()
            text = f"{path}: {mismatch}: senders with DANE send nothing: publish `3 1 1 {wanted}`"
            yield Finding(WRONG, subject, text)
        else:
            yield _fitting(subject, path, answer.is_secure)


def _fitting(subject: str, path: str, is_secure: bool) -> Finding:
    if is_secure:
        return Finding(OK, subject, f"fits {path}")
    return Finding(
        UNKNOWN,
        subject,
        f"fits {path}, but no trusted name server vouches for it: sign the zone, and have a resolver "
        "that validates, on the loopback interface",
    )
