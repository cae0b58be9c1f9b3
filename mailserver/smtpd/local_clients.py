"""Whose headers are completed as our own users' are: local_header_rewrite_clients.

A header from anywhere else, which may be signed, is not touched, unless remote_header_rewrite_domain says
with which domain. postconf(5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from mailserver.tables.access import first_entry
from mailserver.tables.table import Table, TableError
from mailserver.wire.smtp import SmtpError

if TYPE_CHECKING:
    from mailserver.smtpd.session import Session

INET_INTERFACES: Final = "permit_inet_interfaces"
SASL_AUTHENTICATED: Final = "permit_sasl_authenticated"
WORDS: Final = (
    INET_INTERFACES,
    SASL_AUTHENTICATED,
    "permit_mynetworks",
    "permit_tls_all_clientcerts",
    "permit_tls_clientcerts",
)


class LocalClients:
    """Those that `words` let in, and whose addresses are in a table. `is_own`: an address of this host's."""

    def __init__(
        self,
        words: Sequence[str] = (INET_INTERFACES, SASL_AUTHENTICATED),
        is_own: Callable[[str], bool] = lambda address: False,
        tables: Sequence[Table] = (),
        relay_certificates: Sequence[Table] = (),
    ) -> None:
        self._is_own = is_own
        self._tables = tables
        self._relay_certificates = relay_certificates
        claims: Mapping[str, Callable[[Session], bool]] = dict(
            zip(WORDS, (self._is_here, _is_known, _is_near, _is_trusted, self._is_relay), strict=True)
        )
        self._claims = [claims[word] for word in words]

    def have(self, session: Session) -> bool:
        """Whether the session's client is one of them. Raises SmtpError where a table fails."""
        try:
            if any(claim(session) for claim in self._claims):
                return True
            return first_entry(self._tables, (session.request.address,)) is not None
        except TableError as error:
            session.log(f"warning: {error}")
            raise SmtpError(451, "4.3.0", "Error: temporary lookup failure") from None

    def _is_here(self, session: Session) -> bool:
        address = session.request.address
        return address.startswith("127.") or address == "::1" or self._is_own(address)

    def _is_relay(self, session: Session) -> bool:
        found = session.certificate.described
        if found is None:
            return False
        keys = (found.fingerprint, found.public_key_fingerprint)
        return first_entry(self._relay_certificates, keys) is not None


def _is_known(session: Session) -> bool:
    return bool(session.login)


def _is_near(session: Session) -> bool:
    return session.is_among(session.services.policy.mynetworks)


def _is_trusted(session: Session) -> bool:
    return session.certificate.is_trusted
