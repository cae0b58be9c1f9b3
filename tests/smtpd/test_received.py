"""The Received: field: what it says of TLS."""

from __future__ import annotations

import pytest

from mailserver.envelope import Client, Envelope
from mailserver.smtpd.received import received_field


@pytest.mark.parametrize(
    ("certificate", "lines"),
    [
        (None, ""),
        ("", "\t(using TLSv1.3 with cipher X (256/256 bits))\n"),
        ("No one", "\t(using TLSv1.3 with cipher X (256/256 bits))\n\t(No one)\n"),
    ],
)
def test_tls_is_named_where_it_is_wanted(certificate: str | None, lines: str) -> None:
    """smtpd_tls_received_header."""
    client = Client("c.test", "192.0.2.1", "h.test", "ESMTPS", tls="TLSv1.3 with cipher X (256/256 bits)")
    field = received_field(Envelope(None, client=client), "Q", "mx", "P", 0.0, certificate=certificate)
    assert field.startswith(
        f"Received: from h.test (c.test [192.0.2.1])\n{lines}\tby mx (P) with ESMTPS id Q; ".encode()
    )
