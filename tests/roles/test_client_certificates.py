"""Settings about client certificates that cannot work are errors at the start, with a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.config.config import ConfigError
from mailserver.config.read import read_config
from mailserver.roles.client_certificates import certificate_logins, smtp_certificates
from tests.client_authority import Authority


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ("auth_mechanisms = plain external", "auth_ssl_username_from_cert"),
        ("auth_ssl_require_client_cert = yes", "authorities that sign"),
        ("auth_ssl_username_from_cert = yes\nssl_ca = /nowhere/ca.pem", r"/nowhere/ca\.pem"),
        ("auth_ssl_username_from_cert = yes\nssl_ca = {ca}\nssl_cert_username_field = x", "commonName"),
        ("smtpd_tls_ask_ccert = yes\nsmtpd_tls_fingerprint_digest = crc", "sha256"),
        ("smtpd_tls_ask_ccert = yes\nsmtpd_tls_CAfile = /nowhere/ca.pem", r"/nowhere/ca\.pem"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, settings: str, hint: str) -> None:
    """Said at the start with the parameter, and not at the first login."""
    ca = Authority(tmp_path / "ca").file
    (tmp_path / "main.cf").write_text(settings.replace("{ca}", str(ca)) + "\n")
    config = read_config(str(tmp_path), {})
    with pytest.raises(ConfigError, match=hint):
        certificate_logins(config)
        smtp_certificates(config)
