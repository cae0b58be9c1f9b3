"""How the queue process hears of messages that others committed.

A front sends `{"accept": queue id}` after it gave the message up; an operator's command sends
`{"flush": true}`. A notice that is lost costs time only: the queue is scanned every
`queue_run_delay` seconds, and at the start.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from typing import Any

from mailserver.queue.file import QueueFile
from mailserver.queue.runner import Runner
from mailserver.rights import messages
from mailserver.rights.acceptor import Acceptor
from mailserver.rights.listeners import connect_channel
from mailserver.rights.messages import Message
from mailserver.rights.reactor_channel import ReactorChannel


class QueueDoor:
    """Accepts connections of the users allowed, and tells the runner what they say."""

    def __init__(
        self, reactor: Any, listener: socket.socket, runner: Runner, allowed_uids: Collection[int]
    ) -> None:
        self._reactor = reactor
        self._runner = runner
        self._allowed = frozenset(allowed_uids)
        self._open: set[ReactorChannel] = set()
        self._acceptor = Acceptor(reactor, listener, self._accepted)

    def stop(self) -> None:
        """Nobody is heard any more; who comes waits for the next one that has the listener."""
        self._acceptor.stop()
        for channel in list(self._open):
            channel.close()

    def _accepted(self, connection: socket.socket) -> None:
        if messages.peer_uid(connection) not in self._allowed:
            connection.close()
            return
        channel = ReactorChannel(self._reactor, connection, self._heard, lambda: self._open.discard(channel))
        self._open.add(channel)

    def _heard(self, message: Message, descriptors: list[int]) -> None:
        messages.close_all(descriptors)
        if isinstance(queue_id := message.get("accept"), str):
            self._runner.accept_id(queue_id)
        if message.get("flush"):
            self._runner.flush()


class QueueNotifier:
    """The front's side: `accepted` is what `SmtpListeners` calls with a committed message."""

    def __init__(self, path: str, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._connection: socket.socket | None = None

    def accepted(self, message: QueueFile) -> None:
        """The message is the queue's; it will be tried at once, or at the next scan."""
        message.close()
        notice = {"accept": message.queue_id}
        for is_last in (False, True):
            try:
                if self._connection is None:
                    self._connection = connect_channel(self._path, timeout=1.0)
                    self._connection.setblocking(False)
                messages.send(self._connection, notice)
                return
            except BlockingIOError:
                return  # it reads slowly: the scan finds the rest
            except OSError as error:
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
                if is_last:
                    self._warn(f"the queue process does not listen: {error}")
