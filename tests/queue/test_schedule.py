"""When mail is tried again and given up."""

from __future__ import annotations

import pytest

from mailserver.queue.log_lines import delay
from mailserver.queue.schedule import RetryTimes, is_expired, next_attempt, wait_before, wants_warning
from mailserver.queue.slots import Slots

RETRY = RetryTimes(warning=3600)


def test_the_wait_doubles_up_to_the_maximum() -> None:
    """RFC 5321 §4.5.4.1."""
    waits = [next_attempt(1000, attempts, RETRY) - 1000 for attempts in (1, 2, 3, 4, 5, 6, 1_000_000)]
    assert waits == [300, 600, 1200, 2400, 4000, 4000, 4000]


def test_a_locked_mailbox_is_tried_again_within_seconds() -> None:
    """RELIABILITY P7, P9: others hold locks for seconds; nobody's mail waits minutes for that."""
    waits = [next_attempt(1000, attempts, RETRY, is_locked_out=True) - 1000 for attempts in (1, 2, 7, 99)]
    assert waits == [5, 10, 300, 300]


def test_a_clock_that_went_back_makes_mail_due() -> None:
    """RELIABILITY 2.8: more than the longest wait ahead cannot be meant."""
    assert wait_before(1300, 1000, RETRY) == 300
    assert wait_before(900, 1000, RETRY) == 0
    assert wait_before(1000 + 4001, 1000, RETRY) == 0


@pytest.mark.parametrize(
    ("previous", "last", "expired"),
    [(0, 500_000, False), (431_000, 435_000, False), (433_000, 437_000, True), (9e9, 437_000, True)],
)
def test_expiry_needs_two_attempts_past_the_lifetime(previous: float, last: float, expired: bool) -> None:
    """RELIABILITY 2.8."""
    assert is_expired(0, previous, last, False, RETRY) is expired


def test_a_lifetime_of_zero_is_one_attempt() -> None:
    """postconf(5), bounce_queue_lifetime."""
    assert is_expired(1000, 0, 1000, True, RetryTimes(bounce_lifetime=0))
    assert not is_expired(1000, 0, 1000, False, RetryTimes(bounce_lifetime=0))


def test_warnings_come_after_their_time() -> None:
    """delay_warning_time; 0 is never."""
    assert [wants_warning(1000, now, RETRY) for now in (1000, 4599, 4600)] == [False, False, True]
    assert not wants_warning(0, 1e9, RetryTimes())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (0.004, "0"),
        (0.04, "0.04"),
        (0.1, "0.1"),
        (0.999, "1"),
        (1.23, "1.2"),
        (12.3, "12"),
        (-1, "0"),
    ],
)
def test_delays_are_written_as_postfix_does(seconds: float, text: str) -> None:
    """ECOSYSTEM §9: two digits that count, hundredths at most."""
    assert delay(seconds) == text


def test_slots_pass_through_any_number_of_hands_at_once() -> None:
    """At a stop thousands give their slot back as they get it; everybody's turn comes all the same."""
    slots = Slots(1)
    slots.take("alice")
    turns: list[int] = []

    def give_back(_: None, number: int) -> None:
        turns.append(number)
        slots.release("alice")

    for number in range(5000):
        slots.take("alice").addCallback(give_back, number)
    slots.release("alice")
    assert turns == list(range(5000))
    assert slots.try_take("alice")


def test_slots_are_given_in_order() -> None:
    """No key waits for another; within a key, first come first served."""
    slots = Slots(2)
    order: list[int] = []
    assert slots.try_take("a")
    for number in range(3):
        slots.take("a").addCallback(lambda _, number=number: order.append(number))
    assert order == [0]
    assert slots.try_take("b")
    assert not slots.try_take("a")
    slots.release("a")
    assert not slots.try_take("a")
    slots.release("a")
    assert order == [0, 1, 2]
    for _ in range(2):
        slots.release("a")
    assert slots.try_take("a")
