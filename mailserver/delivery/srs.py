"""The Sender Rewriting Scheme: forwarded mail goes out from an address of ours, and bounces find back.

    s@far.test, forwarded by example.org    SRS0=hash=day=far.test=s@example.org
    an SRS0 address of another forwarder    SRS1=hash=first.test==hash=day=far.test=s@example.org

SPF fails for mail that a forwarder sends on in the sender's name; with an address of its own it does
not. The hash is keyed, so nobody can make us relay by inventing such addresses, and day ends their life.
Hash and day are in one case, since some servers fold it. Pure: secret and time are given.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mailserver.envelope import Address

LIFETIME_DAYS: Final = 21
_DIGITS: Final = "abcdefghijklmnopqrstuvwxyz234567"
_DAYS: Final = len(_DIGITS) ** 2  # the day's number comes round
_HASH_LENGTH: Final = 6
_LONGEST_LOCAL: Final = 200  # beyond the 64 octets of RFC 5321 §4.5.3.1.1, as all of SRS is at times


@dataclass(frozen=True, slots=True)
class Srs:
    """Makes and reads addresses of `domain`. `secret` may raise TableError; `now` is wall-clock seconds."""

    domain: str
    secret: Callable[[], bytes]
    now: Callable[[], float]

    def forward(self, sender: Address) -> Address:
        """The sender with which its mail is forwarded; itself where it would become too long."""
        prefix, _, rest = sender.local.partition("=")
        match prefix.upper():
            case "SRS0" if rest:
                local = self._signed("SRS1", f"{sender.domain}=={rest}")
            case "SRS1" if rest.count("=") >= 1:
                local = self._signed("SRS1", rest.partition("=")[2])
            case _:
                local = self._signed("SRS0", f"{self._day()}={sender.domain}={sender.local}")
        return sender if len(local) > _LONGEST_LOCAL else Address(local, self.domain)

    def reverse(self, address: Address) -> Address | None:
        """Whom mail to such an address is for; None where it is none of ours, or too old."""
        prefix, _, rest = address.local.partition("=")
        kind = prefix.upper()
        if kind not in ("SRS0", "SRS1") or address.domain.lower() != self.domain.lower():
            return None
        signature, _, text = rest.partition("=")
        if not hmac.compare_digest(signature.lower().encode(), self._signature(text).encode()):
            return None
        if kind == "SRS1":
            first, _, original = text.partition("==")
            return Address(f"SRS0={original}", first) if first and original else None
        day, _, original = text.partition("=")
        domain, _, local = original.partition("=")
        return Address(local, domain) if domain and local and self._is_young(day.lower()) else None

    def _signed(self, kind: str, text: str) -> str:
        return f"{kind}={self._signature(text)}={text}"

    def _signature(self, text: str) -> str:
        digest = hmac.new(self.secret(), text.lower().encode("utf-8", "surrogateescape"), hashlib.sha256)
        return base64.b32encode(digest.digest()).decode().lower()[:_HASH_LENGTH]

    def _today(self) -> int:
        return int(self.now() // 86_400) % _DAYS

    def _day(self) -> str:
        high, low = divmod(self._today(), len(_DIGITS))
        return _DIGITS[high] + _DIGITS[low]

    def _is_young(self, day: str) -> bool:
        if len(day) != 2 or not set(day) <= set(_DIGITS):
            return False
        made = _DIGITS.index(day[0]) * len(_DIGITS) + _DIGITS.index(day[1])
        return (self._today() - made) % _DAYS <= LIFETIME_DAYS
