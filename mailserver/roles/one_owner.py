"""The whole server in one process, where all mail has one owner.

Started without root, or as root where no system accounts are configured: then it binds, and becomes
`mail_owner` for good before it reads a byte from the network. The front is the session
host and the delivery agent itself.

At a reload the new configuration gets a `Serving` of its own beside the present one, which ends with its last
session. What it listens on newly it binds as `mail_owner`: a port below 1024 needs a stop and start.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import socket
from collections.abc import Awaitable, Container, Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, DeferredLock

from mailserver.config.config import Config
from mailserver.dns import Resolver
from mailserver.maillog import FileLog, MailLog
from mailserver.queue.direct import Delivered
from mailserver.queue.file import QueueFile
from mailserver.queue.incoming import IncomingMessage
from mailserver.rights.as_user import Identity, become
from mailserver.rights.service_manager import ServiceManager
from mailserver.roles.auth_listener import bind_auth
from mailserver.roles.instance import lock_queue
from mailserver.roles.listening import Address, StartFailed, bind_all, by_address
from mailserver.roles.logins import login_database
from mailserver.roles.parts import Parts
from mailserver.roles.python_home import unreachable_path
from mailserver.roles.ready import announce
from mailserver.roles.reload import Outcome, OutcomeFile, Reloading, addresses
from mailserver.roles.serving import Process, Serving
from mailserver.roles.signals import on_signal, stop_once
from mailserver.smtpd.limits import ClientLimits
from mailserver.threads import WorkerThreads

THREADS: Final = 16
FEW_THREADS: Final = 3
COLLECTION: Final = (10_000, 20, 50)  # gc.set_threshold: indexes of mailboxes are large and hold no cycles
MOST_RETIRED: Final = 3  # configurations of the past whose sessions go on


class OneOwnerServer(Service):
    """SMTP, queue, POP3 and IMAP in this process."""

    def __init__(self, config: Config, log: MailLog, reactor: Any) -> None:
        self._config = config
        self._log = log
        self._reactor = reactor
        self._threads = WorkerThreads(reactor, THREADS, "mail", FEW_THREADS)
        self._retired: list[Serving] = []
        self._one_reload = DeferredLock()
        self._is_stopping = False

    def prepare(self) -> None:
        """Ports are bound, rights are dropped, the queue is locked, all parts are made.

        Whatever is wrong with the configuration or the machine is raised here.
        """
        config, log = self._config, self._log
        owner = Parts(config, log).mail_owner
        self._lock = lock_queue(config, owner.uid, owner.gid)
        self._file = OutcomeFile(config.string("queue_directory"), owner.uid, owner.gid)
        self._bound = bind_all(config)
        auth = bind_auth(Parts(config, log))
        was_root = os.geteuid() == 0
        self._drop_root()
        self._process = Process(
            self._reactor,
            self._threads,
            Resolver(self._reactor),
            self._take,
            self._accepted,
            self._delivered,
            is_shared=was_root,
            auth=auth,
            limits=ClientLimits(self._reactor.seconds),
        )
        self._serving = Serving(config, log, self._process)
        self._serving.listen()
        self._reloading = Reloading(config, log, self._file, has_fixed_mode=was_root)

    def _take(self, message: IncomingMessage) -> Awaitable[QueueFile | Delivered]:
        """Whoever received it, it is delivered, or queued, by the present configuration."""
        return self._serving.take(message)

    def _accepted(self, message: QueueFile) -> None:
        """Whoever took it in, the queue's present runner delivers it."""
        self._serving.accept(message)

    def _delivered(self, path: str) -> None:
        for serving in (self._serving, *self._retired):
            serving.nudge(path)

    def _drop_root(self) -> None:
        if os.geteuid() != 0:
            return
        parts = Parts(self._config, self._log)
        owner = parts.mail_owner
        if owner.uid == 0:
            parts.warn("master")("mail_owner is root, so everything runs as root: name another user")
            return
        closed = unreachable_path()
        if closed is not None:
            raise StartFailed(
                f"{closed}: Python lies below it and the mail_owner cannot pass: "
                "install into a directory that everybody may pass (chmod o+x), or use the system's Python"
            )
        with contextlib.suppress(OSError):  # whoever needs it says why it has none
            login_database(parts).prepare()
        if isinstance(self._log, FileLog):
            self._log.give_to(owner.uid, owner.gid)
        become(Identity(self._config.string("mail_owner"), owner.uid, owner.gid))

    def startService(self) -> None:
        """The queue is scanned, and mail flows."""
        super().startService()
        self._serving.open(self._bound)
        announce()
        self._manager = ServiceManager(os.environ)
        gc.freeze()  # what start-up made stays
        gc.set_threshold(*COLLECTION)
        on_signal(self._reactor, signal.SIGHUP, self._hang_up)
        self._reactor.callLater(0, stop_once)  # when the reactor has its own handlers
        self._feed_watchdog()

    def _feed_watchdog(self) -> None:
        """The service manager restarts us when the reactor no longer comes to this."""
        self._manager.is_alive()
        if math.isfinite(self._manager.interval):
            self._reactor.callLater(self._manager.interval, self._feed_watchdog)

    # A reload.

    def _hang_up(self) -> None:
        """The log is open under its name again, and a changed configuration serves who comes."""
        self._one_reload.run(lambda: Deferred.fromCoroutine(self._reload())).addErrback(self._log_bug)

    def _log_bug(self, failure: Any) -> None:
        for line in failure.getTraceback().splitlines():
            self._log.write("master", f"error: {line}")

    async def _reload(self) -> None:
        if self._is_stopping:
            return
        self._manager.is_reloading()
        for log in {id(each): each for each in (self._log, *(each.log for each in self._retired))}.values():
            try:
                if isinstance(log, FileLog):
                    log.reopen()
            except OSError as error:
                log.write("master", f"warning: reload: {error}: the old file is written on")
        begun = await self._threads.run(self._reloading.begin)
        if begun is not None and not self._is_stopping:
            await self._succeed(*begun)
        self._manager.is_ready()

    async def _succeed(self, outcome: Outcome, config: Config, log: MailLog) -> None:
        """A new `Serving` is in the place of the present one, or that is as it was."""
        old, new = by_address(self._bound), {}
        try:
            coming = Serving(config, log, self._process)
            bound = await self._threads.run(bind_all, config, old)
            new = by_address(bound)
            coming.listen()
        except Exception as error:  # whatever it is: the old configuration runs on
            self._close(new, old)
            self._reloading.refuse(outcome, error)
            return
        present, self._serving = self._serving, coming
        self._config, self._log, self._bound = config, log, bound
        self._retired.append(present)
        await present.leave()
        self._close(old, new)
        coming.take_over(present)
        coming.open(bound)
        Deferred.fromCoroutine(self._finish(present)).addErrback(self._log_bug)
        for oldest in self._retired[:-MOST_RETIRED]:
            Deferred.fromCoroutine(oldest.dismiss()).addErrback(self._log_bug)
        outcome.opened, outcome.closed = (
            addresses(new.keys() - old.keys()),
            addresses(old.keys() - new.keys()),
        )
        self._reloading.accept(outcome, config, log)

    def _close(self, some: Mapping[Address, socket.socket], others: Container[Address]) -> None:
        """Those sockets of `some` are closed that `others` have not."""
        for address, taken in some.items():
            if address not in others:
                taken.close()

    async def _finish(self, retired: Serving) -> None:
        """It has ended; what its deliveries left in the queue is the present one's."""
        await retired.delivered()
        if not self._is_stopping:
            await self._serving.rescan()
        await retired.ended()
        self._retired.remove(retired)

    # The end.

    def stopService(self) -> Deferred[None]:
        """Clients were told, deliveries have ended, everything is closed."""
        super().stopService()
        self._is_stopping = True
        self._manager.is_stopping()
        return self._one_reload.run(lambda: Deferred.fromCoroutine(self._stop()))

    async def _stop(self) -> None:
        await DeferredList(
            [Deferred.fromCoroutine(serving.close()) for serving in (self._serving, *self._retired)]
        )
        self._close(by_address(self._bound), ())
        self._threads.stop()
        self._file.close()
        os.close(self._lock)
