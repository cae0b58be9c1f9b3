"""Signals of a process that a reactor runs: each is handled in the reactor's turn, and the end comes once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any


def on_signal(reactor: Any, number: int, work: Callable[[], object]) -> None:
    """The work is done in the reactor's thread whenever the signal comes. For the main thread."""
    signal.signal(number, lambda *unused: reactor.callFromThread(work))


def stop_once() -> None:
    """A second SIGTERM or SIGINT changes nothing: the stop is under way. For a reactor that runs already."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: Any) -> None:
        for each in numbers:
            signal.signal(each, lambda *unused: None)
        handler = handlers[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, stop)
