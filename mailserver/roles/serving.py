"""The whole server for one configuration, in this process: queue, SMTP, POP3 and IMAP.

Made, then `open`; at a reload it takes nothing new after `leave`, and has ended when its last session and
its last delivery have. Two of them share a queue and mailboxes as two processes would.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mailserver.accounts.local_logins import LocalLogins
from mailserver.config.config import Config
from mailserver.config.listeners import listeners
from mailserver.dns import Resolver
from mailserver.maillog import MailLog
from mailserver.queue.file import QueueFile
from mailserver.roles.auth_listener import AuthListener
from mailserver.roles.listening import Bound, Ports, smtp_ports
from mailserver.roles.local_side import LocalSide
from mailserver.roles.logins import judge
from mailserver.roles.parts import Parts
from mailserver.roles.queueing import direct_delivery, local_agents, make_runner
from mailserver.roles.retrieval import RetrievalListeners, behind_acls, make_registry
from mailserver.roles.session_door import SessionDoor
from mailserver.roles.smtp import SmtpListeners
from mailserver.smtpd.limits import ClientLimits
from mailserver.smtpd.reception import Take
from mailserver.threads import Threads


@dataclass(frozen=True, slots=True)
class Process:
    """What every `Serving` of a process shares.

    `take` makes each message durable that comes in, `accepted` gets those that are in the queue then,
    `delivered` each path of a mailbox that got one.
    `is_shared`: several users submit mail. `auth` is where other programs have logins checked.
    """

    reactor: Any
    threads: Threads
    resolver: Resolver
    take: Take
    accepted: Callable[[QueueFile], None]
    delivered: Callable[[str], None]
    is_shared: bool
    auth: socket.socket | None
    limits: ClientLimits


class Serving:
    """See the module. Making one raises ConfigError; nobody is served before `open`."""

    def __init__(self, config: Config, log: MailLog, process: Process) -> None:
        self.config = config
        self.log = log
        self._process = process
        reactor, threads = process.reactor, process.threads
        self._is_closed = False
        self._parts = parts = Parts(config, log)
        parts.queue.prepare()
        found = listeners(config)
        self._registry, self._notices = make_registry(parts, threads, reactor)
        self.nudge = self._notices.nudge
        agents = local_agents(parts)
        self._runner, queueing, self._ways_out = make_runner(
            parts,
            threads,
            reactor,
            process.resolver,
            agents,
            process.delivered,
            smtp_ports(found),
            agents_are_this_process=True,
        )
        self.accept = self._runner.accept
        self.take = direct_delivery(parts, queueing, reactor).take
        self.rescan = self._runner.rescan
        decides = judge(parts)
        self._throttle = decides.throttle
        self._door: SessionDoor | None = None
        self._auth: AuthListener | None = None
        self._logins = logins = LocalLogins(decides, threads, reactor)
        stores = behind_acls(parts, self._registry)
        smtp = SmtpListeners(
            parts,
            threads,
            reactor,
            process.resolver,
            logins,
            process.accepted,
            own_ports=smtp_ports(found),
            limits=process.limits,
            take=process.take,
            stores=stores,
        )
        retrieval = RetrievalListeners(parts, threads, reactor, logins, stores)
        self._ports = Ports(parts, reactor)
        self._ports.make(found, smtp, retrieval)
        self._local = LocalSide(parts, threads, reactor, self._runner, process.is_shared)

    def listen(self) -> None:
        """Commands reach this one. Raises ConfigError."""
        self._door = SessionDoor(self._parts, self._process.threads, self._process.reactor, self._throttle)
        self._local.listen()

    def open(self, bound: Bound) -> None:
        """The queue is scanned, mail flows, and every socket is served."""
        self._notices.start()
        self._ports.open(bound)
        if self._process.auth is not None:
            auth = self._process.auth.dup()
            self._auth = AuthListener(self._parts, self._process.reactor, auth, self._logins)
        self._runner.start()
        self._local.start()

    def take_over(self, predecessor: Serving) -> None:
        """What was held against places for wrong passwords still is."""
        self._throttle.adopt(predecessor._throttle.exported())

    async def leave(self) -> None:
        """Nothing new is begun or taken, from the drop directory neither; what is under way goes on."""
        self._runner.stop()
        if self._door is not None:
            self._door.step_aside()
        if self._auth is not None:
            self._auth.leave()
        await self._ports.leave()
        await self._local.stop()

    async def delivered(self) -> None:
        """Returns when no delivery is under way any more. After `leave`."""
        await self._runner.stop()
        self._ways_out.close()

    async def dismiss(self) -> None:
        """Clients were told to go. After `leave`."""
        await self._ports.close()

    async def ended(self) -> None:
        """Returns when every session has ended, and everything is closed. After `leave`."""
        await self._ports.ended()
        await self._close()

    async def close(self) -> None:
        """Clients were told, deliveries have ended, everything is closed."""
        await self._ports.close()
        await self._local.stop()
        await self.delivered()
        await self._close()

    async def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._auth is not None:
            self._auth.stop()
        if self._door is not None:
            self._door.stop()
        self._parts.queue.close()
        self._notices.stop()
        await self._process.threads.run(self._registry.shut)
