"""Brute force is slow, and nobody else is. RELIABILITY B20."""

from __future__ import annotations

import ipaddress
import json

import pytest

from mailserver.accounts.throttle import LONGEST_DELAY, MEMORY, MOST_WAITING, Throttle, place


class Time:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_wrong_passwords_wait_2_4_8_15_seconds() -> None:
    """The penalty doubles from 2 s and stops at 15 s."""
    time = Time()
    throttle = Throttle(time)
    delays = []
    for n in range(6):
        delays.append(throttle.failed("192.0.2.1", "alice", b"%d" % n))
        time.now += delays[-1]
    assert delays == [2, 4, 8, 15, 15, 15]


def test_a_hundred_guesses_take_fifteen_minutes_even_in_parallel() -> None:
    """Answers to one place follow each other, and too many at once are not even checked."""
    time = Time()
    throttle = Throttle(time)
    checked = 0
    last_answer = 0.0
    while checked < 100:
        if throttle.may_check("192.0.2.1", "alice"):
            last_answer = time.now + throttle.failed("192.0.2.1", f"user{checked}", b"guess%d" % checked)
            checked += 1
        else:
            time.now += 1.0
    assert last_answer - 1000.0 >= 15 * 60
    assert throttle.may_check("192.0.2.2", "alice")


def test_a_right_password_from_elsewhere_is_not_slowed() -> None:
    """Nor from a known place, however many guess there."""
    throttle = Throttle(Time())
    assert throttle.succeeded("192.0.2.1", "alice") == 0
    for n in range(5):
        throttle.failed("192.0.2.1", "bob", b"%d" % n)
    assert throttle.succeeded("192.0.2.1", "alice") == 0
    assert throttle.succeeded("198.51.100.1", "bob") == 0


def test_a_right_password_from_a_guessing_place_waits_as_a_wrong_one() -> None:
    """Else the attacker would know by the time, and hang up early."""
    throttle = Throttle(Time())
    throttle.failed("192.0.2.1", "bob", b"1")
    throttle.failed("192.0.2.1", "bob", b"2")
    assert throttle.succeeded("192.0.2.1", "alice") >= 4
    assert throttle.succeeded("192.0.2.1", "alice") == 0


def test_an_old_phone_stays_at_the_first_step() -> None:
    """The same wrong password again is no further guess."""
    time = Time()
    throttle = Throttle(time)
    for _ in range(50):
        delay = throttle.failed("192.0.2.1", "alice", b"last year's")
        assert delay == 2
        time.now += delay


def test_ones_own_typing_errors_end_with_the_right_password() -> None:
    """But a success does not wipe out guesses at others."""
    time = Time()
    throttle = Throttle(time)
    for name in ("alice", "alice", "bob"):
        time.now += throttle.failed("192.0.2.1", name, b"%f" % time.now)
    throttle.succeeded("192.0.2.1", "alice")
    assert throttle.penalties() == [("192.0.2.1", 1, pytest.approx(8.0))]


def test_places_are_ipv4_addresses_and_ipv6_48s() -> None:
    """An IPv6 customer has 2^80 addresses."""
    assert place("2001:db8:1:2::3") == place("2001:db8:1:ffff::1") != place("2001:db8:2::1")
    assert place("::ffff:192.0.2.1") == place("192.0.2.1") == "192.0.2.1"
    assert place("fe80::1%eth0") == "fe80::/48"
    assert place("local") == "local"


def test_an_account_guessed_at_from_everywhere_is_slowed_not_locked() -> None:
    """Per account, without lock-out: the owner's known place is never slowed."""
    throttle = Throttle(Time())
    throttle.succeeded("198.51.100.1", "alice")
    delays = [throttle.failed(f"192.0.2.{n}", "alice", b"%d" % n) for n in range(15)]
    assert delays[0] == 2 and delays[-1] == LONGEST_DELAY
    assert throttle.succeeded("198.51.100.1", "alice") == 0
    assert throttle.failed("203.0.113.1", "bob", b"x") == 2


def test_an_hour_without_failures_is_forgiven() -> None:
    """Memory ends."""
    time = Time()
    throttle = Throttle(time)
    for n in range(5):
        throttle.failed("192.0.2.1", "alice", b"%d" % n)
    time.now += MEMORY + 1
    assert throttle.penalties() == []
    assert throttle.failed("192.0.2.1", "alice", b"x") == 2


def test_trusted_networks_wait_the_first_delay_only() -> None:
    """Webmail speaks for many people."""
    throttle = Throttle(Time(), [ipaddress.ip_network("127.0.0.0/8")])
    assert [throttle.failed("127.0.0.1", "alice", b"%d" % n) for n in range(5)] == [2] * 5
    assert throttle.may_check("127.0.0.1", "alice")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A botnet cannot fill it."""
    monkeypatch.setattr("mailserver.accounts.throttle._MOST_PLACES", 100)
    throttle = Throttle(Time())
    for n in range(300):
        throttle.failed(f"2001:db8:{n:x}::1", f"name{n}", b"x")
    assert len(throttle.penalties()) == 100
    for n in range(300):
        throttle.failed("192.0.2.1", "alice", b"%d" % n)
    assert max(count for _, count, _ in throttle.penalties()) <= 16


def test_the_first_delay_may_be_set() -> None:
    """auth_failure_delay: of the first guess alone, and all that a trusted network waits."""
    time = Time()
    throttle = Throttle(time, [ipaddress.ip_network("192.0.2.0/24")], first_delay=0.5)
    delays = []
    for n in range(4):
        delays.append(throttle.failed("198.51.100.1", f"user{n}", b"x"))
        time.now += delays[-1]
    assert delays == [0.5, 4, 8, 15]
    assert [throttle.failed("192.0.2.1", f"name{n}", b"x") for n in range(3)] == [0.5] * 3


def test_a_forgiven_place_begins_anew() -> None:
    """`mailserver penalty --clear`."""
    throttle = Throttle(Time())
    throttle.failed("192.0.2.1", "alice", b"1")
    throttle.failed("192.0.2.1", "alice", b"2")
    assert throttle.forgive("192.0.2.1") and not throttle.forgive("192.0.2.1")
    assert throttle.penalties() == []
    assert throttle.failed("192.0.2.1", "bob", b"3") == 2


def test_who_is_known_is_checked_whatever_others_do_there() -> None:
    """A flood of guesses from behind the same address keeps no colleague out; a name's own flood ends."""
    throttle = Throttle(Time())
    throttle.succeeded("192.0.2.1", "alice")
    for n in range(MOST_WAITING):
        throttle.failed("192.0.2.1", f"user{n}", b"x")
    assert not throttle.may_check("192.0.2.1", "bob")
    assert throttle.may_check("192.0.2.1", "alice") and throttle.succeeded("192.0.2.1", "alice") == 0
    for n in range(MOST_WAITING):
        assert throttle.may_check("192.0.2.1", "alice")
        throttle.failed("192.0.2.1", "alice", b"%d" % n)
    assert not throttle.may_check("192.0.2.1", "alice")


def test_a_hundred_guesses_from_one_place_slow_nobody_elsewhere() -> None:
    """B20: not even a login of the same account from a place where it never was."""
    time = Time()
    throttle = Throttle(time)
    for n in range(100):
        time.now += throttle.failed("192.0.2.1", "alice", b"%d" % n)
    assert throttle.succeeded("198.51.100.1", "alice") == 0


def test_a_successor_goes_on_where_the_other_stopped() -> None:
    """At a reload nothing is forgotten: neither guesses, nor the answers held back, nor known places."""
    time = Time()
    old, new = Throttle(time), Throttle(time)
    old.succeeded("192.0.2.1", "alice")
    old.succeeded("192.0.2.9", "bob")
    delays = [old.failed("192.0.2.1", "alice", guess) for guess in (b"1", b"1", b"2")]
    new.adopt(json.loads(json.dumps(old.exported())))
    assert delays == [2, 4, 8]
    assert new.failed("192.0.2.1", "alice", b"1") == 12  # the same guess: another 4 s behind the 8
    assert new.failed("192.0.2.1", "alice", b"3") == 20
    assert new.succeeded("192.0.2.1", "alice") == new.succeeded("192.0.2.9", "bob") == 0
    assert old.penalties()[0][:2] == ("192.0.2.1", 2)


def test_what_was_noted_before_the_heritage_came_is_kept() -> None:
    """A late heritage adds to it."""
    time = Time()
    old, new = Throttle(time), Throttle(time)
    old.failed("192.0.2.1", "alice", b"1")
    new.failed("192.0.2.1", "alice", b"2")
    new.adopt(json.loads(json.dumps(old.exported())))
    assert new.penalties() == [("192.0.2.1", 2, 0.0)]
