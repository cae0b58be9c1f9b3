"""TLS towards other hosts: encryption for everybody, identity where the policy asks for it.

A `ClientTls` is made for one connection. Without names any certificate will do (RFC 7435); with names the
chain must lead to a trusted authority and the certificate must have one of them; with TLSA records these
decide alone. All that is looked at before anything but the handshake is sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.delivery.certificate_names import CertificateMismatch, is_address, matches, names_in
from mailserver.delivery.dane import Dane, authenticate
from mailserver.tls import RELEASE_BUFFERS, VERSIONS, CertificateError, KeyPair, use_key_pair

_asked_of: Final[WeakKeyDictionary[SSL.Connection, Callable[[SSL.Connection], None]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count: smtp_tls_CAfile, smtp_tls_CApath, tls_append_default_CA.

    Where neither file nor directory is given, the system's authorities are trusted; where they cannot be
    read, nobody's: then no certificate can be verified.
    """

    file: str = ""
    directory: str = ""
    with_default: bool = False

    def load_into(self, context: SSL.Context) -> None:
        """The context trusts these. *Blocking.*"""
        with contextlib.suppress(SSL.Error):
            if self.file or self.directory:
                context.load_verify_locations(self.file or None, self.directory or None)
        if self.with_default or not (self.file or self.directory):
            context.set_default_verify_paths()


@dataclass(frozen=True, slots=True)
class OwnCertificates:
    """Our certificates for servers that ask for one: smtp_tls_cert_file and its like.

    `stamp` changes when the files do, and may raise OSError; `read` raises CertificateError. Both block.
    """

    stamp: Callable[[], object] = lambda: None
    read: Callable[[], Sequence[KeyPair]] = lambda: ()
    warn: Callable[[str], None] = lambda text: None


class ClientContexts:
    """Makes `ClientTls` for connections; authorities are read once, our certificates when they changed.

    *Blocking* at the first of each kind. A certificate that can no longer be used leaves the old one in use.
    """

    def __init__(self, trust: Trust | None = None, own: OwnCertificates | None = None) -> None:
        """Raises CertificateError where our certificates cannot be used."""
        self._trust = trust or Trust()
        self._own = own or OwnCertificates()
        self._stamp: object = None
        self._pairs: Sequence[KeyPair] = ()
        self._contexts: dict[tuple[str, bool, bool], SSL.Context] = {}
        with contextlib.suppress(OSError):
            self._stamp = self._own.stamp()
        self._take(self._own.read())

    def __call__(
        self, host: str, names: Sequence[str] = (), minimum: str = "TLSv1.2", dane: Dane | None = None
    ) -> ClientTls:
        """TLS towards `host`, whose certificate must have one of `names`, or be as `dane` has it.

        Without either nothing is verified.
        """
        self._renew()
        kind = (minimum, bool(names) and dane is None, dane is not None)
        if kind not in self._contexts:
            self._contexts[kind] = self._make(*kind)
        check: Callable[[SSL.Connection], None] | None = None
        if dane is not None:
            check = partial(_check_dane, dane)
        elif names:
            check = partial(_check_names, tuple(names))
        return ClientTls(self._contexts[kind], host, check)

    def _renew(self) -> None:
        try:
            stamp = self._own.stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._take(self._own.read())
        except (OSError, CertificateError) as error:
            self._own.warn(f"TLS certificate is not renewed: {error}")

    def _take(self, pairs: Sequence[KeyPair]) -> None:
        """These are our certificates from now on. Raises CertificateError."""
        _show(SSL.Context(SSL.TLS_CLIENT_METHOD), pairs)
        self._pairs = pairs
        self._contexts.clear()

    def _make(self, minimum: str, has_names: bool, has_dane: bool) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(VERSIONS[minimum])
        context.set_mode(RELEASE_BUFFERS)
        _show(context, self._pairs)
        if has_names:
            self._trust.load_into(context)
            context.set_verify(SSL.VERIFY_PEER)
        if has_names or has_dane:
            context.set_info_callback(_check)
        return context


def _show(context: SSL.Context, pairs: Sequence[KeyPair]) -> None:
    """The context has these certificates for whoever asks. Raises CertificateError."""
    for pair in pairs:
        try:
            use_key_pair(context, pair)
        except (ValueError, TypeError, SSL.Error) as error:
            raise CertificateError(f"TLS certificate and key do not fit together: {error}") from error


@implementer(IOpenSSLClientConnectionCreator)
class ClientTls:
    """What Twisted needs to start TLS as a client, for one connection."""

    def __init__(
        self, context: SSL.Context, host: str, check: Callable[[SSL.Connection], None] | None
    ) -> None:
        self._context = context
        self._host = host.rstrip(".").encode("idna").decode() if not host.isascii() else host.rstrip(".")
        self._check = check

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """A connection with the server's name in its hello, that fails unless the certificate fits."""
        connection = SSL.Connection(self._context, None)
        if self._check is not None:
            _asked_of[connection] = self._check
        if not is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


def _check(connection: SSL.Connection, where: int, result: int) -> None:
    """The certificate is looked at when the handshake is done, before anything is sent under it.

    pyOpenSSL swallows what a callback raises, so nothing may escape that does not fail the connection.
    Twisted has put its TLS protocol into the connection's app data.
    """
    if not where & SSL.SSL_CB_HANDSHAKE_DONE:
        return
    protocol = connection.get_app_data()
    try:
        _asked_of[connection](connection)
    except CertificateMismatch:
        protocol.failVerification(Failure())
    except Exception as error:  # whatever it is, this certificate proves nothing
        protocol.failVerification(Failure(CertificateMismatch(f"certificate cannot be read: {error}")))


def _check_names(patterns: Sequence[str], connection: SSL.Connection) -> None:
    certificate = connection.get_peer_certificate(as_cryptography=True)
    found = tuple(names_in(certificate)) if certificate is not None else ()
    if not any(matches(pattern, name) for pattern in patterns for name in found):
        raise CertificateMismatch(f"certificate is for {', '.join(found) or 'nobody'}", is_trusted=True)


def _check_dane(dane: Dane, connection: SSL.Connection) -> None:
    authenticate(dane, connection.get_peer_cert_chain(as_cryptography=True) or ())


def describe(connection: SSL.Connection) -> str:
    """What the log says of a session: `TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)`."""
    bits = connection.get_cipher_bits()
    version, cipher = connection.get_protocol_version_name(), connection.get_cipher_name()
    return f"{version} with cipher {cipher} ({bits}/{bits} bits)"
