"""Names in certificates, and TLS versions as main.cf writes them."""

from __future__ import annotations

import pytest

from mailserver.delivery.certificate_names import matches
from mailserver.tls import lowest_version


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("mx.example.org", "mx.example.org", True),
        ("MX.example.org.", "mx.example.org", True),
        ("mx.example.org", "*.example.org", True),
        ("a.mx.example.org", "*.example.org", False),
        ("example.org", "*.example.org", False),
        ("example.org", "*.org", False),
        (".example.org", "mx.example.org", True),
        (".example.org", "a.b.example.org", True),
        (".example.org", "example.org", False),
        (".example.org", "badexample.org", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "*.0.2.1", False),
        ("mx.example.org", "", False),
    ],
)
def test_names_are_matched_strictly(pattern: str, name: str, expected: bool) -> None:
    """RFC 6125 §6.4.3; smtp_tls_secure_cert_match's dot-nexthop."""
    assert matches(pattern, name) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (">=TLSv1.2", "TLSv1.2"),
        (">=TLSv1.3", "TLSv1.3"),
        (">=TLSv1", "TLSv1.2"),
        ("!SSLv2 !SSLv3 !TLSv1 !TLSv1.1", "TLSv1.2"),
        ("!SSLv2 !SSLv3", "TLSv1.2"),
        ("!TLSv1", "TLSv1.1"),
        ("TLSv1.3", "TLSv1.3"),
        (">=TLSv1.1", "TLSv1.1"),
        ("", "TLSv1.2"),
    ],
)
def test_protocol_lists(text: str, expected: str) -> None:
    """postconf(5), smtpd_tls_protocols: bounds, exclusions, names; the old default is today's 1.2."""
    assert lowest_version(text.split()) == expected
