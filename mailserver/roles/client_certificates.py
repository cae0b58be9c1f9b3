"""Client certificates from the configuration: Dovecot's ssl_ca and auth_ssl_*, Postfix's smtpd_tls_*ccert."""

from __future__ import annotations

from mailserver.accounts.certificate_logins import CertificateLogins
from mailserver.accounts.login import EXTERNAL
from mailserver.client_certificates import Authorities, Trust, digest_algorithm, name_field
from mailserver.config.config import Config
from mailserver.smtpd.client_certificate import CertificateRules
from mailserver.tls import CertificateError


def login_authorities(config: Config) -> Authorities | None:
    """Whose certificates POP3 and IMAP ask for, None where they ask for none."""
    if not config.boolean("ssl_verify_client_cert"):
        return None
    return Authorities(config.string("ssl_ca"), needs_crl=config.boolean("ssl_require_crl"))


def certificate_logins(config: Config) -> CertificateLogins | None:
    """What certificates are worth in a login, None for nothing. *Blocking.* Raises ConfigError."""
    gives_name = config.boolean("auth_ssl_username_from_cert")
    is_required = config.boolean("auth_ssl_require_client_cert")
    external = EXTERNAL in (word.upper() for word in config.words("auth_mechanisms"))
    if not (gives_name or is_required or external):
        return None
    if external and not gives_name:
        raise config.error("auth_mechanisms", "external needs auth_ssl_username_from_cert = yes: set it")
    if not config.string("ssl_ca"):
        raise config.error("ssl_ca", "name the file with the authorities that sign client certificates")
    authorities = Authorities(config.string("ssl_ca"), needs_crl=config.boolean("ssl_require_crl"))
    try:
        field = name_field(config.string("ssl_cert_username_field"))
    except ValueError as error:
        raise config.error("ssl_cert_username_field", str(error)) from error
    return CertificateLogins(_trust(config, "ssl_ca", authorities), field, gives_name, is_required)


def smtp_authorities(config: Config) -> Authorities | None:
    """Whose certificates this SMTP listener asks for, None where it asks for none."""
    if not (config.boolean("smtpd_tls_ask_ccert") or config.boolean("smtpd_tls_req_ccert")):
        return None
    return Authorities(
        config.string("smtpd_tls_CAfile"),
        config.string("smtpd_tls_CApath"),
        depth=config.integer("smtpd_tls_ccert_verifydepth"),
    )


def smtp_certificates(config: Config) -> CertificateRules | None:
    """What this SMTP listener makes of them. *Blocking.* Raises ConfigError."""
    authorities = smtp_authorities(config)
    if authorities is None:
        return None
    try:
        digest_algorithm(digest := config.string("smtpd_tls_fingerprint_digest"))
    except ValueError as error:
        raise config.error("smtpd_tls_fingerprint_digest", str(error)) from error
    trust = _trust(config, "smtpd_tls_CAfile", authorities)
    return CertificateRules(trust, digest, config.boolean("smtpd_tls_req_ccert"))


def _trust(config: Config, name: str, authorities: Authorities) -> Trust:
    try:
        return Trust(authorities)
    except CertificateError as error:
        raise config.error(name, str(error)) from error
