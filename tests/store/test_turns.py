"""Threads in order, and gaps for other programs."""

from __future__ import annotations

import threading
import time

import pytest

from mailserver.store.turns import GAP, PERIOD, Key, Turns

KEY: Key = (1, 2, "alice")


class Clock:
    """A stated time."""

    def __init__(self) -> None:
        self.now = 1000 * PERIOD

    def __call__(self) -> float:
        return self.now


def use(turns: Turns, clock: Clock, busy: float, seconds: float) -> None:
    """The mailbox is ours for that part of the time."""
    start = clock.now
    for number in range(1, round(seconds * 10) + 1):
        assert turns.take(KEY, 0)
        clock.now += busy / 10
        turns.give(KEY)
        clock.now = start + number / 10


def test_turns_are_taken_in_order() -> None:
    """Threads of one process are served first come, first served; one that gave up leaves the line."""
    turns, key, served = Turns(), KEY, []
    assert turns.take(key, 0)
    assert not turns.take(key, 0.01)

    def wait(number: int) -> None:
        assert turns.take(key, 30)
        served.append(number)
        turns.give(key)

    threads = []
    for number in range(5):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        while len(turns._lines[key]) < number + 2:
            time.sleep(0.001)
        threads.append(thread)
    turns.give(key)
    for thread in threads:
        thread.join()
    assert served == [0, 1, 2, 3, 4]
    assert not turns._lines


@pytest.mark.parametrize(("busy", "has_gap"), [(1.0, True), (0.7, True), (0.5, False), (0.01, False)])
def test_a_gap_where_it_is_hardly_ever_free(busy: float, has_gap: bool) -> None:
    """Once a period, at its beginning, and only after one in which we had it most of the time."""
    clock = Clock()
    turns = Turns(clock)
    assert turns.gap(KEY) == 0
    use(turns, clock, busy, PERIOD)
    assert turns.gap(KEY) == (pytest.approx(GAP, abs=0.01) if has_gap else 0)
    clock.now += GAP / 2
    assert turns.gap(KEY) == (pytest.approx(GAP / 2, abs=0.01) if has_gap else 0)
    clock.now += GAP
    assert turns.gap(KEY) == 0


def test_the_gap_itself_is_no_use() -> None:
    """A mailbox that is used half of the time outside the gaps gets none in the long run."""
    clock = Clock()
    turns = Turns(clock)
    use(turns, clock, 1, PERIOD)
    assert turns.take(KEY, 0)
    clock.now += turns.gap(KEY)
    turns.give(KEY)
    use(turns, clock, 0.5, PERIOD)
    assert turns.gap(KEY) == 0


def test_what_is_long_ago_counts_for_nothing() -> None:
    """Neither use before the last period, nor one thread's long hold over several periods twice."""
    clock = Clock()
    turns = Turns(clock)
    assert turns.take(KEY, 0)
    clock.now += 3 * PERIOD
    assert turns.take(KEY, 0) is False
    turns.give(KEY)
    assert turns.gap(KEY) == pytest.approx(GAP)
    clock.now += PERIOD
    assert turns.gap(KEY) == 0
