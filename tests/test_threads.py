"""The door for blocking work: `mailserver.threads`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from twisted.internet.defer import DeferredList

from mailserver.threads import WorkerThreads
from tests.reactor_loop import Loop, own_loop

LIMIT = 3


@pytest.fixture
def loop() -> Iterator[Loop]:
    with own_loop() as loop:
        yield loop


@pytest.fixture
def threads(loop: Loop) -> Iterator[WorkerThreads]:
    threads = WorkerThreads(loop.reactor, LIMIT, "tested")
    yield threads
    threads.stop()


def test_runs_elsewhere_and_answers_in_the_thread_of_the_reactor(loop: Loop, threads: WorkerThreads) -> None:
    """Blocking work must not stop the reactor, and callbacks must not need locks."""
    answered: list[threading.Thread] = []
    answer = threads.run(threading.current_thread)
    answer.addCallback(lambda thread: answered.append(threading.current_thread()) or thread)
    worker = loop.result(answer)
    assert worker is not threading.current_thread()
    assert answered == [threading.current_thread()]


def test_exceptions_arrive_as_failures(loop: Loop, threads: WorkerThreads) -> None:
    """What the function raises is the caller's to handle; the thread lives on."""
    for _ in range(LIMIT + 1):
        with pytest.raises(ZeroDivisionError):
            loop.result(threads.run(divmod, 1, 0))
    assert loop.result(threads.run(divmod, 7, 2)) == (3, 1)


def test_as_many_threads_as_calls_up_to_the_limit(loop: Loop, threads: WorkerThreads) -> None:
    """Calls beyond the limit wait for a thread and all are answered."""
    barrier = threading.Barrier(LIMIT)  # passes only where LIMIT calls run at once
    names: set[str] = set()

    def call() -> None:
        names.add(threading.current_thread().name)
        barrier.wait(20)

    loop.result(DeferredList([threads.run(call) for _ in range(2 * LIMIT)], fireOnOneErrback=True))
    assert names == {f"tested-{number}" for number in range(LIMIT)}


@pytest.mark.parametrize("is_busy", [False, True])
def test_others_join_while_the_few_wait(loop: Loop, monkeypatch: pytest.MonkeyPatch, is_busy: bool) -> None:
    """A disk or a lock that holds up the usual threads holds up nothing else, even where the reactor has
    much to do; then the others go.
    """
    if is_busy:
        monkeypatch.setattr("mailserver.threads.process_time", time.monotonic)
    threads = WorkerThreads(loop.reactor, LIMIT, few=1)
    barrier = threading.Barrier(LIMIT)
    calls = [threads.run(barrier.wait, 60) for _ in range(LIMIT)]
    loop.result(DeferredList(calls, fireOnOneErrback=True))
    end = time.monotonic() + 60
    while any(thread.name in ("worker-1", "worker-2") for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert loop.result(threads.run(lambda: threading.current_thread().name)) == "worker-0"
    threads.stop()


def test_nobody_joins_while_the_processor_is_what_is_missing(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads would only fight over the interpreter."""
    monkeypatch.setattr("mailserver.threads.process_time", time.monotonic)  # busy all the time
    monkeypatch.setattr("mailserver.threads._PATIENCE", 0.2)  # this machine may have other things to do
    threads = WorkerThreads(loop.reactor, LIMIT, few=1)
    names: set[str] = set()

    def call() -> None:
        names.add(threading.current_thread().name)
        time.sleep(0.001)

    loop.result(DeferredList([threads.run(call) for _ in range(500)], fireOnOneErrback=True))
    assert names == {"worker-0"}
    threads.stop()


def test_one_call_at_a_time_needs_one_thread(loop: Loop, threads: WorkerThreads) -> None:
    """An idle thread is used before another is started."""
    names = {loop.result(threads.run(lambda: threading.current_thread().name)) for _ in range(20)}
    assert names == {"tested-0"}


def test_an_answer_may_ask_again(loop: Loop, threads: WorkerThreads) -> None:
    """A callback that calls `run` and one that raises disturb no other answer."""
    first = threads.run(int, "1")
    first.addCallback(lambda number: threads.run(int, f"{number}2"))
    broken = threads.run(int, "3").addCallback(lambda number: number // 0)
    broken.addErrback(lambda failure: failure.trap(ZeroDivisionError))
    assert loop.result(DeferredList([first, broken])) == [(True, 12), (True, ZeroDivisionError)]


def test_stop_waits_for_the_work(loop: Loop) -> None:
    """After `stop` no thread is left and nothing was dropped."""
    threads = WorkerThreads(loop.reactor, LIMIT)
    done: list[int] = []
    for number in range(10):
        threads.run(done.append, number)
    threads.stop()
    assert sorted(done) == list(range(10))
