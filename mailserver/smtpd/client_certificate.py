"""The certificate of a session's client: prints for tables, names for policies, trust for those who ask.

Postfix's smtpd_tls_ask_ccert and smtpd_tls_req_ccert. A print counts whoever signed the certificate; its
names count only where an authority that smtpd_tls_CAfile or smtpd_tls_CApath knows signed it (TLS_README).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailserver.accounts.certificate_logins import Shown
from mailserver.client_certificates import Chain, ClientCertificate, Trust, describe, peer_certificates

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session


@dataclass(frozen=True, slots=True)
class CertificateRules:
    """Clients are asked for a certificate. `is_required`: who has no good one is sent away."""

    trust: Trust
    digest: str = "sha256"
    is_required: bool = False


def _in_comment(text: str) -> str:
    """The text as it may stand between quotes in a comment. RFC 5322 §3.2.2."""
    return "".join(each if each.isprintable() and each not in '()\\"' else "?" for each in text)


class PeerCertificate:
    """What one session's client showed; nothing before TLS, and where nobody asked."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rules = session.services.certificates
        self._judged: tuple[Chain, ClientCertificate | None, bool] = ((), None, False)
        self.shown = Shown(session.services.certificate_logins, self._chain)

    def _chain(self) -> Chain:
        session = self._session
        return peer_certificates(session.wire.transport) if self._rules and session.wire.is_tls else ()

    def _look(self) -> tuple[Chain, ClientCertificate | None, bool]:
        chain = self._chain()
        if chain != self._judged[0] and self._rules is not None:
            described = describe(chain[0], self._rules.digest) if chain else None
            self._judged = chain, described, bool(chain) and self._rules.trust.is_good(chain)
        return self._judged

    @property
    def described(self) -> ClientCertificate | None:
        """The certificate, trusted or not."""
        return self._look()[1]

    @property
    def is_trusted(self) -> bool:
        """Whether it is of an authority that we know."""
        return self._look()[2]

    def complaint(self) -> str:
        """Why the client must go, in Postfix's words; "" where it may stay."""
        if self._rules is None or not self._rules.is_required or not self._session.wire.is_tls:
            return ""
        if self.is_trusted:
            return ""
        is_there = self.described is not None
        return "Client certificate not trusted" if is_there else "No client certificate presented"

    @property
    def comment(self) -> str:
        """What Received: says of it under TLS, in Postfix's words."""
        found = self.described
        if found is None:
            return (
                "Client did not present a certificate" if self._rules else "No client certificate requested"
            )
        verdict = "verified OK" if self.is_trusted else "not verified"
        return f'Client CN "{_in_comment(found.subject)}", Issuer "{_in_comment(found.issuer)}" ({verdict})'

    def facts(self) -> Mapping[str, str]:
        """Under the names of SMTPD_POLICY_README."""
        found, is_trusted = self.described, self.is_trusted
        return {
            "ccert_subject": found.subject if found and is_trusted else "",
            "ccert_issuer": found.issuer if found and is_trusted else "",
            "ccert_fingerprint": found.fingerprint if found else "",
            "ccert_pubkey_fingerprint": found.public_key_fingerprint if found else "",
        }
