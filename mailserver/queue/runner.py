"""The queue's runner: takes messages as they come due, and keeps many of them moving at once.

A message just accepted is tried at once, over the descriptor it came with. One that waits is
known by its id alone and is opened when its time comes. Everything is kept in the queue's files;
what the runner holds in memory can be lost at any moment and is found again by the scan.

Bounds: `active_limit` messages at once (qmgr_message_active_limit), and no more than a quarter of
the descriptors that this process may have; the slots of `Services` for each account and each next
hop. A message that waits for a busy next hop keeps no other one waiting.

`start` scans the queue, and every `queue_run_delay` seconds it is scanned again, for what
other processes and operators put there. Timers are the reactor's, stored times wall clock.
"""

from __future__ import annotations

import heapq
import resource
import traceback
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.queue.attempt import Attempt
from mailserver.queue.directory import Busy, Found, State
from mailserver.queue.file import QueueFile
from mailserver.queue.record import Damaged
from mailserver.queue.schedule import wait_before
from mailserver.queue.services import Services

ACTIVE_LIMIT: Final = 20_000
QUEUE_RUN_DELAY: Final = 300  # seconds
_BATCH: Final = 50  # messages begun without a pause
_LONGEST_SLEEP: Final = 60.0  # seconds: a clock that jumps is noticed by then


class Runner:
    """Delivers the queue. All methods are for the reactor's thread.

    `reactor` is an IReactorTime.
    """

    def __init__(
        self,
        services: Services,
        reactor: Any,
        *,
        active_limit: int = ACTIVE_LIMIT,
        queue_run_delay: float = QUEUE_RUN_DELAY,
    ) -> None:
        self._services = services
        self._reactor = reactor
        self._active_limit = min(active_limit, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._queue_run_delay = queue_run_delay
        self._active: Counter[str] = Counter()  # attempts under way for each queue id
        self._ready: deque[str] = deque()
        self._flushed: set[str] = set()  # ready because somebody asked
        self._waiting: dict[str, float] = {}  # queue id -> next attempt
        self._due: list[tuple[float, str]] = []  # a heap over _waiting; stale entries are skipped
        self._timer: Any = None
        self._scan_timer: Any = None
        self._batch_timer: Any = None
        self._is_beginning = False
        self._is_stopping = False
        self._idle: list[Deferred[None]] = []

    def __len__(self) -> int:
        """Messages known: active, ready and waiting."""
        return len(self._active) + len(self._ready) + len(self._waiting)

    # ------------------------------------------------------------ what comes in

    def start(self) -> Deferred[None]:
        """Fires when the queue was scanned; delivery of what was found has begun."""
        return self.rescan()

    def rescan(self) -> Deferred[None]:
        """The same again, for what others left: a runner before this one has ended its last delivery."""
        return Deferred.fromCoroutine(self._scan())

    def accept(self, message: QueueFile) -> None:
        """The message, committed and still locked, is the runner's; its first attempt begins now."""
        if self._is_stopping or f"/{State.HOLD.value}/" in message.path:
            message.close()
        elif len(self._active) >= self._active_limit:
            message.close()
            self._ready.append(message.queue_id)
        else:
            self._active[message.queue_id] += 1
            self._spawn(self._attempt(message))

    def accept_id(self, queue_id: str) -> None:
        """That message is due now: another process committed it, or an operator asks for it."""
        self._waiting.pop(queue_id, None)
        self._ready.append(queue_id)
        self._begin_ready()

    def hurry(self, queue_ids: Iterable[str]) -> None:
        """Those messages are due now, whatever is known of their next hops (`postqueue -i`, `-s`)."""
        self._services.suspensions.clear()
        for queue_id in queue_ids:
            self._flushed.add(queue_id)
            self.accept_id(queue_id)

    def flush(self) -> None:
        """Every deferred message is due now (`postqueue -f`)."""
        self._services.suspensions.clear()
        self._ready.extend(self._waiting)
        self._flushed.update(self._waiting)
        self._waiting.clear()
        self._due.clear()
        self._begin_ready()

    def stop(self) -> Deferred[None]:
        """Fires when no delivery is under way any more; none is begun after this call."""
        self._is_stopping = True
        for timer in (self._timer, self._scan_timer, self._batch_timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._ready.clear()
        return self.when_idle()

    def when_idle(self) -> Deferred[None]:
        """Fires when no message is active or ready; at once where none is."""
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        self._tell_idle()
        return idle

    # ------------------------------------------------------------ the scan

    async def _scan(self) -> None:
        try:
            self._take_found(await self._services.threads.run(self._services.queue.scan))
        except OSError as error:
            self._services.log.write("qmgr", f"warning: scan of the queue: {error}")
        if not self._is_stopping:
            if self._scan_timer is not None and self._scan_timer.active():
                self._scan_timer.cancel()
            self._scan_timer = self._reactor.callLater(
                self._queue_run_delay, lambda: self._spawn(self._scan())
            )

    def _take_found(self, found: Found) -> None:
        known = set(self._active).union(self._ready, self._waiting)
        self._ready.extend(queue_id for queue_id in found.incoming if queue_id not in known)
        for when, queue_id in found.deferred:
            if queue_id not in known:
                self._waiting[queue_id] = when
                self._due.append((when, queue_id))
        heapq.heapify(self._due)
        self._wake()

    # ------------------------------------------------------------ time

    def _wait_until(self, queue_id: str, when: float) -> None:
        self._waiting[queue_id] = when
        heapq.heappush(self._due, (when, queue_id))

    def _wake(self) -> None:
        """What is due is ready, what is ready begins, and the timer is set for the rest."""
        now = self._services.clock()
        while self._due:
            when, queue_id = self._due[0]
            if self._waiting.get(queue_id) == when:
                if wait_before(when, now, self._services.retry) > 0:
                    break
                del self._waiting[queue_id]
                self._ready.append(queue_id)
            heapq.heappop(self._due)
        self._begin_ready()
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._due and not self._is_stopping:
            wait = min(max(self._due[0][0] - now, 0.0), _LONGEST_SLEEP)
            self._timer = self._reactor.callLater(wait, self._wake)

    # ------------------------------------------------------------ work

    def _begin_ready(self) -> None:
        """What is ready is begun, a batch at a time: the reactor serves sessions in between."""
        if self._is_beginning:
            return
        self._is_beginning = True
        for _ in range(_BATCH):
            if not self._ready or len(self._active) >= self._active_limit or self._is_stopping:
                break
            queue_id = self._ready.popleft()
            if queue_id not in self._active:
                self._active[queue_id] += 1
                self._spawn(self._open_and_attempt(queue_id))
        else:
            if self._batch_timer is None or not self._batch_timer.active():
                self._batch_timer = self._reactor.callLater(0, self._begin_ready)
        self._is_beginning = False

    def _spawn(self, work: Any) -> None:
        Deferred.fromCoroutine(work).addErrback(self._log_failure)

    def _log_failure(self, failure: Failure) -> None:
        for line in "".join(traceback.format_exception(failure.value)).splitlines():
            self._services.log.write("qmgr", f"error: {line}")

    async def _open_and_attempt(self, queue_id: str) -> None:
        try:
            message = await self._services.threads.run(self._services.queue.open, queue_id)
        except (FileNotFoundError, Busy, Damaged):
            self._finished(queue_id)  # delivered or held by another; or set aside with a warning
        except OSError as error:
            self._services.log.write("qmgr", f"warning: {queue_id}: open queue file: {error.strerror}")
            self._finished(queue_id, self._services.clock() + self._services.retry.minimum)
        else:
            await self._attempt(message)

    async def _attempt(self, message: QueueFile) -> None:
        queue_id = message.queue_id
        when: float | None = None
        try:
            is_flushed = queue_id in self._flushed
            attempt = Attempt(self._services, message, self.accept, lambda: self._is_stopping, is_flushed)
            when = await attempt.run()
        except Damaged as damage:
            await self._services.threads.run(self._services.queue.set_aside, message, str(damage))
        finally:
            self._finished(queue_id, when, message.queue_id)

    def _finished(self, queue_id: str, when: float | None = None, new_id: str = "") -> None:
        self._flushed.discard(queue_id)
        self._active[queue_id] -= 1
        if not self._active[queue_id]:
            del self._active[queue_id]
        if when is not None and not self._is_stopping:
            self._wait_until(new_id or queue_id, when)
            self._set_timer(self._services.clock())
        self._begin_ready()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self._active and (self._is_stopping or not self._ready):
            waiting, self._idle = self._idle, []
            for idle in waiting:
                idle.callback(None)
