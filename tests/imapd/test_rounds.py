"""Many members of one round: each is called at its own time, whoever comes and goes."""

from __future__ import annotations

from twisted.internet.task import Clock

from mailserver.imapd.rounds import Rounds


class Member:
    """Notes when it was called; `leaves` makes it leave then, `fails` raise."""

    def __init__(self, clock: Clock, rounds: Rounds, leaves: bool = False, fails: bool = False) -> None:
        self.times: list[float] = []
        self._clock, self._rounds, self._leaves, self._fails = clock, rounds, leaves, fails

    def look(self) -> None:
        self.times.append(self._clock.seconds())
        if self._leaves:
            self._rounds.leave(self)
        if self._fails:
            raise RuntimeError("clumsy")


def pass_time(clock: Clock, seconds: int) -> None:
    """Second by second."""
    for _ in range(seconds):
        try:
            clock.advance(1)
        except RuntimeError:
            pass


def test_each_is_called_from_when_it_joined() -> None:
    """Every 30 seconds, not all at once; one timer is enough for all."""
    clock = Clock()
    rounds = Rounds(clock, 30)
    early, late = Member(clock, rounds), Member(clock, rounds)
    rounds.join(early)
    pass_time(clock, 10)
    rounds.join(late)
    assert len(clock.getDelayedCalls()) == 1
    pass_time(clock, 65)
    assert early.times == [30, 60] and late.times == [40, 70]


def test_who_left_is_called_no_more() -> None:
    """Also where it leaves as it is called; without members there is no timer."""
    clock = Clock()
    rounds = Rounds(clock, 30)
    first, second, third = (Member(clock, rounds, leaves=each == 1) for each in range(3))
    for member in (first, second, third):
        rounds.join(member)
    pass_time(clock, 5)
    rounds.leave(first)
    pass_time(clock, 60)
    assert first.times == [] and second.times == [30] and third.times == [30, 60]
    rounds.leave(third)
    rounds.leave(third)
    assert clock.getDelayedCalls() == []


def test_a_fault_of_one_does_not_hinder_the_others() -> None:
    """They are called, it again after the interval."""
    clock = Clock()
    rounds = Rounds(clock, 30)
    clumsy, other = Member(clock, rounds, fails=True), Member(clock, rounds)
    rounds.join(clumsy)
    rounds.join(other)
    pass_time(clock, 65)
    assert len(clumsy.times) == 2 and len(other.times) == 2
