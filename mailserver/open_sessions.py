"""The open sessions of a factory, so that each hears of the server's end, and their end is heard of."""

from __future__ import annotations

from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed

PATIENCE: Final = 5.0  # seconds for a client to take its last line


class Session(Protocol):
    """A connection's protocol."""

    transport: Any

    def shut_down(self) -> None:
        """The client is told that the server stops, and the connection closes."""


class OpenSessions:
    """Protocols between `connectionMade` and `connectionLost`. `clock` is the reactor."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._open: set[Session] = set()
        self._emptied: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    def add(self, session: Session) -> None:
        """The connection exists."""
        self._open.add(session)

    def discard(self, session: Session) -> None:
        """The connection is gone."""
        self._open.discard(session)
        if not self._open and self._emptied is not None:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)
        if not self._open:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    def when_empty(self) -> Deferred[None]:
        """Fires when no connection is open; nobody is told to go."""
        if not self._open:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def shut_down(self) -> Deferred[None]:
        """Every client was told; fires when all are gone, the slow ones cut off after PATIENCE."""
        if not self._open:
            return succeed(None)
        emptied = self._emptied = Deferred()
        last_call = self._clock.callLater(PATIENCE, self._cut_off)
        emptied.addBoth(lambda _: last_call.cancel() if last_call.active() else None)
        for session in tuple(self._open):
            session.shut_down()
        return emptied

    def _cut_off(self) -> None:
        for session in tuple(self._open):
            session.transport.abortConnection()
