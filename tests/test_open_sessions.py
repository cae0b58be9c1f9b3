"""How a listener's sessions hear of the server's end."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from mailserver.open_sessions import PATIENCE, OpenSessions


class Client:
    """A session that remembers what was done to it."""

    def __init__(self) -> None:
        self.is_told = self.is_cut_off = False
        self.transport: Any = self

    def shut_down(self) -> None:
        """See `Session`."""
        self.is_told = True

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self.is_cut_off = True


def test_who_does_not_go_is_cut_off() -> None:
    """Clients are told at once, and have PATIENCE to take their last line; then all is over."""
    clock, client = Clock(), Client()
    sessions = OpenSessions(clock)
    sessions.add(client)
    ended = sessions.shut_down()
    assert client.is_told
    clock.advance(PATIENCE / 2)
    assert not client.is_cut_off
    clock.advance(PATIENCE / 2)
    assert client.is_cut_off
    assert not ended.called
    sessions.discard(client)
    assert ended.called


def test_without_patience_sessions_end_by_themselves() -> None:
    """SMTP: nobody is cut off, since a message may be on its way to the disk."""
    clock, client = Clock(), Client()
    sessions = OpenSessions(clock, patience=None)
    sessions.add(client)
    sessions.shut_down()
    assert client.is_told
    assert not clock.getDelayedCalls()


def test_who_comes_while_the_server_stops_is_told() -> None:
    """A connection that was accepted just before the listener closed, or is handed over just then."""
    clock, first, second = Clock(), Client(), Client()
    sessions = OpenSessions(clock)
    sessions.add(first)
    ended = sessions.shut_down()
    sessions.add(second)
    assert second.is_told
    sessions.discard(first)
    assert not ended.called
    sessions.discard(second)
    assert ended.called
    assert not clock.getDelayedCalls()


def test_waiting_for_the_end_tells_nobody() -> None:
    """After a reload the old listener's sessions go on until their clients leave."""
    client = Client()
    sessions = OpenSessions(Clock())
    sessions.add(client)
    ended = sessions.when_empty()
    assert not client.is_told
    sessions.discard(client)
    assert ended.called
