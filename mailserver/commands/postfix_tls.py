"""`postfix tls`: opportunistic TLS with keys and certificates of one's own. postfix-tls(1).

New files lie beside main.cf and bear the time in their names, so that what is in use stays until the new one
is deployed. Keys are readable by their owner alone; main.cf is edited as by `postconf -e`. A reload takes it.
"""

from __future__ import annotations

import datetime
import getopt
import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailserver.commands.errors import CommandError
from mailserver.config import edit
from mailserver.config.config import Config
from mailserver.durable import replace_file

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

HELP: Final = """\
usage: postfix tls COMMAND [options]

  enable-client                            use TLS where servers offer it
  enable-server [-a rsa|ecdsa] [-b BITS] [HOSTNAME ...]
                                           make a key and a certificate, and offer TLS
  new-server-key [-a rsa|ecdsa] [-b BITS] [HOSTNAME ...]
                                           a new key and certificate, to be deployed
  new-server-cert [-a rsa|ecdsa] [-b BITS] [HOSTNAME ...]
                                           a new certificate for the key that there is
  deploy-server-cert CERTFILE KEYFILE      main.cf names these
  output-server-csr [-k KEYFILE] [HOSTNAME ...]
                                           a request for a certificate
  output-server-tlsa [-h HOSTNAME] [KEYFILE ...]
                                           the DNS records of DANE
  all-default-client, all-default-server   exit status 0 where main.cf says nothing of it

example:
  postfix tls new-server-key && postfix tls output-server-csr -k key-20261124-151432.pem
"""
_DAYS: Final = 36_525
_CURVES: Final[Mapping[str, Callable[[], ec.EllipticCurve]]] = {
    "secp256r1": ec.SECP256R1,
    "prime256v1": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
}
_SIDES: Final = {
    "client": ("smtp_use_tls", "smtp_enforce_tls", "smtp_tls_security_level", "smtp_tls_cert_file"),
    "server": ("smtpd_use_tls", "smtpd_enforce_tls", "smtpd_tls_security_level", "smtpd_tls_cert_file"),
}
_PARAMETERS: Final = {
    "rsa": ("smtpd_tls_key_file", "smtpd_tls_cert_file"),
    "ecdsa": ("smtpd_tls_eckey_file", "smtpd_tls_eccert_file"),
}
_RELOAD: Final = """\
Run the command:
  # postfix reload
if you want the new settings to take effect immediately."""


class TlsScript:
    """The commands, for one configuration. Each gives its exit status. Raises CommandError, OSError."""

    def __init__(self, config: Config, words: Sequence[str]) -> None:
        self._config = config
        self._command = words[0]
        try:
            options, self._names = getopt.getopt(list(words[1:]), "a:b:h:k:r:")
        except getopt.GetoptError as error:
            raise CommandError(f"usage: postfix tls {words[0]}: see postfix tls --help: {error}") from error
        self._options = dict(options)

    def run(self) -> int:
        """What the words ask for is done."""
        commands: dict[str, Callable[[], int]] = {
            "enable-client": self._enable_client,
            "enable-server": self._enable_server,
            "new-server-key": lambda: self._new(None),
            "new-server-cert": self._new_certificate,
            "deploy-server-cert": self._deploy,
            "output-server-csr": self._request,
            "output-server-tlsa": self._tlsa,
            "all-default-client": lambda: int(not self._is_default("client")),
            "all-default-server": lambda: int(not self._is_default("server")),
        }
        command = commands.get(self._command)
        if command is None:
            raise CommandError(f"usage: postfix tls command: one of {', '.join(commands)}")
        return command()

    # ------------------------------------------------------------ settings

    def _is_default(self, side: str) -> bool:
        return not any(self._config.is_set(name) and self._config.string(name) for name in _SIDES[side])

    def _set(self, values: Mapping[str, str]) -> None:
        path = f"{self._config.directory}/main.cf"
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            text = file.read()
        replace_file(path, edit.set_values(text, values))

    def _enable_client(self) -> int:
        if not self._is_default("client"):
            _say(
                "*** Non-default SMTP client TLS settings detected, no changes made.\n"
                "For opportunistic TLS in the SMTP client, this setting is typical:\n"
                "  smtp_tls_security_level = may"
            )
            return 0
        self._set({"smtp_tls_security_level": "may"})
        _say(f"Enabled opportunistic TLS in the Postfix SMTP client.\n{_RELOAD}")
        return 0

    def _enable_server(self) -> int:
        if self._is_default("server"):
            certificate, key = self._make(None)
            self._deploy_pair(certificate, key, {"smtpd_tls_security_level": "may"})
            _say(f"Enabled opportunistic TLS in the Postfix SMTP server\n{_deployed(certificate, key)}")
            return 0
        _say(
            "*** Non-default SMTP server TLS settings detected, no changes made.\n"
            "For opportunistic TLS in the SMTP server, this setting is typical:\n"
            "  smtpd_tls_security_level = may\n"
            'You can use "postfix tls new-server-cert" to create a new certificate.\n'
            'Or, "postfix tls new-server-key" to also force a new private key.'
        )
        return 0

    # ------------------------------------------------------------ keys and certificates

    def _new_certificate(self) -> int:
        path = self._config.string(_PARAMETERS[self._algorithm()][0])
        return self._new(_read_key(path) if path and path != "none" else None)

    def _new(self, old: Key | None) -> int:
        certificate, key = self._make(old)
        _say(
            "New private key and self-signed certificate created. To deploy run:\n"
            f"  # postfix tls deploy-server-cert {certificate} {key}\n"
            "To generate a CSR run:\n"
            f"  # postfix tls output-server-csr -k {key} [<hostname> ...]\n"
            f"Save the signed certificate chain in {certificate}, and deploy as above.\n"
            f"To generate TLSA records run:\n  # postfix tls output-server-tlsa [-h <hostname>] {key}"
        )
        return 0

    def _algorithm(self) -> str:
        algorithm = self._options.get("-a", "rsa")
        if algorithm not in _PARAMETERS:
            raise CommandError(f"Unsupported private key algorithm: {algorithm}")
        return algorithm

    def _make(self, old: Key | None) -> tuple[str, str]:
        """The paths of a new certificate of its own, and of the key: the old one, or a new one."""
        algorithm = self._algorithm()
        key = old or _new_key(algorithm, self._options.get("-b", ""))
        if algorithm != _algorithm_of(key):
            raise CommandError(f"Key algorithm '{_algorithm_of(key)}' is not '{algorithm}': give -a")
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        start = f"{self._config.directory}/{'ec' if algorithm == 'ecdsa' else ''}"
        paths = f"{start}cert-{stamp}.pem", f"{start}key-{stamp}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(paths[1], private, 0o600)
        certificate = _certificate(key, self._hosts())
        _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        return paths

    def _hosts(self) -> Sequence[str]:
        return self._names or [self._config.string("myhostname")]

    def _deploy(self) -> int:
        if len(self._names) != 2:
            raise CommandError("usage: postfix tls deploy-server-cert certfile keyfile")
        certificate, key = map(self._absolute, self._names)
        self._deploy_pair(certificate, key, {})
        _say(_deployed(certificate, key))
        return 0

    def _deploy_pair(self, certificate: str, key: str, settings: Mapping[str, str]) -> None:
        private = _read_key(key)
        try:
            with open(certificate, "rb") as file:
                found = x509.load_pem_x509_certificate(file.read())
        except ValueError as error:
            raise CommandError(f"{certificate}: no certificate: {error}") from error
        if _public(found.public_key()) != _public(private.public_key()):
            raise CommandError(f"Certificate in {certificate} does not match key in {key}")
        names = _PARAMETERS[_algorithm_of(private)]
        if names[1] == "smtpd_tls_eccert_file" and not self._config.string("smtpd_tls_cert_file"):
            names = _PARAMETERS["rsa"]  # the only one there is
        self._set({names[0]: key, names[1]: certificate, **settings})

    def _absolute(self, path: str) -> str:
        return os.path.join(self._config.directory, path)

    # ------------------------------------------------------------ what others need

    def _key_files(self, words: Sequence[str]) -> list[str]:
        """The files of the words, of which `rsa` and `ecdsa` are those in use."""
        found = []
        for word in words:
            path = self._config.string(_PARAMETERS[word][0]) if word in _PARAMETERS else self._absolute(word)
            if path and path != "none" and path not in found:
                found.append(path)
        return found

    def _request(self) -> int:
        files = self._key_files([self._options.get("-k", "rsa")])
        if not files:
            raise CommandError("no private key in use: give -k KEYFILE")
        key, hosts = _read_key(files[0]), self._hosts()
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        for extension in _extensions(hosts):
            builder = builder.add_extension(extension, critical=False)
        request = builder.sign(key, hashes.SHA256())
        sys.stdout.write(request.public_bytes(serialization.Encoding.PEM).decode())
        return 0

    def _tlsa(self) -> int:
        host = self._options.get("-h") or self._config.string("myhostname")
        for path in self._key_files(self._names or list(_PARAMETERS)):
            digest = hashlib.sha256(_public(_read_key(path).public_key())).hexdigest()
            print(f"_25._tcp.{host}. IN TLSA 3 1 1 {digest}")
        return 0


def _say(text: str) -> None:
    for line in text.splitlines():
        print(f"postfix/postfix-tls-script: {line}", file=sys.stderr)


def _deployed(certificate: str, key: str) -> str:
    return (
        f"New TLS private key and certificate deployed.\n{_RELOAD}\n"
        f"To generate a CSR run:\n  # postfix tls output-server-csr -k {key} [<hostname> ...]\n"
        f"Save the signed certificate chain in {certificate}."
    )


def _write(path: str, content: bytes, mode: int) -> None:
    """The file is new, and durable. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _new_key(algorithm: str, bits: str) -> Key:
    if algorithm == "ecdsa":
        curve = _CURVES.get(bits or "secp256r1")
        if curve is None:
            raise CommandError(f"-b {bits}: write one of {', '.join(_CURVES)}")
        return ec.generate_private_key(curve())
    if bits and not (bits.isdecimal() and 2048 <= int(bits) <= 8192):
        raise CommandError(f"-b {bits}: write a number of bits from 2048 to 8192")
    return rsa.generate_private_key(65_537, int(bits or 2048))


def _algorithm_of(key: Key) -> str:
    return "rsa" if isinstance(key, rsa.RSAPrivateKey) else "ecdsa"


def _read_key(path: str) -> Key:
    try:
        with open(path, "rb") as file:
            key = serialization.load_pem_private_key(file.read(), None)
    except (ValueError, TypeError) as error:
        raise CommandError(f"no private key found in file: {path}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CommandError(f"{path}: neither an RSA key nor an ECDSA key")
    return key


def _public(key: object) -> bytes:
    """SubjectPublicKeyInfo, DER."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(encoding, form))  # type: ignore[attr-defined]


def _extensions(hosts: Sequence[str]) -> list[x509.ExtensionType]:
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    return [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), names]


def _certificate(key: Key, hosts: Sequence[str]) -> x509.Certificate:
    """A certificate that the key signs itself, for these hosts."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start)
    builder = builder.not_valid_after(start + datetime.timedelta(days=_DAYS))
    for extension in (x509.BasicConstraints(ca=False, path_length=None), *_extensions(hosts)):
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())
