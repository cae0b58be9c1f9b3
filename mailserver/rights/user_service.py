"""A channel that every user of the system may ask. Who asks is the kernel's word; nobody keeps out others.

For a process that has more important things to do. One question a connection; a connection that asks nothing
is closed after a while, as is one more than a user, or all of them together, may have.
"""

from __future__ import annotations

import collections
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from mailserver.maillog import MailLog
from mailserver.rights import messages
from mailserver.rights.messages import BadMessage, Message
from mailserver.rights.service import Answer

MOST_OF_A_USER: Final = 2
MOST_CONNECTIONS: Final = 16
_PATIENCE: Final = 5.0  # seconds for the question to come, and for the answer to go
_PAUSE: Final = 0.1  # seconds, where no connection can be had: out of descriptors


class UserService:
    """Serves `listener` in threads until `stop`. `handle(uid, question)` gives the answer; it may block."""

    def __init__(
        self,
        listener: socket.socket,
        handle: Callable[[int, Message], Message | Answer],
        log: MailLog,
        most_of_a_user: int = MOST_OF_A_USER,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        self._most_of_a_user = most_of_a_user
        self._most_connections = most_connections
        self._listener = listener
        self._handle = handle
        self._log = log
        self._stopped = os.eventfd(0, os.EFD_CLOEXEC)
        self._guard = threading.Lock()
        self._open: collections.Counter[int] = collections.Counter()  # connections, by uid
        self._thread = threading.Thread(target=self._run, name="user service", daemon=True)

    def start(self) -> None:
        """Users are answered from now on. `listener` stays the caller's to close, after `stop`."""
        self._listener.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """Nobody new is answered; who is being answered still is. Safe in threads."""
        os.eventfd_write(self._stopped, 1)
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while all(key.fd != self._stopped for key, _ in selector.select()):
                self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # another process has it
        except OSError:
            time.sleep(_PAUSE)
            return
        uid = messages.peer_uid(connection)
        with self._guard:
            has_room = self._open[uid] < self._most_of_a_user and self._open.total() < self._most_connections
            self._open[uid] += has_room
        if not has_room:
            connection.close()
            return
        threading.Thread(target=self._serve, args=(connection, uid), daemon=True).start()

    def _serve(self, connection: socket.socket, uid: int) -> None:
        try:
            with connection:
                connection.settimeout(_PATIENCE)
                received = messages.receive(connection)
                if received is not None:
                    question, descriptors = received
                    messages.close_all(descriptors)
                    answer = self._answer(uid, question)
                    try:
                        messages.send(connection, answer.message, answer.descriptors)
                    finally:
                        messages.close_all(answer.descriptors)
        except (BadMessage, OSError):
            return  # whoever asked is gone, or asks nothing
        finally:
            with self._guard:
                self._open[uid] -= 1
                self._open += collections.Counter()  # forgets who has none

    def _answer(self, uid: int, question: Message) -> Answer:
        try:
            answer = self._handle(uid, question)
            return answer if isinstance(answer, Answer) else Answer(answer)
        except Exception as error:  # a malformed question or a bug: this one fails, the service goes on
            self._log.write("auth", f"Error: request of uid {uid} failed: {type(error).__name__}: {error}")
            return Answer({"error": "internal error: the log has more"})
