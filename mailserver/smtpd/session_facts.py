"""What policy servers and milters are told of a session, beyond what decisions need. Made when asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session

_TLS: Final = re.compile(r"(\S+) with cipher (\S+) \((\d+)/\d+ bits\)")


def session_facts(session: Session) -> Mapping[str, str]:
    """Under the names of SMTPD_POLICY_README."""
    peer, host = session.wire.transport.getPeer(), session.wire.transport.getHost()
    tls = _TLS.fullmatch(session.wire.tls_description())
    version, cipher, bits = tls.groups() if tls else ("", "", "0")
    return {
        "protocol_name": "ESMTP" if session.is_esmtp else "SMTP",
        "client_port": str(getattr(peer, "port", "")),
        "server_address": str(getattr(host, "host", "")),
        "server_port": str(getattr(host, "port", "")),
        "sasl_method": session.sasl_method,
        "encryption_protocol": version,
        "encryption_cipher": cipher,
        "encryption_keysize": bits,
        **session.certificate.facts(),
        **session.mail.facts(),
    }
