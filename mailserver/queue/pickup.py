"""Takes what local users dropped into `maildrop` and puts it into the queue. pickup(8).

New files are seen by inotify(7) at once; the directory is also read at the start and every
minute, so a notice that is lost costs that much. `queue.taking` does the work, in threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred

from mailserver.maillog import MailLog
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.file import QueueFile
from mailserver.queue.taking import PickupRules, Taking
from mailserver.store.inotify import IN_CLOSE_WRITE, IN_MOVED_TO, IN_Q_OVERFLOW, Inotify
from mailserver.threads import Threads

AT_ONCE: Final = 8  # files taken at the same time
SCAN_SECONDS: Final = 60
_NEWS: Final = IN_CLOSE_WRITE | IN_MOVED_TO | IN_Q_OVERFLOW


class Pickup:
    """Watches `maildrop`. `accept` gets each message, committed and locked, in the reactor's thread."""

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        queue: QueueDirectory,
        rules: PickupRules,
        accept: Callable[[QueueFile], None],
        log: MailLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._taking = Taking(queue, rules, log, clock)
        self._directory = self._taking.directory
        self._accept = accept
        self._log = log
        self._inotify: Inotify | None = None
        self._timer: Any = None
        self._is_scanning = False
        self._has_news = False
        self._is_stopping = False
        self._waiting: deque[str] = deque()
        self._under_way: set[str] = set()
        self._idle: list[Deferred[None]] = []

    def start(self) -> None:
        """What is there is taken, and what comes will be."""
        try:
            self._inotify = Inotify(self._reactor, self._seen)
            self._inotify.watch(self._directory)
            self._inotify.startReading()
        except OSError as error:
            self._log.write("pickup", f"warning: watch {self._directory}: {error.strerror}")
        self._scan_again()

    def stop(self) -> Deferred[None]:
        """Fires when nothing is being taken any more."""
        self._is_stopping = True
        if self._inotify is not None:
            self._inotify.stop()
            self._inotify = None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._waiting.clear()
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        self._tell_idle()
        return idle

    def _seen(self, path: str, mask: int) -> None:
        if mask & _NEWS:
            self._scan_soon()

    def _scan_again(self) -> None:
        if not self._is_stopping:
            self._timer = self._reactor.callLater(SCAN_SECONDS, self._scan_again)
            self._scan_soon()

    def _scan_soon(self) -> None:
        if self._is_scanning:
            self._has_news = True
        elif not self._is_stopping:
            self._is_scanning = True
            self._threads.run(self._taking.names).addCallbacks(self._found, self._failed)

    def _found(self, names: list[str]) -> None:
        self._is_scanning = False
        known = self._under_way.union(self._waiting)
        if not self._is_stopping:
            self._waiting.extend(name for name in names if name not in known)
        self._begin()
        if self._has_news:
            self._has_news = False
            self._scan_soon()
        self._tell_idle()

    def _failed(self, failure: Any) -> None:
        self._log.write("pickup", f"warning: {self._directory}: {failure.getErrorMessage()}")
        self._found([])

    def _begin(self) -> None:
        while self._waiting and len(self._under_way) < AT_ONCE:
            name = self._waiting.popleft()
            self._under_way.add(name)
            taking = self._threads.run(self._taking.take, name)
            taking.addCallback(self._taken).addErrback(self._log_bug).addBoth(self._ended, name)

    def _taken(self, message: QueueFile | None) -> None:
        if message is not None:
            self._accept(message)

    def _log_bug(self, failure: Any) -> None:
        for line in failure.getTraceback().splitlines():
            self._log.write("pickup", f"error: {line}")

    def _ended(self, result: object, name: str) -> None:
        self._under_way.discard(name)
        self._begin()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if self._is_stopping and not self._under_way and not self._is_scanning:
            waiting, self._idle = self._idle, []
            for idle in waiting:
                idle.callback(None)
