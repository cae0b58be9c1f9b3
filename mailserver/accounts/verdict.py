"""The verdict on a login attempt: password, network rules and penalty taken together.

`Judge` is what stands behind every `Logins`, in this process or in the helper. It blocks for as long
as a hash takes and never waits: the delay is part of the verdict, and whoever answers holds
the answer back. The reason of a refusal is for the log only.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from mailserver.accounts.account import Account, PasswordCheck, TemporaryAccountFailure
from mailserver.accounts.login import Attempt, Refused
from mailserver.accounts.throttle import Throttle
from mailserver.maillog import MailLog, printable


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to answer, and after how many seconds."""

    answer: Account | Refused
    delay: float


def is_allowed_from(account: Account, address: str) -> bool:
    """Whether the account's `allow_nets` (Dovecot's: networks or addresses with commas) admits the address.

    An entry that is no network admits nobody.
    """
    networks = account.extra.get("allow_nets")
    if networks is None:
        return True
    try:
        client = ipaddress.ip_address(address.partition("%")[0])
        parsed = [ipaddress.ip_network(text.strip(), strict=False) for text in networks.split(",")]
    except ValueError:
        return False
    return any(client in network for network in parsed)


class Judge:
    """Answers attempts. Safe to use from any thread."""

    def __init__(self, check: PasswordCheck, throttle: Throttle, log: MailLog) -> None:
        self._check = check
        self.throttle = throttle
        self._log = log

    def judge(self, attempt: Attempt) -> Verdict:
        """The verdict. Blocking; never raises: an unexpected fault is temporary, and logged."""
        name = attempt.name.lower()
        address = attempt.peer.address
        if not self.throttle.may_check(address, name):
            return Verdict(Refused(temporary=True, reason="too many attempts of this place wait"), 0.0)
        try:
            account = self._check.verify(attempt.name, attempt.password)
        except TemporaryAccountFailure as failure:
            return self._temporary(attempt, str(failure))
        except Exception as error:  # P5: our own bug is a temporary answer, with its cause in the log
            return self._temporary(attempt, f"internal error: {type(error).__name__}: {error}")
        if account is None:
            return self._wrong(attempt, name, "wrong password or unknown user")
        if not is_allowed_from(account, address):
            return self._wrong(attempt, name, "allow_nets does not admit this address")
        return Verdict(account, self.throttle.succeeded(address, name))

    def _wrong(self, attempt: Attempt, name: str, reason: str) -> Verdict:
        delay = self.throttle.failed(attempt.peer.address, name, attempt.password)
        return Verdict(Refused(reason=reason), delay)

    def _temporary(self, attempt: Attempt, cause: str) -> Verdict:
        name = printable(attempt.name, 64)
        self._log.write("auth", f"Error: {attempt.service}({name},{attempt.peer.address}): {cause}")
        return Verdict(Refused(temporary=True, reason=cause), 0.0)
