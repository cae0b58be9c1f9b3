"""Certificates that clients show: asked for in the handshake, judged after it.

The handshake takes any certificate, or none, and proves that the client has its key. Whether the certificate
is of an authority that we trust is asked here, by everybody who wants to know: Postfix's fingerprints count
without an authority, a login does not. Sessions are not resumed where certificates are asked for, so each
connection shows its own.

Certificates are DER here, the client's own first, as in `peer_certificates`. RFC 5280 §6, RFC 8446 §4.4.2.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import ISSLTransport

from mailserver.secret_files import stamp_file
from mailserver.tls import CertificateError

MOST_CERTIFICATES: Final = 10  # of one client: what is behind them is not looked at
DEPTH: Final = 9  # authorities above a certificate: smtpd_tls_ccert_verifydepth
_USES: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
_FIELDS: Final[dict[str, ObjectIdentifier]] = {
    "commonname": NameOID.COMMON_NAME,
    "cn": NameOID.COMMON_NAME,
    "emailaddress": NameOID.EMAIL_ADDRESS,
    "x500uniqueidentifier": NameOID.X500_UNIQUE_IDENTIFIER,
    "userid": NameOID.USER_ID,
    "uid": NameOID.USER_ID,
    "serialnumber": NameOID.SERIAL_NUMBER,
}

Chain = Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Authorities:
    """Files with authorities, PEM, and perhaps their revocation lists; a directory as `openssl rehash` makes.

    `needs_crl`: no certificate counts without a valid revocation list of each authority above it.
    """

    file: str
    directory: str = ""
    needs_crl: bool = False
    depth: int = DEPTH

    def stamp(self) -> tuple[int, ...]:
        """A mark that changes when the file does. Raises OSError."""
        return stamp_file(self.file) if self.file else ()

    def ask(self, context: SSL.Context) -> None:
        """Handshakes ask the client for a certificate. *Blocking.* Raises CertificateError."""
        context.set_verify(SSL.VERIFY_PEER, _any_certificate)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
        if self.file:
            with _told(self.file):
                context.load_client_ca(self.file.encode())

    def store(self) -> crypto.X509Store:
        """The authorities, as they are in the files now. *Blocking.* Raises CertificateError."""
        store = crypto.X509Store()
        if self.needs_crl:
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
        if self.file or self.directory:
            with _told(self.file or self.directory):
                store.load_locations(self.file or None, self.directory or None)
        return store


def _any_certificate(
    connection: SSL.Connection, certificate: Any, error: int, depth: int, is_good: int
) -> bool:
    return True


@contextlib.contextmanager
def _told(path: str) -> Any:
    """OpenSSL's complaints about a file become a CertificateError."""
    try:
        yield
    except (SSL.Error, crypto.Error, OSError) as error:
        text = f"{path}: no certificates of authorities can be read: write a PEM file that all may read"
        raise CertificateError(text) from error


class Trust:
    """Says which certificates are good; the files are read again when they change. Safe from any thread."""

    def __init__(self, authorities: Authorities) -> None:
        """*Blocking.* Raises CertificateError."""
        self._authorities = authorities
        self._lock = threading.Lock()
        self._seen: object = None
        self._store = authorities.store()
        with contextlib.suppress(OSError):
            self._seen = authorities.stamp()

    def is_good(self, chain: Chain) -> bool:
        """Whether the first of these leads to an authority, is valid now, not revoked, and a client's."""
        try:
            own, *others = [x509.load_der_x509_certificate(each) for each in chain[:MOST_CERTIFICATES]]
            wrapped = crypto.X509.from_cryptography
            judge = crypto.X509StoreContext(self._current(), wrapped(own), [wrapped(each) for each in others])
            return len(judge.get_verified_chain()) - 1 <= self._authorities.depth and _is_for_clients(own)
        except (ValueError, crypto.X509StoreContextError):
            return False

    def _current(self) -> crypto.X509Store:
        with self._lock, contextlib.suppress(OSError, CertificateError):  # the old ones stay in use
            seen = self._authorities.stamp()
            if seen != self._seen:
                self._store = self._authorities.store()
                self._seen = seen
        return self._store


def _is_for_clients(certificate: x509.Certificate) -> bool:
    """RFC 5280 §4.2.1.12: where it says what it is for, clients are among that."""
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return any(use in uses for use in _USES)


def peer_certificates(transport: Any) -> tuple[bytes, ...]:
    """What the client showed; () without TLS, before the handshake, and where it showed none."""
    handle = transport.getHandle() if ISSLTransport.providedBy(transport) else None
    if not isinstance(handle, SSL.Connection):
        return ()
    own = handle.get_peer_certificate(as_cryptography=True)
    if own is None:
        return ()
    others = handle.get_peer_cert_chain(as_cryptography=True) or []
    return tuple(der(each) for each in (own, *(other for other in others if other != own)))


def der(certificate: x509.Certificate) -> bytes:
    """The certificate's octets."""
    return certificate.public_bytes(serialization.Encoding.DER)


def name_field(word: str) -> ObjectIdentifier:
    """The part of a subject that a field's name means, as in `ssl_cert_username_field`. Raises ValueError."""
    try:
        return _FIELDS[word.lower()]
    except KeyError:
        names = "commonName, emailAddress, userId, serialNumber or x500UniqueIdentifier"
        raise ValueError(f"write {names}") from None


def subject_name(certificate: bytes, field: ObjectIdentifier = NameOID.COMMON_NAME) -> str:
    """That part of the subject, the first of several; "" for none, or for one that is no name."""
    return _first(x509.load_der_x509_certificate(certificate).subject, field)


def _first(name: x509.Name, field: ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(field)
    value = found[0].value if found else ""
    return value if isinstance(value, str) and value.isprintable() else ""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What Postfix tells policies, tables and logs of a client's certificate; prints are `AA:BB:…`."""

    subject: str
    issuer: str
    fingerprint: str
    public_key_fingerprint: str


def describe(certificate: bytes, digest: str = "sha256") -> ClientCertificate:
    """The certificate's names and prints. Raises ValueError for an unknown digest. Postfix's TLS_README."""
    parsed = x509.load_der_x509_certificate(certificate)
    key = parsed.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return ClientCertificate(
        _first(parsed.subject, NameOID.COMMON_NAME),
        _first(parsed.issuer, NameOID.COMMON_NAME) or _first(parsed.issuer, NameOID.ORGANIZATION_NAME),
        _print(certificate, digest),
        _print(key, digest),
    )


def _print(octets: bytes, digest: str) -> str:
    state = hashes.Hash(digest_algorithm(digest))
    state.update(octets)
    return state.finalize().hex(":").upper()


def digest_algorithm(name: str) -> hashes.HashAlgorithm:
    """The digest of a name in `smtpd_tls_fingerprint_digest`. Raises ValueError."""
    known = {"md5": hashes.MD5(), "sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}
    try:
        return known[name.lower()]
    except KeyError:
        raise ValueError("write sha256, sha512, sha1 or md5") from None
