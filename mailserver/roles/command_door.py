"""What operators' commands ask of the running queue, through a socket that every user may reach.

    {"ask": "list"}                          -> {"ok": true}, and a memory file of `postqueue -j` lines
    {"ask": "flush"}                         -> {"ok": true}
    {"ask": "flush-id", "value": ID}         -> {"ok": true}
    {"ask": "flush-site", "value": DOMAIN}   -> {"ok": true}
    {"ask": "released", "value": ID}         -> {"ok": true}    from root and the queue's owner only

authorized_mailq_users and authorized_flush_users say who may what. See `door`; the socket is
`public/commands` under queue_directory.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import DeferredLock

from mailserver.maillog import MailLog
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.identity import is_queue_id
from mailserver.queue.listing import lines, waiting_for
from mailserver.roles.door import Door, DoorRefusal, Place, in_memory
from mailserver.threads import Threads

if TYPE_CHECKING:
    from mailserver.queue.runner import Runner

PLACE: Final = Place("public", "commands", 0o755, 0o666)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Who may what, by uid. The functions may block."""

    may_list: Callable[[int], bool]
    may_flush: Callable[[int], bool]
    trusted: Collection[int]


class CommandDoor:
    """Answers commands. `listener` is closed by `stop`."""

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
        self._threads = threads
        self._queue = queue
        self._runner = runner
        self._permissions = permissions
        self._one_listing = DeferredLock()
        self._door = Door(reactor, listener, self._carry_out, permissions.trusted, log)

    def stop(self) -> None:
        """Nobody is answered any more."""
        self._door.stop()

    async def _carry_out(self, uid: int, question: object, value: str) -> int | None:
        """What was asked is done; the descriptor of a listing, which is the caller's to close."""
        if question == "list":
            await self._require(self._permissions.may_list, uid, "view the mail queue")
            return await self._list()
        if question == "released":
            if uid not in self._permissions.trusted:
                raise DoorRefusal("use of this command is reserved for the superuser")
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
            raise DoorRefusal(f"unknown question: {question}")
        return None

    async def _require(self, may: Callable[[int], bool], uid: int, what: str) -> None:
        if not await self._threads.run(may, uid):
            raise DoorRefusal(f"user with uid {uid} is not allowed to {what}")

    async def _list(self) -> int:
        """A descriptor of the queue's listing. One is made at a time: anybody may ask."""
        return await self._one_listing.run(self._threads.run, lambda: in_memory(lines(self._queue)))
