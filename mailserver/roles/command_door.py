"""What operators' commands ask of the running queue, through a socket that every user may reach.

    {"ask": "list"}                          -> {"ok": true}, and a memory file of `postqueue -j` lines
    {"ask": "flush"}                         -> {"ok": true}
    {"ask": "flush-id", "value": ID}         -> {"ok": true}
    {"ask": "flush-site", "value": DOMAIN}   -> {"ok": true}
    {"ask": "released", "value": ID}         -> {"ok": true}    from root and the queue's owner only

A refusal is {"error": text, "status": exit status}. Who asks is the kernel's word (SO_PEERCRED);
authorized_mailq_users and authorized_flush_users say what they may. The socket is
`public/commands` under queue_directory, reached through /proc/self/fd, since the path of a Unix
socket has at most 107 octets.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.maillog import MailLog
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.identity import is_queue_id
from mailserver.queue.listing import lines, waiting_for
from mailserver.queue.runner import Runner
from mailserver.rights import messages
from mailserver.rights.listeners import connect_channel, listen_channel
from mailserver.rights.messages import Message
from mailserver.rights.reactor_channel import ReactorChannel
from mailserver.threads import Threads

MOST_CONNECTIONS: Final = 256
MOST_OF_A_USER: Final = 16
PATIENCE: Final = 60  # seconds until a connection is closed, whatever it is doing
NOT_PERMITTED: Final = 77  # EX_NOPERM of sysexits(3)
_DIRECTORY: Final = "public"
_NAME: Final = "commands"


@contextlib.contextmanager
def _short_path(queue_directory: str) -> Iterator[str]:
    """A path of the socket that is short enough, while the block lasts. Raises OSError."""
    directory = os.open(os.path.join(queue_directory, _DIRECTORY), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{_NAME}"
    finally:
        os.close(directory)


def listen(queue_directory: str) -> socket.socket:
    """The listening socket, for everybody. Raises OSError, CannotListen. For the queue's owner to call."""
    public = os.path.join(queue_directory, _DIRECTORY)
    with contextlib.suppress(FileExistsError):
        os.mkdir(public)
    os.chmod(public, 0o755)
    with _short_path(queue_directory) as path:
        return listen_channel(path, 0o666, os.geteuid(), os.getegid())


def ask(
    queue_directory: str, question: str, value: str = "", timeout: float = 60.0
) -> tuple[Message, list[int]]:
    """The server's answer and its descriptors, the caller's to close. *Blocking.*

    Raises OSError where no server listens, or it ends meanwhile.
    """
    with _short_path(queue_directory) as path:
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


@dataclass(frozen=True, slots=True)
class Permissions:
    """Who may what, by uid. The functions may block."""

    may_list: Callable[[int], bool]
    may_flush: Callable[[int], bool]
    trusted: Collection[int]


class _Refused(Exception):
    """The text is for the user who asked."""


@implementer(IReadDescriptor)
class CommandDoor:
    """Accepts connections and answers. `listener` is closed by `stop`."""

    def __init__(
        self,
        reactor: Any,
        threads: Threads,
        listener: socket.socket,
        queue: QueueDirectory,
        runner: Runner,
        permissions: Permissions,
        log: MailLog,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._listener = listener
        self._queue = queue
        self._runner = runner
        self._permissions = permissions
        self._log = log
        self._open: dict[ReactorChannel, int] = {}  # and whose it is
        self._one_listing = DeferredLock()
        listener.setblocking(False)
        reactor.addReader(self)

    def stop(self) -> None:
        """Nobody is answered any more."""
        self._reactor.removeReader(self)
        self._listener.close()
        for channel in list(self._open):
            channel.close()

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._listener.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "command door"

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor."""

    def doRead(self) -> None:
        """See IReadDescriptor."""
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
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
        if uid in self._permissions.trusted:
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
        self._log.write("qmgr", f"warning: a command's question: {failure.getErrorMessage()}")
        channel.close()

    async def _answer(self, channel: ReactorChannel, uid: int, question: object, value: str) -> None:
        try:
            descriptor = await self._carry_out(uid, question, value)
        except _Refused as refusal:
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

    async def _carry_out(self, uid: int, question: object, value: str) -> int | None:
        """What was asked is done; the descriptor of a listing, which is the caller's to close."""
        if question == "list":
            await self._require(self._permissions.may_list, uid, "view the mail queue")
            return await self._list()
        if question == "released":
            if uid not in self._permissions.trusted:
                raise _Refused("use of this command is reserved for the superuser")
            self._runner.hurry(filter(is_queue_id, [value]))
            return None
        await self._require(self._permissions.may_flush, uid, "flush the mail queue")
        if question == "flush":
            self._runner.flush()
        elif question == "flush-id":
            self._runner.hurry(filter(is_queue_id, [value]))
        elif question == "flush-site":
            wanted = value.lower()
            self._runner.hurry(
                await self._threads.run(waiting_for, self._queue, lambda domain: domain.lower() == wanted)
            )
        else:
            raise _Refused(f"unknown question: {question}")
        return None

    async def _require(self, may: Callable[[int], bool], uid: int, what: str) -> None:
        if not await self._threads.run(may, uid):
            raise _Refused(f"user with uid {uid} is not allowed to {what}")

    async def _list(self) -> int:
        """A descriptor of the queue's listing. One is made at a time: anybody may ask."""
        return await self._one_listing.run(self._threads.run, _write_listing, self._queue)


def _write_listing(queue: QueueDirectory) -> int:
    """The descriptor of a memory file with the whole listing. *Blocking.*"""
    descriptor = os.memfd_create("listing", os.MFD_CLOEXEC)
    with open(descriptor, "w", encoding="ascii", closefd=False) as file:
        file.writelines(lines(queue))
    return descriptor
