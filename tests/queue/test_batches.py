"""Batches: items of one key that come while it is at work go together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailserver.queue.batches import Batches


class HeldThreads:
    """Work is done when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def run(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Deferred[Any]:
        """See `Threads.run`."""
        answer: Deferred[Any] = Deferred()
        self.calls.append((answer, lambda: function(*arguments, **named)))
        return answer

    def finish(self) -> None:
        """The oldest call is done."""
        answer, function = self.calls.pop(0)
        try:
            answer.callback(function())
        except ZeroDivisionError:
            answer.errback()


class Desk:
    """Batches whose work is noted in `done`; each item's answer is ten times the item."""

    def __init__(self, most: int = 3) -> None:
        self.clock, self.threads = Clock(), HeldThreads()
        self.done: list[list[int]] = []
        self.batches: Batches[int, int] = Batches(self.clock, self.threads, self.work, most, 2.0)
        self.answers: list[int | str | None] = []

    def work(self, items: Sequence[int]) -> Sequence[int]:
        """See `Batches`."""
        self.done.append(list(items))
        return [60 // (item - 13) if item == 13 else item * 10 for item in items]

    def ask(self, key: str, *items: int) -> None:
        """The items come, one after the other."""
        for item in items:
            answer = self.batches.run(key, item).addErrback(lambda failure: "failed")
            answer.addCallback(self.answers.append)


def test_what_comes_meanwhile_goes_together_and_in_order() -> None:
    """One batch of a key at a time; the next has what came meanwhile, at most `most`, in order."""
    desk = Desk()
    desk.ask("alice", 1, 2, 3, 4, 5)
    assert len(desk.threads.calls) == 1
    for _ in range(3):
        desk.threads.finish()
    assert desk.done == [[1], [2, 3, 4], [5]]
    assert desk.answers == [10, 20, 30, 40, 50]
    assert not desk.clock.getDelayedCalls()
    desk.ask("alice", 6)
    assert len(desk.threads.calls) == 1


def test_keys_do_not_wait_for_each_other() -> None:
    """A recipient whose mailbox hangs keeps nobody else waiting (P9)."""
    desk = Desk()
    desk.ask("alice", 1)
    desk.ask("bob", 2)
    assert len(desk.threads.calls) == 2


def test_who_waits_for_too_long_is_sent_away() -> None:
    """The answer is None, nothing is done with the item, and those behind it begin a wait of their own."""
    desk = Desk()
    desk.ask("alice", 1, 2, 3)
    desk.clock.advance(1.9)
    assert desk.answers == []
    desk.clock.advance(0.2)
    assert desk.answers == [None, None]
    desk.ask("alice", 4)
    desk.threads.finish()
    desk.threads.finish()
    assert desk.done == [[1], [4]]
    assert desk.answers == [None, None, 10, 40]


def test_a_batch_that_fails_fails_for_each_and_the_next_goes_on() -> None:
    """Nobody is left without an answer."""
    desk = Desk()
    desk.ask("alice", 1, 13, 2, 3, 4)
    for _ in range(3):
        desk.threads.finish()
    assert desk.answers == [10, "failed", "failed", "failed", 40]
