"""The last descriptors are kept for those who are served. RELIABILITY F22."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from mailserver.descriptors import RESERVE, Sparing


class Factory:
    """Makes something for every connection."""

    noisy = False

    def buildProtocol(self, address: object) -> object:
        return "a protocol"


@pytest.fixture
def limit() -> Iterator[None]:
    """Few descriptors are allowed: those in use, the reserve, and a few more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = os.eventfd(0)
    os.close(used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + RESERVE + 5, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_are_turned_away_while_few_are_left(limit: None) -> None:
    """It is told once a minute; when some are free again, all is as before."""
    told: list[str] = []
    now = [0.0]
    factory = Sparing(Factory(), told.append, lambda: now[0])
    assert factory.noisy is False
    taken = []
    while factory.buildProtocol(None) is not None:
        taken.append(os.eventfd(0))
    assert 0 < len(taken) <= 6
    assert factory.buildProtocol(None) is None
    assert len(told) == 1
    now[0] = 61.0
    assert factory.buildProtocol(None) is None
    assert len(told) == 2
    for descriptor in taken:
        os.close(descriptor)
    assert factory.buildProtocol(None) == "a protocol"


def test_none_at_all_is_too_few(limit: None) -> None:
    """Where not even one can be had to look, nobody is let in."""
    taken = []
    with pytest.raises(OSError):
        while True:
            taken.append(os.eventfd(0))
    answer = Sparing(Factory(), lambda text: None).buildProtocol(None)
    for descriptor in taken:
        os.close(descriptor)
    assert answer is None
