"""Delivery agents: acts done as the recipients. local(8)'s role.

An agent is a single-threaded root process that takes requests of the queue, over a channel
that all agents share: whoever is free accepts. For each request it forks a child, and does not
wait for it: a user's slow command holds up nobody else's mail (P9). It is the child that becomes
the owner for good, runs the handler and answers. Root's own requests are done as `nobody`, but for its
mailbox and its .forward file: as uid 0 without any capability. A fork costs about a millisecond; in
exchange no code that touches a user's files or runs a user's command can ever get root back, whatever
is wrong with it. The agent itself parses only the message of the queue process. A child that dies
or outlives its limit is answered for: `{"error": …}`, and the caller defers.

Kill an agent, and its child finishes what it does; the caller sees the connection end,
defers, and at worst delivers a second copy (P3).
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from mailserver.maillog import MailLog
from mailserver.rights import messages
from mailserver.rights.as_user import NOBODY, Identity, become, become_powerless_root
from mailserver.rights.listeners import connect_channel
from mailserver.rights.messages import BadMessage, Message
from mailserver.rights.supervisor import fork_child

Handler = Callable[[Message, list[int]], Message]
_NOBODY: Final = Identity("nobody", NOBODY, NOBODY)
_REQUEST_SECONDS: Final = 10.0  # to send a request after connecting
_STOP_SECONDS: Final = 10.0
_MOST_CHILDREN: Final = 25  # of one agent: with four of them as many as Postfix's default_process_limit


@dataclass(frozen=True, slots=True)
class _Child:
    pid: int
    name: str
    connection: socket.socket
    deadline: float  # monotonic


class AgentFailure(OSError):
    """The agent could not do it, or nobody knows whether it did. Temporary."""


class Agent:
    """Serves requests `{"verb", "owner": {"name", "uid", "gid"}, …}`.

    `handlers` has a function for each verb; it runs as the owner and returns the answer.
    `groups` names the supplementary groups of a request (the spool's, where its directory
    asks for it). `is_roots_own` says which requests are done as uid 0 where the owner is root.
    `time_limit` is in seconds, above every limit of the handlers' own.
    """

    def __init__(
        self,
        listener: socket.socket,
        handlers: Mapping[str, Handler],
        allowed_uids: Collection[int],
        log: MailLog,
        nobody: Identity = _NOBODY,
        groups: Callable[[Message], tuple[int, ...]] = lambda message: (),
        time_limit: float = 1100.0,
        is_roots_own: Callable[[Message], bool] = lambda message: False,
    ) -> None:
        self._listener = listener
        self._handlers = handlers
        self._allowed = frozenset(allowed_uids)
        self._log = log
        self._nobody = nobody
        self._groups = groups
        self._time_limit = time_limit
        self._is_roots_own = is_roots_own
        self._stopping = False
        self._give_up_at = math.inf
        self._children: dict[int, _Child] = {}  # by the descriptor that says when one has ended

    def run(self) -> None:
        """Serves until SIGTERM; the requests at hand are finished first, or given up after _STOP_SECONDS."""
        signal.signal(signal.SIGTERM, self._stop)
        self._listener.setblocking(False)
        while self._children or not self._stopping:
            may_accept = not self._stopping and len(self._children) < _MOST_CHILDREN
            listener = self._listener.fileno()
            watched = [listener, *self._children] if may_accept else [*self._children]
            ready, _, _ = select.select(watched, [], [], 1.0)
            for descriptor in ready:
                if descriptor == listener:
                    self._accept()
                else:
                    self._ended(descriptor)
            self._kill_overdue()

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True
        self._give_up_at = min(self._give_up_at, time.monotonic() + _STOP_SECONDS)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # another agent was faster
        if not self._serve(connection):
            connection.close()

    def _serve(self, connection: socket.socket) -> bool:
        """Whether a child has the request now."""
        connection.settimeout(_REQUEST_SECONDS)
        if messages.peer_uid(connection) not in self._allowed:
            return False
        try:
            received = messages.receive(connection, large=True)
        except (BadMessage, OSError) as error:
            self._log.write("local", f"warning: a request could not be read: {error}")
            return False
        if received is None:
            return False
        message, descriptors = received
        try:
            self._fork(connection, message, descriptors)
        except (KeyError, TypeError, ValueError) as error:
            self._log.write("local", f"warning: malformed request: {type(error).__name__}: {error}")
            return False
        except OSError as error:
            self._log.write("local", f"warning: no process for a delivery: {error}")
            return False
        finally:
            messages.close_all(descriptors)
        return True

    def _fork(self, connection: socket.socket, message: Message, descriptors: list[int]) -> None:
        handler = self._handlers[message["verb"]]
        identity = self._identity(message)
        name = str(message["owner"]["name"])

        def prepare() -> None:
            self._listener.close()
            for descriptor, other in self._children.items():
                os.close(descriptor)
                other.connection.close()
            if identity is None:
                become_powerless_root(self._groups(message))
            else:
                become(identity)
            os.chdir("/")

        def main() -> None:
            signal.signal(signal.SIGTERM, _give_up)
            answer = handler(message, descriptors)
            messages.send(connection, answer)

        pid = fork_child(main, prepare)
        deadline = time.monotonic() + self._time_limit
        self._children[os.pidfd_open(pid)] = _Child(pid, name, connection, deadline)

    def _identity(self, message: Message) -> Identity | None:
        """Whom to become; None: uid 0 without its power."""
        owner = message["owner"]
        uid, gid = int(owner["uid"]), int(owner["gid"])
        if uid == 0 and self._is_roots_own(message):
            return None
        if uid <= 0 or gid <= 0:
            return self._nobody
        return Identity(str(owner["name"]), uid, gid, self._groups(message))

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for descriptor, child in self._children.items():
            if now > child.deadline:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            elif now > self._give_up_at:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)

    def _ended(self, descriptor: int) -> None:
        child = self._children.pop(descriptor)
        os.close(descriptor)
        status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        with child.connection:
            if status != 0:
                self._log.write("local", f"warning: delivery process for {child.name} ended with {status}")
                self._apologise(child.connection)

    def _apologise(self, connection: socket.socket) -> None:
        try:
            messages.send(connection, {"error": "the delivery process failed"})
        except OSError:
            return  # the caller is gone, or was answered; it defers by itself


def _give_up(number: int, frame: object) -> NoReturn:
    """A delivery is undone, a command killed with its process group, and the queue tries again later."""
    sys.exit("stopped")


class AgentClient:
    """Asks the agents. Blocking; any number of threads may ask, as many as there are agents are served."""

    def __init__(self, path: str, time_limit: float = 1200.0) -> None:
        self._path = path
        self._time_limit = time_limit

    def ask(self, verb: str, owner: Message, message: Message, descriptors: tuple[int, ...] = ()) -> Message:
        """The handler's answer. Raises AgentFailure (an OSError): defer."""
        request = {**message, "verb": verb, "owner": owner}
        try:
            with connect_channel(self._path, self._time_limit) as connection:
                messages.send(connection, request, descriptors)
                received = messages.receive(connection, large=True)
        except (OSError, BadMessage) as error:
            raise AgentFailure(f"no answer of the delivery agent: {error}") from error
        if received is None:
            raise AgentFailure("the delivery agent ended before it answered")
        answer, extra = received
        messages.close_all(extra)
        if "error" in answer:
            raise AgentFailure(str(answer["error"]))
        return answer
