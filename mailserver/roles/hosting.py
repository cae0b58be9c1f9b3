"""What a session host is made of: one account's stores and its sessions. DESIGN decision 7."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import Clock

from mailserver.accounts.account import Account
from mailserver.accounts.codec import account_from
from mailserver.config.config import Config
from mailserver.guests.visiting import VisitingRegistry
from mailserver.maillog import ListLog, MailLog
from mailserver.rights.messages import Message, close_all
from mailserver.rights.session_host import SessionHost
from mailserver.roles.neighbours import Guests, with_visits
from mailserver.roles.parts import Parts
from mailserver.roles.process import RoleProcess
from mailserver.roles.retrieval import (
    RetrievalListeners,
    behind_acls,
    imap_settings,
    make_registry,
    pop3_settings,
)
from mailserver.store.sharing import SharingRegistry
from mailserver.threads import Inline, Threads


def serve(config: Config, log: MailLog, account: Account, control: socket.socket) -> None:
    """The account's sessions and guests are served as they arrive over `control`.

    Until none has come for long, or SIGTERM.
    """
    process = RoleProcess()
    hosting = Hosting(config, log, account, process.reactor, process.threads)
    SessionHost(process.reactor, control, hosting.build, log, process.stop, welcome=hosting.welcome)
    process.when_running(hosting.start)
    process.run(hosting.stop)


def read_settings(config: Config) -> None:
    """What the hosts that are forked from here ask of the configuration is worked out. Raises ConfigError."""
    imap_settings(config)
    pop3_settings(config)
    make_registry(Parts(config, ListLog()), Inline(), Clock())


class Hosting:
    """The stores, the sessions and the guests of one process's account."""

    def __init__(
        self, config: Config, log: MailLog, account: Account, reactor: Any, threads: Threads
    ) -> None:
        parts = Parts(config, log)
        self._threads = threads
        self._registry, self._notices = make_registry(parts, threads, reactor)
        own = behind_acls(parts, self._registry, account)
        stores = with_visits(parts, own)
        if isinstance(stores, VisitingRegistry):
            self._notices.chores.append(stores.owners.sweep)
        self._guests: Guests | None = None
        if isinstance(own, SharingRegistry):
            self._guests = Guests(config, account, own, log, reactor)
        retrieval = RetrievalListeners(parts, threads, reactor, None, stores)
        self._factories: dict[str, Any] = {
            "imap": retrieval.imap_host(config),
            "pop3": retrieval.pop3_host(config),
        }

    def build(self, account: Message, service: str, preamble: Mapping[str, Any]) -> Any:
        """The protocol of a session that begins where the front left it: a `BuildSession`."""
        return self._factories[service].resumed(account_from(account), preamble)

    def welcome(self, guest: Message, stream: int, ended: Callable[[], None]) -> None:
        """The guest is served: a `Welcome`."""
        if self._guests is None:
            close_all((stream,))
            ended()
        else:
            self._guests.welcome(guest, stream, ended)

    def start(self) -> None:
        """Changes of mailboxes are noticed. Once the reactor runs."""
        self._notices.start()

    async def stop(self) -> None:
        """Every session has ended, and the stores are closed."""
        if self._guests is not None:
            self._guests.shut()
        for factory in self._factories.values():
            await factory.shut_down()
        self._notices.stop()
        await self._threads.run(self._registry.shut)
