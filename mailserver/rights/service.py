"""A channel service: answers many requests of many connections, in threads, without a reactor.

The helper's frame. Requests are `{"id": n, …}`; each answer carries the same id. The main
thread reads and sends, worker threads compute; an answer may be held back without holding a
thread. A connection that sends what is no request, sends too much at once, or does not read,
is closed; the others go on.
"""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import selectors
import signal
import socket
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from mailserver.maillog import MailLog
from mailserver.rights import messages
from mailserver.rights.messages import BadMessage, Message

MOST_PENDING: Final = 1000  # requests of one connection that are not answered yet


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send, with which descriptors (ours to close after), and after how many seconds."""

    message: Message
    descriptors: tuple[int, ...] = ()
    delay: float = 0.0


class _Connection:
    """One peer. `is_open` turns false once, in the main thread."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.is_open = True
        self.pending = 0


class ChannelService:
    """Serves a listening channel. `handle` runs in worker threads and closes the descriptors it is given."""

    def __init__(
        self,
        listener: socket.socket,
        handle: Callable[[Message, list[int]], Answer],
        allowed_uids: Collection[int],
        log: MailLog,
        workers: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._handle = handle
        self._allowed = frozenset(allowed_uids)
        self._log = log
        self._workers = workers
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._computed: queue.SimpleQueue[tuple[_Connection, int, Answer]] = queue.SimpleQueue()
        self._held: list[tuple[float, int, _Connection, int, Answer]] = []
        self._order = itertools.count()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_stopping = False

    def stop(self, *unused: Any) -> None:
        """`run` returns soon. Safe from threads and signal handlers."""
        self._is_stopping = True
        self._wake()

    def run(self) -> None:
        """Serves until `stop`, which SIGTERM calls where this is the main thread of a role."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain)
        with ThreadPoolExecutor(self._workers, "helper") as pool:
            self._pool = pool
            while not self._is_stopping:
                for key, _ in self._selector.select(self._seconds_to_next_answer()):
                    key.data()
                self._send_computed()
                self._send_due()

    def run_as_role(self) -> None:
        """As `run`, and SIGTERM stops it."""
        signal.signal(signal.SIGTERM, self.stop)
        self.run()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already

    def _drain(self) -> None:
        os.read(self._wake_read, 4096)

    def _seconds_to_next_answer(self) -> float | None:
        return max(self._held[0][0] - self._clock(), 0.0) if self._held else None

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return  # gone again, or out of descriptors: the backlog keeps it
        if messages.peer_uid(accepted) not in self._allowed:
            accepted.close()
            return
        accepted.setblocking(False)
        connection = _Connection(accepted)
        self._selector.register(accepted, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        try:
            received = messages.receive(connection.socket)
            if received is None:
                self._close(connection, "")
                return
            message, descriptors = received
            identifier = message.get("id")
            if not isinstance(identifier, int) or connection.pending >= MOST_PENDING:
                messages.close_all(descriptors)
                raise BadMessage("a request without id, or too many requests")
        except BlockingIOError:
            return
        except (BadMessage, OSError) as error:
            self._close(connection, str(error))
            return
        connection.pending += 1
        self._pool.submit(self._work, connection, identifier, message, descriptors)

    def _work(
        self, connection: _Connection, identifier: int, message: Message, descriptors: list[int]
    ) -> None:
        try:
            answer = self._handle(message, descriptors)
        except Exception as error:  # a malformed request or a bug: this request fails, the service goes on
            self._log.write("auth", f"Error: request failed: {type(error).__name__}: {error}")
            answer = Answer({"error": "internal error"})
        self._computed.put((connection, identifier, answer))
        self._wake()

    def _send_computed(self) -> None:
        while not self._computed.empty():
            connection, identifier, answer = self._computed.get()
            due = self._clock() + answer.delay
            heapq.heappush(self._held, (due, next(self._order), connection, identifier, answer))

    def _send_due(self) -> None:
        while self._held and self._held[0][0] <= self._clock():
            _, _, connection, identifier, answer = heapq.heappop(self._held)
            self._send(connection, identifier, answer)

    def _send(self, connection: _Connection, identifier: int, answer: Answer) -> None:
        connection.pending -= 1
        try:
            if connection.is_open:
                messages.send(connection.socket, {**answer.message, "id": identifier}, answer.descriptors)
        except OSError as error:
            self._close(connection, f"does not read its answers: {error}")
        finally:
            messages.close_all(answer.descriptors)

    def _close(self, connection: _Connection, why: str) -> None:
        if not connection.is_open:
            return
        connection.is_open = False
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if why:
            self._log.write("auth", f"Error: channel closed: {why}")
