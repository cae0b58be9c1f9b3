"""TLS for the servers: one context a service, made anew when the files change.

`ServerTls.getContext` is what Twisted asks for at each handshake, implicit or STARTTLS. It
gives the same context as long as the certificate's source reads the same and a new one
otherwise, so a renewed certificate is used from the next connection on and no connection
is dropped. A file that cannot be read or does not fit leaves the old context in use.

Each service has a context of its own: a session ticket of one is not accepted by another
(RELIABILITY B37), and a client that offers only other services' names by ALPN (RFC 7301) is refused, so that
no answer of ours passes for one of a web server. Defaults follow RELIABILITY §11: TLS 1.2 and newer, ECDHE
with AEAD, the groups that OpenSSL prefers (X25519MLKEM768 first, from 3.5 on).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory, ISSLTransport
from zope.interface import implementer

from mailserver.secret_files import read_file, stamp_file

CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL"
RELEASE_BUFFERS: Final = 0x10  # SSL_MODE_RELEASE_BUFFERS: an idle connection keeps 28 KiB, not 55
VERSIONS: Final = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}
_LOWEST_FIRST: Final = tuple(VERSIONS)
# IANA knows imap and pop3; smtp and submission are what programs call the third.
APPLICATIONS: Final = {"imap": (b"imap",), "pop3": (b"pop3",), "smtp": (b"smtp", b"submission")}


class CertificateError(Exception):
    """The certificate or key cannot be used. The text says which file, why, and what to do."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain, leaf first, and its private key, both PEM."""

    chain: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class KeyPairFiles:
    """Where a key pair lies. `key` may be the same file as `certificate`."""

    certificate: str
    key: str

    def stamp(self, stamp_secret: Callable[[str], tuple[int, ...]] = stamp_file) -> tuple[int, ...]:
        """A mark that changes when the certificate does; raises OSError."""
        return stamp_secret(self.certificate)

    def read(self, read_secret: Callable[[str], bytes] = read_file) -> KeyPair:
        """The files' content; raises CertificateError. Not even the certificate need be in our sight."""
        try:
            return KeyPair(read_secret(self.certificate), read_secret(self.key))
        except OSError as error:
            raise CertificateError(
                f"{error.filename or self.key}: {error.strerror}: name readable PEM files"
            ) from error


def make_context(pairs: Sequence[KeyPair], service: str, minimum: str = "TLSv1.2") -> SSL.Context:
    """A server context with one or two key pairs (RSA and ECDSA); raises CertificateError."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(VERSIONS[minimum])
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
        | SSL.OP_SINGLE_ECDH_USE
        | getattr(SSL, "OP_NO_RENEGOTIATION", 0)
        | getattr(SSL, "OP_IGNORE_UNEXPECTED_EOF", 0)
    )
    context.set_mode(RELEASE_BUFFERS)
    context.set_cipher_list(CIPHERS)
    context.set_session_id(service.encode())
    context.set_alpn_select_callback(partial(_application, APPLICATIONS.get(service, ())))
    for pair in pairs:
        try:
            use_key_pair(context, pair)
        except (ValueError, TypeError, SSL.Error) as error:
            raise CertificateError(f"TLS certificate and key do not fit together: {error}") from error
    return context


def _application(known: Sequence[bytes], connection: SSL.Connection, offered: Sequence[bytes]) -> bytes:
    """Called by OpenSSL where the client offers names; no_application_protocol where it has none of ours."""
    for name in offered:
        if name in known:
            return name
    raise SSL.Error([("SSL routines", "", "no application protocol")])


def use_key_pair(context: SSL.Context, pair: KeyPair) -> None:
    """The context shows this certificate. Raises ValueError, TypeError or SSL.Error where it cannot."""
    with os.fdopen(os.memfd_create("chain"), "wb") as file:  # the only way to a chain of each pair's own
        file.write(pair.chain)
        file.flush()
        x509.load_pem_x509_certificates(pair.chain)
        context.use_certificate_chain_file(f"/proc/self/fd/{file.fileno()}")
    key = serialization.load_pem_private_key(pair.key, password=None)
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
        raise ValueError("the key is neither RSA, ECDSA nor Ed25519")
    context.use_privatekey(key)
    context.check_privatekey()


@implementer(IOpenSSLContextFactory)
class ServerTls:
    """Twisted's context factory for one service ("smtp", "imap" or "pop3").

    `stamp` and `read` say where key pairs come from: files, or the helper that may read them.
    The first context is made at once, so that a bad certificate stops the start.
    """

    def __init__(
        self,
        service: str,
        stamp: Callable[[], object],
        read: Callable[[], Sequence[KeyPair]],
        minimum: str = "TLSv1.2",
        warn: Callable[[str], None] = lambda text: None,
        named: Callable[[str], ServerTls | None] = lambda name: None,
        prepare: Callable[[SSL.Context], None] = lambda context: None,
    ) -> None:
        """`named` finds another one for the name that a client asks for (SNI, RFC 6066 §3).

        `prepare` is given each new context, and may raise CertificateError.
        """
        self._service = service
        self._stamp = stamp
        self._read = read
        self._minimum = minimum
        self._warn = warn
        self._named = named
        self._prepare = prepare
        self._seen = self._warned = stamp()
        self._context = self._make()

    def _make(self) -> SSL.Context:
        context = make_context(self._read(), self._service, self._minimum)
        context.set_tlsext_servername_callback(self._choose)
        self._prepare(context)
        return context

    def _choose(self, connection: SSL.Connection) -> None:
        """Called by OpenSSL during the handshake, before a certificate is sent."""
        name = connection.get_servername()
        other = self._named(name.decode("ascii", "replace").lower()) if name else None
        if other is not None:
            connection.set_context(other.getContext())

    def getContext(self) -> SSL.Context:
        """The context for the next handshake. A bad renewal is tried again at each one, and told once."""
        seen: object = None
        try:
            seen = self._stamp()
            if seen != self._seen:
                self._context = self._make()
                self._seen = seen
        except (OSError, CertificateError) as error:
            if seen != self._warned:
                self._warned = seen
                self._warn(f"TLS certificate not reloaded, the old one stays in use: {error}")
        return self._context


def channel_bindings(transport: Any) -> Mapping[str, bytes]:
    """What a SASL mechanism can bind itself to, by the names of RFC 9266 and RFC 5929; nothing without TLS.

    `tls-exporter` wants TLS 1.3: in 1.2 it is sound only with the extended master secret, of which nobody
    tells us.
    """
    handle = transport.getHandle() if ISSLTransport.providedBy(transport) else None
    if not isinstance(handle, SSL.Connection):
        return {}
    bindings: dict[str, bytes] = {}
    certificate = handle.get_certificate()
    if certificate is not None:
        bindings["tls-server-end-point"] = _end_point(certificate.to_cryptography())
    if handle.get_protocol_version() == SSL.TLS1_3_VERSION:
        bindings["tls-exporter"] = handle.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    return bindings


def _end_point(certificate: x509.Certificate) -> bytes:
    """The certificate's digest, by its signature's hash; SHA-256 for MD5, SHA-1, none. RFC 5929 §4.1."""
    signed_with = certificate.signature_hash_algorithm
    if signed_with is None or isinstance(signed_with, (hashes.MD5, hashes.SHA1)):
        signed_with = hashes.SHA256()
    return certificate.fingerprint(signed_with)


def days_left(chain: bytes, now: float) -> float:
    """Days until the leaf certificate of a PEM chain expires; negative once it has."""
    leaf = x509.load_pem_x509_certificates(chain)[0]
    return (leaf.not_valid_after_utc.timestamp() - now) / 86400


def self_signed(names: Sequence[str], now: float, days: int = 825) -> KeyPair:
    """A new ECDSA P-256 key and a certificate of its own for the host names given."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    start = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), private)


def lowest_version(words: Sequence[str], default: str = "TLSv1.2") -> str:
    """The lowest version that a `_tls_protocols` list lets in: `>=TLSv1.2`, `!SSLv3 !TLSv1`, or names."""
    by_number = {"769": "TLSv1", "770": "TLSv1.1", "771": "TLSv1.2", "772": "TLSv1.3"}
    spelled = {name.lower(): name for name in _LOWEST_FIRST} | {"tlsv1.0": "TLSv1"}
    excluded: set[str] = set()
    included: set[str] = set()
    for word in words:
        sign = next((each for each in (">=", "<=", "!") if word.startswith(each)), "")
        text = word[len(sign) :].lower()
        version = spelled.get(text) or by_number.get(text)
        if version is None:
            continue  # SSLv2, SSLv3: never spoken here
        if sign == ">=":
            excluded.update(_LOWEST_FIRST[: _LOWEST_FIRST.index(version)])
        elif sign == "!":
            excluded.add(version)
        elif not sign:
            included.add(version)
    allowed = [each for each in _LOWEST_FIRST if each not in excluded and (not included or each in included)]
    return allowed[0] if allowed and (excluded or included) else default
