"""The verdict on a login attempt: password, network rules and penalty taken together.

`Judge` is what stands behind every `Logins`, in this process or in the helper. It blocks for as long
as a hash takes and never waits: the delay is part of the verdict, and whoever answers holds
the answer back. The reason of a refusal is for the log only.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from mailserver.accounts.account import Account, Origin, PasswordCheck, TemporaryAccountFailure
from mailserver.accounts.certificate_logins import CertificateLogins, NotProved
from mailserver.accounts.login import EXTERNAL, Attempt, Refused
from mailserver.accounts.scram import Challenge
from mailserver.accounts.scram_check import ScramCheck
from mailserver.accounts.throttle import Throttle
from mailserver.maillog import MailLog, printable

LOCAL: Final = "local"  # instead of an address


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to answer, and after how many seconds; `signature` is our part of SCRAM."""

    answer: Account | Refused
    delay: float
    signature: bytes = b""


def is_allowed_from(account: Account, address: str) -> bool:
    """Whether the account's `allow_nets` (Dovecot's: networks or addresses with commas) admits the address.

    An entry that is no network admits nobody; `local` is who comes without an address.
    """
    networks = account.extra.get("allow_nets")
    if networks is None:
        return True
    words = [text.strip().strip("[]") for text in networks.split(",")]
    try:
        parsed = [ipaddress.ip_network(text, strict=False) for text in words if text != LOCAL]
        if address == LOCAL:
            return LOCAL in words
        client = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return any(client in network for network in parsed)


class Judge:
    """Answers attempts. Safe to use from any thread. Without `scram` no proof is right.

    Without `certificates` those of clients prove nothing.
    """

    def __init__(
        self,
        check: PasswordCheck,
        throttle: Throttle,
        log: MailLog,
        scram: ScramCheck | None = None,
        certificates: CertificateLogins | None = None,
    ) -> None:
        self._check = check
        self.throttle = throttle
        self._log = log
        self._scram = scram
        self._certificates = certificates

    def challenge(self, name: str) -> Challenge | Refused:
        """What a SCRAM client of that name is told. Blocking; never raises."""
        if self._scram is None:
            return Refused(temporary=True, reason="SCRAM is not configured")
        try:
            return self._scram.challenge(name)
        except Exception as error:  # as in `judge`
            self._log.write("auth", f"Error: scram({printable(name, 64)}): {error}")
            return Refused(temporary=True, reason=str(error))

    def judge(self, attempt: Attempt) -> Verdict:
        """The verdict. Blocking; never raises: an unexpected fault is temporary, and logged."""
        name = attempt.name.lower()
        address = attempt.peer.address
        if not self.throttle.may_check(address, name):
            return Verdict(Refused(temporary=True, reason="too many attempts of this place wait"), 0.0)
        try:
            attempt = self._with_certificate(attempt)
            name = attempt.name.lower()
            account, signature = self._verify(attempt)
        except NotProved as problem:
            return self._wrong(attempt, name, str(problem))
        except TemporaryAccountFailure as failure:
            return self._temporary(attempt, str(failure))
        except Exception as error:  # P5: our own bug is a temporary answer, with its cause in the log
            return self._temporary(attempt, f"internal error: {type(error).__name__}: {error}")
        if account is None:
            return self._wrong(attempt, name, "wrong password or unknown user")
        if not is_allowed_from(account, address):
            return self._wrong(attempt, name, "allow_nets does not admit this address")
        return Verdict(account, self.throttle.succeeded(address, name), signature)

    def _with_certificate(self, attempt: Attempt) -> Attempt:
        if self._certificates is not None:
            return self._certificates.applied(attempt)
        if attempt.mechanism == EXTERNAL:
            raise NotProved("client certificates are not configured")
        return attempt

    def _verify(self, attempt: Attempt) -> tuple[Account | None, bytes]:
        origin = Origin(attempt.service, attempt.peer.address)
        if attempt.mechanism == EXTERNAL:
            return self._check.vouched(attempt.name, origin), b""
        if attempt.proof is None:
            return self._check.verify(attempt.name, attempt.password, origin), b""
        verified = None if self._scram is None else self._scram.verify(attempt.name, attempt.proof, origin)
        return verified or (None, b"")

    def _wrong(self, attempt: Attempt, name: str, reason: str) -> Verdict:
        # Each proof differs, so a repeated wrong password counts as several here: on the safe side.
        guess = attempt.password if attempt.proof is None else attempt.proof.client_proof
        delay = self.throttle.failed(attempt.peer.address, name, guess)
        return Verdict(Refused(reason=reason), delay)

    def _temporary(self, attempt: Attempt, cause: str) -> Verdict:
        name = printable(attempt.name, 64)
        self._log.write("auth", f"Error: {attempt.service}({name},{attempt.peer.address}): {cause}")
        return Verdict(Refused(temporary=True, reason=cause), 0.0)
