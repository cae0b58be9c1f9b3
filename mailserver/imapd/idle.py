"""IDLE: the client hears of changes at once. RFC 2177.

A hint from the mailbox leads to a `sync` in the reactor's next turn. A slow poll is the net
below the hints, and a line now and then keeps network paths open and finds dead clients.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.imapd.replies import Rejection, Reply, ok
from mailserver.imapd.session import Session
from mailserver.store.contract import MailboxReplaced, StoreError
from mailserver.wire.imap_commands import Nothing


async def idle(session: Session, arguments: Nothing) -> Reply:
    """Changes are told as they come, until the client's next line, which is to be DONE."""
    session.output.line(b"+ idling")
    watch = _Watch(session)
    try:
        line = await watch.until(session.next_line())
    finally:
        await watch.stop()
    if line.strip().upper() != b"DONE":
        raise Rejection("Expected DONE.")
    await session.sync()
    return ok("Idle completed.")


class _Watch:
    """Tells what happens, one change after the other, until stopped."""

    __slots__ = (
        "_done",
        "_has_more",
        "_is_stopped",
        "_is_telling",
        "_session",
        "_spoke",
        "_stopping",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_telling = self._is_stopped = self._has_more = False
        self._stopping: Deferred[None] | None = None
        self._done: Deferred[bytes] = Deferred()
        self._spoke = session.service.reactor.seconds()
        session.service.rounds.join(self)

    def until(self, line: Deferred[bytes]) -> Deferred[bytes]:
        """The client's line, or the fault that ends the session."""
        line.addCallbacks(self._answer, self._fail)
        self._session.changed = self._changed
        self._changed()
        return self._done

    async def stop(self) -> None:
        """Nothing more is told; what was being told is finished."""
        self._is_stopped = True
        self._session.listen()
        self._session.service.rounds.leave(self)
        if self._is_telling:
            self._stopping = Deferred()
            await self._stopping

    def _answer(self, line: bytes) -> None:
        if not self._done.called:
            self._done.callback(line)

    def _fail(self, failure: Failure) -> None:
        if not self._done.called:
            self._done.errback(failure)

    def look(self) -> None:
        """The slow poll; see `Rounds`."""
        settings = self._session.settings
        now = self._session.service.reactor.seconds()
        if 0 < settings.idle_notify_interval <= now - self._spoke:
            self._spoke = now
            self._session.output.line(b"* OK Still here")
            self._session.output.flush()
        self._start(with_refresh=True)

    def _changed(self) -> None:
        self._start(with_refresh=False)

    def _start(self, with_refresh: bool) -> None:
        if self._is_stopped:
            return
        if self._is_telling:
            self._has_more = True
            return
        self._is_telling = True
        Deferred.fromCoroutine(self._tell(with_refresh)).addErrback(self._fail).addBoth(self._told)

    async def _tell(self, with_refresh: bool) -> None:
        try:
            if with_refresh:
                await self._session.refresh()
            if not self._is_stopped:
                await self._session.sync()
        except MailboxReplaced:
            raise
        except StoreError:
            return  # the next poll tries again
        self._session.output.flush()

    def _told(self, _result: object) -> None:
        self._is_telling = False
        if self._stopping is not None:
            self._stopping.callback(None)
        elif self._has_more:
            self._has_more = False
            self._start(with_refresh=False)
