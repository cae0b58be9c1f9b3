"""What an operator does to messages in the queue: delete, hold, release, requeue, expire. postsuper(1).

Each is done to the file, under its lock, whether a server runs or not. Somebody who delivers the
message at the moment holds the lock; that is waited for, for a while. All of this blocks. To be
called as the user whom the queue belongs to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from mailserver.queue.directory import MESSAGE_STATES, Busy, QueueDirectory, State
from mailserver.queue.file import QueueFile
from mailserver.queue.record import Damaged

_PIECE: Final = 1 << 16
_PAUSE: Final = 0.05
# What belongs to the past of a message that begins anew.
_FORGOTTEN: Final = frozenset(("attempt", "warned", "expire"))


class QueueControl:
    """The acts. Each answers whether there was such a message in `states`. Raises OSError, Busy."""

    def __init__(
        self,
        queue: QueueDirectory,
        patience: float = 5.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`patience` is the seconds that a delivery under way is waited for."""
        self._queue = queue
        self._patience = patience
        self._clock = clock
        self._sleep = sleep

    def delete(self, queue_id: str, states: tuple[State, ...]) -> bool:
        """The message is gone, even where its delivery does not end: that one may still succeed."""
        try:
            message = self._open(queue_id, states)
        except Busy:
            return self._unlink(queue_id, states)
        if message is None:
            return self._unlink(queue_id, tuple(set(states) & {State.MAILDROP, State.CORRUPT}))
        message.remove()
        return True

    def _unlink(self, queue_id: str, states: tuple[State, ...]) -> bool:
        for state in states:
            try:
                os.unlink(self._queue.path_of(queue_id, state))
            except FileNotFoundError:
                continue
            return True
        return False

    def hold(self, queue_id: str, states: tuple[State, ...]) -> bool:
        """The message is on hold; it neither goes out nor expires."""
        message = self._open(queue_id, tuple(state for state in states if state is not State.HOLD))
        if message is None:
            return False
        try:
            self._queue.move(message, State.HOLD)
        finally:
            message.close()
        return True

    def release(self, queue_id: str, states: tuple[State, ...] = (State.HOLD,)) -> bool:
        """The message is no longer on hold, and due."""
        message = self._open(queue_id, tuple(state for state in states if state is State.HOLD))
        if message is None:
            return False
        try:
            self._release(message)
        finally:
            message.close()
        return True

    def _release(self, message: QueueFile) -> None:
        message.set_next_attempt(self._clock())
        self._queue.move(message, State.DEFERRED)

    def expire(self, queue_id: str, states: tuple[State, ...], release: bool = False) -> bool:
        """The message goes back to its sender at its next attempt, which is due unless it is on hold."""
        message = self._open(queue_id, states)
        if message is None:
            return False
        try:
            message.append([["expire"]], durable=True)
            if f"/{State.HOLD.value}/" not in message.path:
                message.set_next_attempt(self._clock())
            elif release:
                self._release(message)
        finally:
            message.close()
        return True

    def requeue(self, queue_id: str, states: tuple[State, ...]) -> str:
        """The new id of the message, which is due and as old as a new one; "" where there is none.

        What was delivered stays delivered. Addresses are looked up anew at each attempt anyway.
        """
        old = self._open(queue_id, states)
        if old is None:
            return ""
        try:
            new = self._copy(old)
            try:
                records = [record for record in old.records if record[0] not in _FORGOTTEN]
                new.append(records, durable=True)
                old.remove()
            finally:
                new.close()
        finally:
            old.close()
        return new.queue_id

    def _copy(self, old: QueueFile) -> QueueFile:
        accepted = old.accepted
        incoming = self._queue.create(accepted.envelope, self._clock(), accepted.origin)
        for position in range(0, old.content_length, _PIECE):
            incoming.write(old.read_content(position, _PIECE))
            if incoming.wants_flush:
                incoming.flush()
        return incoming.commit()

    def _open(self, queue_id: str, states: tuple[State, ...]) -> QueueFile | None:
        """The message, locked; None where there is none, or where it is damaged. Raises Busy, OSError."""
        wanted = tuple(state for state in MESSAGE_STATES if state in states)
        waited = 0.0
        while True:
            try:
                return self._queue.open(queue_id, wanted)
            except (FileNotFoundError, Damaged):
                return None
            except Busy:
                if waited >= self._patience:
                    raise
            self._sleep(_PAUSE)
            waited += _PAUSE
