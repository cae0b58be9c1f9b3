"""From main.cf to TLS: the certificates of listeners, and what is shown and trusted as a client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from mailserver.config.config import Config
from mailserver.delivery.client_tls import ClientContexts, OwnCertificates, Trust
from mailserver.roles.certificates import NamedCertificates, all_files
from mailserver.roles.client_certificates import login_authorities, smtp_authorities
from mailserver.tables.table import Table
from mailserver.tls import CertificateError, KeyPairFiles, ServerTls, lowest_version


class TlsParts:
    """The TLS of one process, which reads its keys itself or has another read them."""

    def __init__(
        self,
        tables_of: Callable[[Config, str], tuple[Table, ...]],
        warn: Callable[[str], Callable[[str], None]],
        read_secret: Callable[[str], bytes],
        stamp_secret: Callable[[str], tuple[int, ...]],
    ) -> None:
        self._tables_of = tables_of
        self._warn = warn
        self._read_secret = read_secret
        self._stamp_secret = stamp_secret

    def key_pair_files(self, config: Config) -> Sequence[KeyPairFiles]:
        """The certificates of a listener: RSA or whatever `cert_file` has, and a second, ECDSA pair."""
        return key_pair_files(config, "smtpd")

    def client(self, config: Config, client: str, trust: Trust) -> ClientContexts:
        """TLS towards other servers, with our own certificates where there are any. Raises ConfigError."""
        files = key_pair_files(config, client)
        own = OwnCertificates(
            lambda: [pair.stamp(self._stamp_secret) for pair in files],
            lambda: [pair.read(self._read_secret) for pair in files],
            self._warn(client),
        )
        try:
            return ClientContexts(trust, own)
        except CertificateError as error:
            raise config.error(f"{client}_tls_cert_file", str(error)) from error

    def server(self, service: str, config: Config) -> ServerTls | None:
        """The TLS of one service, None where no certificate is configured. Raises ConfigError."""
        files = self.key_pair_files(config)
        if not files:
            return None
        warn = self._warn(f"{service}-tls")
        asked = smtp_authorities(config) if service == "smtp" else login_authorities(config)

        def make(files: Sequence[KeyPairFiles], named: Callable[[str], ServerTls | None]) -> ServerTls:
            return ServerTls(
                service,
                lambda: [pair.stamp(self._stamp_secret) for pair in files],
                lambda: [pair.read(self._read_secret) for pair in files],
                minimum=lowest_version(config.words(_tls_protocols(config))),
                warn=warn,
                named=named,
                prepare=asked.ask if asked is not None else lambda context: None,
            )

        tables = self._tables_of(config, "tls_server_sni_maps")
        others = NamedCertificates(tables, lambda pair: make([pair], lambda name: None), warn)
        try:
            return make(files, others.find)
        except (CertificateError, OSError) as error:
            raise config.error("smtpd_tls_cert_file", str(error)) from error

    def chains(self, configs: Sequence[Config]) -> Iterator[tuple[str, bytes]]:
        """Path and content of every certificate that listeners with these configurations use."""
        pairs = [pair for config in configs for pair in self.key_pair_files(config)]
        named = all_files(table for c in configs for table in self._tables_of(c, "tls_server_sni_maps"))
        for path in dict.fromkeys(pair.certificate for pair in (*pairs, *named)):
            with contextlib.suppress(OSError):  # whoever uses it says so
                yield path, self._read_secret(path)


def key_pair_files(config: Config, side: str) -> Sequence[KeyPairFiles]:
    """Where the certificates of the `side` (smtpd, smtp, lmtp) lie."""
    names = [(f"{side}_tls_cert_file", f"{side}_tls_key_file")]
    names += [(f"{side}_tls_eccert_file", f"{side}_tls_eckey_file")]
    named = [(config.string(cert), config.string(key)) for cert, key in names]
    chains = [(path, path) for path in config.words(f"{side}_tls_chain_files")]
    return [KeyPairFiles(cert, key) for cert, key in chains or named if cert]


def _tls_protocols(config: Config) -> str:
    """The parameter with the versions of a listener: demanded TLS has its own."""
    is_demanded = config.string("smtpd_tls_security_level") == "encrypt" or config.boolean(
        "smtpd_enforce_tls"
    )
    return "smtpd_tls_mandatory_protocols" if is_demanded else "smtpd_tls_protocols"
