"""A socket at which commands ask a running server: who may connect, how many, and for how long.

A question is {"ask": word, "value": text}; the answer {"ok": true}, perhaps with a descriptor of a memory
file to read, or {"error": text, "status": exit status}. Who asks is the kernel's word (SO_PEERCRED). The
socket lies in a directory of the queue directory, reached through /proc/self/fd, since the path of a Unix
socket has at most 107 octets.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.maillog import MailLog
from mailserver.rights import messages
from mailserver.rights.acceptor import Acceptor
from mailserver.rights.listeners import connect_channel, listen_channel
from mailserver.rights.messages import Message
from mailserver.rights.reactor_channel import ReactorChannel

MOST_CONNECTIONS: Final = 256
MOST_OF_A_USER: Final = 16
PATIENCE: Final = 60  # seconds until a connection is closed, whatever it is doing
NOT_PERMITTED: Final = 77  # EX_NOPERM of sysexits(3)

# (uid, question, value) -> a descriptor to read, the door's to close, or None. Raises DoorRefusal.
Answer = Callable[[int, object, str], Awaitable[int | None]]


class DoorRefusal(Exception):
    """What was asked is not done; the text is for the user who asked."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a socket lies: `directory` under the queue directory, and their modes."""

    directory: str
    name: str
    directory_mode: int
    mode: int

    @contextlib.contextmanager
    def short_path(self, queue_directory: str) -> Iterator[str]:
        """A path of the socket that is short enough, while the block lasts. Raises OSError."""
        path = os.path.join(queue_directory, self.directory)
        directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{directory}/{self.name}"
        finally:
            os.close(directory)

    def listen(self, queue_directory: str) -> socket.socket:
        """The listening socket. Raises OSError, CannotListen. For the queue's owner to call."""
        directory = os.path.join(queue_directory, self.directory)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)
        os.chmod(directory, self.directory_mode)
        with self.short_path(queue_directory) as path:
            return listen_channel(path, self.mode, os.geteuid(), os.getegid())

    def ask(
        self, queue_directory: str, question: str, value: str = "", timeout: float = 60.0
    ) -> tuple[Message, list[int]]:
        """The server's answer and its descriptors, the caller's to close. *Blocking.*

        Raises OSError where no server listens, or it ends meanwhile.
        """
        with self.short_path(queue_directory) as path:
            connection = connect_channel(path, timeout)
        with connection:
            messages.send(connection, {"ask": question, "value": value})
            try:
                answer = messages.receive(connection)
            except messages.BadMessage as error:
                raise ConnectionError(f"the mail system's answer cannot be read: {error}") from error
        if answer is None:
            raise ConnectionResetError("the mail system does not answer")
        return answer


def in_memory(lines: Iterable[str]) -> int:
    """The descriptor of a memory file with the lines. *Blocking*, where making them does."""
    descriptor = os.memfd_create("listing", os.MFD_CLOEXEC)
    with open(descriptor, "w", encoding="ascii", closefd=False) as file:
        file.writelines(lines)
    return descriptor


class Door:
    """Accepts connections and lets `answer` answer. `listener` is closed by `stop`.

    Those who are `trusted` are always heard.
    """

    def __init__(
        self,
        reactor: Any,
        listener: socket.socket,
        answer: Answer,
        trusted: Collection[int],
        log: MailLog,
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        self._carry_out = answer
        self._trusted = trusted
        self._log = log
        self._open: dict[ReactorChannel, int] = {}  # and whose it is
        self._acceptor = Acceptor(reactor, listener, self._accepted)

    def stop(self) -> None:
        """Nobody is answered any more."""
        self._acceptor.stop()
        self._listener.close()
        for channel in list(self._open):
            channel.close()

    def _accepted(self, connection: socket.socket) -> None:
        uid = messages.peer_uid(connection)
        if not self._has_room(uid):
            connection.close()
            return
        channel = ReactorChannel(
            self._reactor,
            connection,
            lambda message, descriptors: self._heard(channel, uid, message, descriptors),
            lambda: self._lost(channel, patience),
        )
        patience = self._reactor.callLater(PATIENCE, channel.close)
        self._open[channel] = uid

    def _has_room(self, uid: int) -> bool:
        """Whether one more connection is taken: a user cannot keep out the others, nor anybody root."""
        if uid in self._trusted:
            return True
        own = sum(each == uid for each in self._open.values())
        return own < MOST_OF_A_USER and len(self._open) < MOST_CONNECTIONS

    def _lost(self, channel: ReactorChannel, patience: Any) -> None:
        self._open.pop(channel, None)
        if patience.active():
            patience.cancel()

    def _heard(self, channel: ReactorChannel, uid: int, message: Message, descriptors: list[int]) -> None:
        messages.close_all(descriptors)
        question, value = message.get("ask"), message.get("value", "")
        work = Deferred.fromCoroutine(self._answer(channel, uid, question, str(value)))
        work.addErrback(self._log_failure, channel)

    def _log_failure(self, failure: Failure, channel: ReactorChannel) -> None:
        self._log.write("master", f"warning: a command's question: {failure.getErrorMessage()}")
        channel.close()

    async def _answer(self, channel: ReactorChannel, uid: int, question: object, value: str) -> None:
        try:
            descriptor = await self._carry_out(uid, question, value)
        except DoorRefusal as refusal:
            self._send(channel, {"error": str(refusal), "status": NOT_PERMITTED})
            return
        if descriptor is None:
            self._send(channel, {"ok": True})
            return
        try:
            self._send(channel, {"ok": True}, descriptor)
        finally:
            os.close(descriptor)

    def _send(self, channel: ReactorChannel, message: Message, *descriptors: int) -> None:
        try:
            channel.send(message, descriptors)
        except OSError:
            channel.close()
