"""What TLSA records ask of a server's certificate: DANE-TA(2) and DANE-EE(3), as SMTP has them.

PKIX-TA(0) and PKIX-EE(1) are unusable, since SMTP has no authorities that everybody trusts (RFC 7672
§3.1.3). Pure: records and certificates are values.
RFC 6698, RFC 7671, RFC 7672 §3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from mailserver.delivery.certificate_names import CertificateMismatch, matches, names_in
from mailserver.dnssec import Tlsa

TRUST_ANCHOR: Final = 2
END_ENTITY: Final = 3
CERTIFICATE: Final = 0  # the selectors
PUBLIC_KEY: Final = 1
FULL: Final = 0  # the matching type without a digest
DIGESTS: Final = {"sha256": 1, "sha512": 2}  # the others' names; tls_dane_digests
_LENGTHS: Final = {1: 32, 2: 64}  # octets


@dataclass(frozen=True, slots=True)
class Dane:
    """How a server is authenticated: by one of these usable records. RFC 7672 §2.2.

    `base_domain` is where they stand, and what the server is asked for (SNI, RFC 7672 §8.1). Where a trust
    anchor is what matches, the certificate must have one of `names`.
    """

    records: tuple[Tlsa, ...]
    base_domain: str
    names: tuple[str, ...]


def usable(records: Iterable[Tlsa], digests: Sequence[str] = ("sha512", "sha256")) -> tuple[Tlsa, ...]:
    """The records that can authenticate a server; of a usage and selector only those of the best digest.

    `digests` are in descending order; full certificates and keys count beside them. RFC 7671 §9.
    """
    order = {DIGESTS[name]: rank for rank, name in enumerate(digests) if name in DIGESTS}
    good = [record for record in records if _is_usable(record, order)]
    best: dict[tuple[int, int], int] = {}
    for record in good:
        if record.matching_type != FULL:
            kind = (record.usage, record.selector)
            best[kind] = min(best.get(kind, len(order)), order[record.matching_type])
    return tuple(
        record
        for record in good
        if record.matching_type == FULL
        or order[record.matching_type] == best[(record.usage, record.selector)]
    )


def _is_usable(record: Tlsa, digests: Iterable[int]) -> bool:
    if record.usage not in (TRUST_ANCHOR, END_ENTITY) or record.selector not in (CERTIFICATE, PUBLIC_KEY):
        return False
    if record.matching_type != FULL:
        return record.matching_type in digests and len(record.data) == _LENGTHS[record.matching_type]
    try:
        _parse(record)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _parse(record: Tlsa) -> Any:
    """The certificate or public key that a full record has. Raises ValueError, UnsupportedAlgorithm."""
    if record.selector == CERTIFICATE:
        return x509.load_der_x509_certificate(record.data)
    return load_der_public_key(record.data)


def fits(record: Tlsa, certificate: x509.Certificate) -> bool:
    """Whether the record's data is that of the certificate. RFC 6698 §2.1."""
    data = _selected(certificate, record.selector)
    if record.matching_type == FULL:
        return data == record.data
    digest = hashlib.sha256 if record.matching_type == DIGESTS["sha256"] else hashlib.sha512
    return digest(data).digest() == record.data


def _selected(certificate: x509.Certificate, selector: int) -> bytes:
    """What of the certificate a record is about, in DER."""
    if selector == CERTIFICATE:
        return certificate.public_bytes(Encoding.DER)
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def record_of(certificate: x509.Certificate, usage: int, selector: int) -> Tlsa:
    """The record with SHA-256 that the certificate fits."""
    digest = hashlib.sha256(_selected(certificate, selector)).digest()
    return Tlsa(usage, selector, DIGESTS["sha256"], digest)


def authenticate(dane: Dane, chain: Sequence[x509.Certificate]) -> None:
    """The chain, leaf first, is that of the server. Raises CertificateMismatch where nothing says so.

    DANE-EE(3) asks for neither names nor dates (RFC 7671 §5.1), DANE-TA(2) for both (§5.2).
    """
    if not chain:
        raise CertificateMismatch("the server has no certificate")
    leaf = chain[0]
    if any(record.usage == END_ENTITY and fits(record, leaf) for record in dane.records):
        return
    anchors = tuple(_anchors(dane.records, chain))
    if not anchors:
        raise CertificateMismatch("no TLSA record matches a certificate of the server")
    _check_chain(anchors, chain)
    _check_names(dane.names, leaf)


def _anchors(records: Iterable[Tlsa], chain: Sequence[x509.Certificate]) -> Iterator[x509.Certificate]:
    """The certificates that records make trust anchors, or that a key in a record itself has signed."""
    for record in records:
        if record.usage != TRUST_ANCHOR:
            continue
        yield from (certificate for certificate in chain[1:] if fits(record, certificate))
        if record.matching_type == FULL:  # the server need not send what stands in DNS
            anchor = _parse(record)
            if isinstance(anchor, x509.Certificate):
                yield anchor
            else:
                yield from (certificate for certificate in chain if _is_signed_by(certificate, anchor))


def _is_signed_by(certificate: x509.Certificate, key: Any) -> bool:
    signed, signature, digest = (
        certificate.tbs_certificate_bytes,
        certificate.signature,
        certificate.signature_hash_algorithm,
    )
    try:
        match key:
            case rsa.RSAPublicKey():
                scheme = certificate.signature_algorithm_parameters
                if digest is None or not isinstance(scheme, (padding.PKCS1v15, padding.PSS)):
                    return False
                key.verify(signature, signed, scheme, digest)
            case ec.EllipticCurvePublicKey():
                if digest is None:
                    return False
                key.verify(signature, signed, ec.ECDSA(digest))
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                key.verify(signature, signed)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _check_chain(anchors: Iterable[x509.Certificate], chain: Sequence[x509.Certificate]) -> None:
    """Raises CertificateMismatch where no valid path leads from the leaf to one of the anchors."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    leaf, *others = map(crypto.X509.from_cryptography, chain)
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        raise CertificateMismatch(f"certificate verification failed: {error}") from error
    try:
        uses = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(uses):
        raise CertificateMismatch("certificate is not for servers")


def _check_names(names: Iterable[str], leaf: x509.Certificate) -> None:
    """Raises CertificateMismatch where the certificate has none of the names. RFC 7672 §3.2.3."""
    found = tuple(names_in(leaf)) or tuple(_common_names(leaf))
    if not any(matches(name, each) for name in names for each in found):
        raise CertificateMismatch(f"certificate is for {', '.join(found) or 'nobody'}", is_trusted=True)


def _common_names(certificate: x509.Certificate) -> Iterator[str]:
    """For certificates without any subjectAltName: private authorities still make them."""
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        yield str(attribute.value).lower()
