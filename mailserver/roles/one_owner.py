"""The whole server in one process, where all mail has one owner.

Started without root, or as root where no system accounts are configured: then it binds, and becomes
`mail_owner` for good before it reads a byte from the network. The front is the session
host and the delivery agent itself.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from mailserver.accounts.local_logins import LocalLogins
from mailserver.config.config import Config
from mailserver.dns import Resolver
from mailserver.maillog import FileLog, MailLog
from mailserver.rights.as_user import Identity, become
from mailserver.rights.service_manager import ServiceManager
from mailserver.roles.auth_listener import AuthListener, bind_auth
from mailserver.roles.hangup import reopen_log_on_hangup
from mailserver.roles.instance import lock_queue
from mailserver.roles.listening import Ports, StartFailed, bind_all, smtp_ports
from mailserver.roles.local_side import LocalSide
from mailserver.roles.logins import judge, login_database
from mailserver.roles.parts import Parts
from mailserver.roles.python_home import unreachable_path
from mailserver.roles.queueing import local_agents, make_runner
from mailserver.roles.ready import announce
from mailserver.roles.retrieval import RetrievalListeners, behind_acls, make_registry
from mailserver.roles.session_door import SessionDoor
from mailserver.roles.smtp import SmtpListeners
from mailserver.threads import WorkerThreads

THREADS = 16
FEW_THREADS = 3
COLLECTION = (10_000, 20, 50)  # gc.set_threshold: indexes of mailboxes are large and hold no cycles


class OneOwnerServer(Service):
    """SMTP, queue, POP3 and IMAP in this process."""

    def __init__(self, config: Config, log: MailLog, reactor: Any) -> None:
        self._reactor = reactor
        self._parts = Parts(config, log)
        self._threads = WorkerThreads(reactor, THREADS, "mail", FEW_THREADS)

    def prepare(self) -> None:
        """Ports are bound, rights are dropped, the queue is locked, all parts are made.

        Whatever is wrong with the configuration or the machine is raised here.
        """
        parts, reactor, threads = self._parts, self._reactor, self._threads
        self._lock = lock_queue(parts.config, parts.mail_owner.uid, parts.mail_owner.gid)
        bound = bind_all(parts.config)
        auth = bind_auth(parts)
        is_shared = os.geteuid() == 0
        self._drop_root()
        parts.queue.prepare()
        self._resolver = Resolver(reactor)
        self._registry, self._notices = make_registry(parts, threads, reactor)
        self._runner, self._ways_out = make_runner(
            parts,
            threads,
            reactor,
            self._resolver,
            local_agents(parts),
            self._notices.nudge,
            smtp_ports(bound),
            agents_are_this_process=True,
        )
        self._local = LocalSide(parts, threads, reactor, self._runner, is_shared)
        decides = judge(parts)
        logins = LocalLogins(decides, threads, reactor)
        smtp = SmtpListeners(parts, threads, reactor, self._resolver, logins, self._runner.accept)
        stores = behind_acls(parts, self._registry, may_share=True)
        retrieval = RetrievalListeners(parts, threads, reactor, logins, stores)
        self._sessions = SessionDoor(parts, threads, reactor, decides.throttle)
        self._auth = AuthListener(parts, reactor, auth, logins) if auth is not None else None
        self._ports = Ports(parts, reactor)
        self._ports.open(bound, smtp, retrieval)

    def _drop_root(self) -> None:
        if os.geteuid() != 0:
            return
        owner = self._parts.mail_owner
        if owner.uid == 0:
            self._parts.warn("master")("mail_owner is root, so everything runs as root: name another user")
            return
        closed = unreachable_path()
        if closed is not None:
            raise StartFailed(
                f"{closed}: Python lies below it and the mail_owner cannot pass: "
                "install into a directory that everybody may pass (chmod o+x), or use the system's Python"
            )
        with contextlib.suppress(OSError):  # whoever needs it says why it has none
            login_database(self._parts).prepare()
        if isinstance(self._parts.log, FileLog):
            self._parts.log.give_to(owner.uid, owner.gid)
        become(Identity(self._parts.config.string("mail_owner"), owner.uid, owner.gid))

    def startService(self) -> None:
        """The queue is scanned, and mail flows."""
        super().startService()
        self._notices.start()
        self._runner.start()
        self._local.start()
        announce()
        self._manager = ServiceManager(os.environ)
        gc.freeze()  # what start-up made stays
        gc.set_threshold(*COLLECTION)
        reopen_log_on_hangup(self._parts.log, self._manager)
        self._feed_watchdog()

    def _feed_watchdog(self) -> None:
        """The service manager restarts us when the reactor no longer comes to this."""
        self._manager.is_alive()
        if math.isfinite(self._manager.interval):
            self._reactor.callLater(self._manager.interval, self._feed_watchdog)

    def stopService(self) -> Deferred[None]:
        """Clients were told, deliveries have ended, everything is closed."""
        super().stopService()
        self._manager.is_stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._sessions.stop()
        if self._auth is not None:
            self._auth.stop()
        await self._ports.close()
        await self._local.stop()
        await self._runner.stop()
        self._ways_out.close()
        self._parts.queue.close()
        self._notices.stop()
        await self._threads.run(self._registry.shut)
        self._threads.stop()
        os.close(self._lock)
