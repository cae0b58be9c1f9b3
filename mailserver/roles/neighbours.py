"""How users of the system share mailboxes: what a session host has for guests, and for its own user's visits.

Only an account that is a user of the system under its own name takes part: the kernel tells the helper who
asks.
"""

from __future__ import annotations

import collections
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from mailserver.accounts.account import Account
from mailserver.config.config import Config
from mailserver.guests.guest_store import store_of
from mailserver.guests.introductions import Introducer
from mailserver.guests.owners import Owners
from mailserver.guests.server import GuestService
from mailserver.guests.visiting import VisitingRegistry
from mailserver.maillog import MailLog
from mailserver.rights.messages import Message
from mailserver.roles.instance import guest_channel
from mailserver.roles.parts import Parts
from mailserver.store.acl import Person
from mailserver.store.contract import StoreRegistry
from mailserver.store.sharing import SharingRegistry

MOST_OF_A_GUEST: Final = 4  # connections of one guest to an owner's host
MOST_GUESTS: Final = 32  # connections to it at once


def with_visits(parts: Parts, stores: StoreRegistry) -> StoreRegistry:
    """The stores, and in them what other users of the system share. Raises ConfigError."""
    if not isinstance(stores, SharingRegistry) or not stores.rules.shared_prefix:
        return stores
    introducer = Introducer(guest_channel(parts.config))
    owners = Owners(introducer.visit, stores.rules.prefix_of)
    return VisitingRegistry(stores, owners, introducer.owners, stores.rules, parts.warn("imap"))


class Guests:
    """The guests of one account, each connection in a thread."""

    def __init__(
        self, config: Config, account: Account, stores: SharingRegistry, log: MailLog, reactor: Any
    ) -> None:
        self._may_name_all = config.string("acl_anyone") == "allow"
        self._largest_message = config.octets("message_size_limit")
        self._account = account
        self._stores = stores
        self._log = log
        self._reactor = reactor
        self._guard = threading.Lock()
        self._services: set[GuestService] = set()
        self._of: collections.Counter[str] = collections.Counter()

    def welcome(self, guest: Message, stream: int, ended: Callable[[], None]) -> None:
        """The guest is served; `ended` is called in the reactor's thread when he is gone."""
        connection = socket.socket(fileno=stream)
        person = Person(str(guest["name"]), frozenset(map(str, guest["groups"])))
        with self._guard:
            has_room = self._of[person.name] < MOST_OF_A_GUEST and self._of.total() < MOST_GUESTS
            self._of[person.name] += has_room
        if not has_room:
            self._log.write("imap", f"Warning: too many connections of guest {person.name}")
            connection.close()
            ended()
            return
        store, prefix = store_of(person, self._account, self._stores)
        service = GuestService(
            connection, store, prefix, self._log, person.name, self._may_name_all, self._largest_message
        )
        with self._guard:
            self._services.add(service)

        def serve() -> None:
            try:
                service.run()
            finally:
                with self._guard:
                    self._services.discard(service)
                    self._of[person.name] -= 1
                self._reactor.callFromThread(ended)

        threading.Thread(target=serve, name=f"guest {person.name}", daemon=True).start()

    def shut(self) -> None:
        """The guests are told to go."""
        with self._guard:
            services = [*self._services]
        for service in services:
            service.close()
