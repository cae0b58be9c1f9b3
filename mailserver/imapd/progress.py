"""INPROGRESS: what a client hears while a command takes long. RFC 9585.

A handler whose command may be long does its work inside `reporting`. Nothing is said before
`ImapSettings.progress_interval` seconds are over, and then once in so many seconds: how many messages
are dealt with, of how many, where the handler counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.internet.task import LoopingCall

from mailserver.imapd.session import Session
from mailserver.wire.imap_responses import string


class Progress:
    """How far a command has come, in messages; a `goal` of 0 is not known. Any one thread may count."""

    def __init__(self, goal: int = 0) -> None:
        self.goal = goal
        self.done = 0

    def counting(self, make: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        """`make`, each call counted as one message."""

        def counted(content: bytes) -> bytes:
            self.done += 1
            return make(content)

        return counted

    @property
    def figures(self) -> bytes:
        """Progress and goal as they are told: the goal is above the progress, or both are NIL."""
        done = self.done
        return b"%d %d" % (done, self.goal) if done < self.goal else b"NIL NIL"


@contextmanager
def reporting(session: Session, goal: int = 0) -> Iterator[Progress]:
    """The client hears, now and then, how far the command at work has come."""
    progress = Progress(goal)
    tag = string(session.current_tag)

    def report() -> None:
        if session.output.is_attached and not session.output.is_paused:
            session.output.line(b"* OK [INPROGRESS (%b %b)] Still working." % (tag, progress.figures))
            session.output.flush()

    timer = LoopingCall(report)
    timer.clock = session.service.reactor
    timer.start(session.settings.progress_interval, now=False)
    try:
        yield progress
    finally:
        timer.stop()
