"""When a deferred message is tried again, and when it is given up. Pure.

Times are wall-clock POSIX seconds, because they are stored. A clock that jumps must cost no
message: what seems due too far in the future is due now, and a message expires only after two attempts
that both came after its lifetime, with a wait between them (RELIABILITY 2.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LOCK_WAIT: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class RetryTimes:
    """Seconds, with Postfix's defaults.

    minimal_backoff_time, maximal_backoff_time, maximal_queue_lifetime, bounce_queue_lifetime,
    delay_warning_time (0: no warning).
    """

    minimum: float = 300
    maximum: float = 4_000
    lifetime: float = 432_000
    bounce_lifetime: float = 432_000
    warning: float = 0


def next_attempt(last: float, attempts: int, retry: RetryTimes, is_locked_out: bool = False) -> float:
    """When to try a deferred message again.

    The wait doubles from retry.minimum and stops at retry.maximum; expiry is the caller's
    question. `attempts` counts from 1. RFC 5321 §4.5.4.1. Where a mailbox of this host was in
    somebody's use (`is_locked_out`), it doubles from LOCK_WAIT and stops at retry.minimum: locks are
    held for seconds.
    """
    doublings = min(attempts - 1, 32)
    if is_locked_out:
        return last + min(LOCK_WAIT * 2.0**doublings, retry.minimum)
    return last + min(retry.minimum * 2.0**doublings, retry.maximum)


def wait_before(stored: float, now: float, retry: RetryTimes) -> float:
    """Seconds until an attempt that was planned for `stored`; 0 where the clock must have jumped back."""
    wait = stored - now
    return wait if 0 < wait <= max(retry.maximum, retry.minimum) else 0.0


def is_expired(arrival: float, previous: float, last: float, is_bounce: bool, retry: RetryTimes) -> bool:
    """Whether the message is given up after its attempt at `last`; `previous` is the one before, or 0."""
    lifetime = retry.bounce_lifetime if is_bounce else retry.lifetime
    if not lifetime:
        return last >= arrival
    return min(previous, last) - arrival > lifetime


def wants_warning(arrival: float, now: float, retry: RetryTimes) -> bool:
    """Whether the sender should hear by now that the message is delayed."""
    return 0 < retry.warning <= now - arrival
