"""The open sessions of a listener, so that each hears of the server's end, and their end is heard of."""

from __future__ import annotations

from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ServerFactory

PATIENCE: Final = 5.0  # seconds for a client to take its last line


class Session(Protocol):
    """A connection's protocol."""

    transport: Any

    def shut_down(self) -> None:
        """The client is told that the server stops, and the connection closes."""


class OpenSessions:
    """Protocols between `connectionMade` and `connectionLost`.

    `clock` is the reactor. After `shut_down` a client has `patience` seconds before it is cut off; None
    where sessions end by their own time limits.
    """

    def __init__(self, clock: Any, patience: float | None = PATIENCE) -> None:
        self._clock = clock
        self._patience = patience
        self._open: set[Session] = set()
        self._is_stopping = False
        self._waiting: list[Deferred[None]] = []

    def add(self, session: Session) -> None:
        """The connection exists; where the server stops already, its client is told."""
        self._open.add(session)
        if self._is_stopping:
            session.shut_down()

    def discard(self, session: Session) -> None:
        """The connection is gone."""
        self._open.discard(session)
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
        """Every client was told; fires when all are gone."""
        self._is_stopping = True
        emptied = self.when_empty()
        if self._open and self._patience is not None:
            last_call = self._clock.callLater(self._patience, self._cut_off)
            emptied.addBoth(lambda _: last_call.cancel() if last_call.active() else None)
        for session in tuple(self._open):
            session.shut_down()
        return emptied

    def _cut_off(self) -> None:
        for session in tuple(self._open):
            session.transport.abortConnection()


class SessionFactory(ServerFactory):
    """A listener's factory. Its protocols join and leave `sessions`."""

    noisy = False

    def __init__(self, sessions: OpenSessions) -> None:
        self.sessions = sessions

    def when_empty(self) -> Deferred[None]:
        """Fires when every session has ended; nobody is told to go."""
        return self.sessions.when_empty()

    def shut_down(self) -> Deferred[None]:
        """Every client is told, after the answer to what is being committed; fires when all are gone."""
        return self.sessions.shut_down()
