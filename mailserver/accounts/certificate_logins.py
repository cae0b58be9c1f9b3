"""Client certificates as a proof of who somebody is: SASL EXTERNAL, and Dovecot's auth_ssl_* parameters.

A service announces EXTERNAL to a client whose certificate is good. Whoever decides on logins looks at the
certificate again and takes the name from it, so that a front which was taken over can use certificates that
it was shown, and invent none. RFC 4422 Appendix A; Dovecot's auth_ssl_username_from_cert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from cryptography.x509.oid import ObjectIdentifier

from mailserver.accounts.login import EXTERNAL, Attempt
from mailserver.client_certificates import Chain, Trust, subject_name

LONGEST_NAME: Final = 255


class NotProved(Exception):
    """The attempt's certificate does not prove what it should. The text is for the log."""


@dataclass(frozen=True, slots=True)
class CertificateLogins:
    """`field` of the subject is the name of the account; `gives_name`: whatever the mechanism is.

    `is_required`: nobody logs in without a good certificate.
    """

    trust: Trust
    field: ObjectIdentifier
    gives_name: bool = False
    is_required: bool = False

    def name_in(self, chain: Chain) -> str:
        """The name in a good certificate, "" in any other and in none."""
        is_good = bool(chain) and self.trust.is_good(chain)
        name = subject_name(chain[0], self.field) if is_good else ""
        return name if len(name) <= LONGEST_NAME else ""

    def applied(self, attempt: Attempt) -> Attempt:
        """The attempt under the name that counts. Raises NotProved."""
        name = self.name_in(attempt.certificates)
        if not name and (self.is_required or attempt.mechanism == EXTERNAL):
            raise NotProved("no valid client certificate")
        if attempt.mechanism == EXTERNAL and attempt.name.lower() not in ("", name.lower()):
            raise NotProved("the client certificate is somebody else's")
        takes_name = attempt.mechanism == EXTERNAL or (self.gives_name and name)
        return replace(attempt, name=name) if takes_name else attempt


class Shown:
    """The certificates of one client: `certificates` gives them, () until the handshake is done."""

    def __init__(self, rules: CertificateLogins | None, certificates: Callable[[], Chain]) -> None:
        self._rules = rules
        self._certificates = certificates
        self._judged: tuple[Chain, str] = ((), "")

    @property
    def chain(self) -> tuple[bytes, ...]:
        """What goes with the client's attempts."""
        return () if self._rules is None else tuple(self._certificates())

    @property
    def name(self) -> str:
        """The name in it where it is good, else ""."""
        chain = self.chain
        if self._rules is not None and chain != self._judged[0]:
            self._judged = chain, self._rules.name_in(chain)
        return self._judged[1]
