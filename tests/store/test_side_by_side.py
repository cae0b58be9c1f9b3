"""Acts in several threads at once: all of them, and nothing goes on behind the caller's back."""

from __future__ import annotations

import threading

import pytest

from mailserver.store.side_by_side import SideBySide


@pytest.mark.parametrize("helpers", [0, 1, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 23])
def test_each_act_is_done_once(helpers: int, count: int) -> None:
    """However many there are for each thread."""
    done: list[int] = []
    SideBySide(helpers).do([lambda number=number: done.append(number) for number in range(count)])  # type: ignore[misc]
    assert sorted(done) == list(range(count))


def test_acts_wait_at_the_same_time() -> None:
    """As many as there are threads, the caller's included."""
    barrier = threading.Barrier(4, timeout=30)
    SideBySide(3).do([barrier.wait] * 4)


@pytest.mark.parametrize("failing", range(4))
def test_a_failure_is_told_when_all_have_ended(failing: int) -> None:
    """The caller may close and remove what the acts work on, whichever fails."""
    ended: list[int] = []
    begun = threading.Barrier(4, timeout=30)
    failed = threading.Event()

    def act(number: int) -> None:
        begun.wait()
        if number == failing:
            failed.set()
            raise OSError("disk")
        assert failed.wait(30)
        ended.append(number)

    with pytest.raises(OSError, match="disk"):
        SideBySide(3).do([lambda number=number: act(number) for number in range(4)])  # type: ignore[misc]
    assert sorted(ended) == [number for number in range(4) if number != failing]


def test_the_caller_does_what_no_thread_can_be_had_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its limit of threads delivers in turn; a failure to start one is no failure of an act."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done: list[int] = []
    monkeypatch.setattr(threading.Thread, "start", start)
    SideBySide(3).do([lambda number=number: done.append(number) for number in range(5)])  # type: ignore[misc]
    assert sorted(done) == list(range(5))


def test_nothing_is_begun_behind_a_failure() -> None:
    """What stands behind it in the caller's own thread stays undone."""
    done: list[int] = []

    def fail() -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        SideBySide(0).do([lambda: done.append(1), fail, lambda: done.append(2)])
    assert done == [1]
