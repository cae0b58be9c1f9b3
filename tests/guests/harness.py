"""Accounts that reach each other's mail as session hosts do, each behind a gate of its own.

All in one process; the helper and the zygote between the hosts are a function here.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from mailserver.accounts.account import Account
from mailserver.guests.guest_store import store_of
from mailserver.guests.owners import Owners
from mailserver.guests.server import GuestService
from mailserver.guests.sharers import Sharers
from mailserver.guests.visiting import VisitingRegistry
from mailserver.imapd.factory import ImapFactory
from mailserver.maillog import ListLog
from mailserver.store.acl import Person
from mailserver.store.acl_files import AclFiles
from mailserver.store.contract import AccountStore, NoSuchMailbox, StoreError, StoreRegistry
from mailserver.store.registry import layout_of
from mailserver.store.shared_boxes import OWN_INDEX, SharedBoxes
from mailserver.store.sharing import SharingRegistry
from mailserver.threads import Inline
from tests.imapd.harness import Client, TestReactor, Transport
from tests.imapd.sharing import LOCATIONS, STAFF, SharingServer


def groups_of(name: str) -> frozenset[str]:
    return frozenset({STAFF} if name in ("alice", "carol") else ())


class Hosts(StoreRegistry):
    """The session hosts of all accounts."""

    def __init__(self, server: SharingServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.log = ListLog()
        self.services: list[GuestService] = []
        self.threads: list[threading.Thread] = []
        self.own = {name: self._host(account) for name, account in server.people.items()}
        self.visiting = {name: self._visiting(name) for name in server.people}

    def _host(self, account: Account) -> SharingRegistry:
        place = self.server.files._layout_for
        return SharingRegistry(
            self.server.files,
            AclFiles(partial(layout_of, layout_for=place), self.server.warnings.append),
            SharedBoxes(str(self.directory / "state" / account.name / OWN_INDEX), of_any_right=True),
            lambda name: account if name == account.name else None,
            lambda found: groups_of(found.name),
            self.server.rules,
        )

    def sharers(self, name: str) -> list[str]:
        """Who shares something with that account."""
        return [*Sharers(str(self.directory / "state")).owners_for(Person(name, groups_of(name)))]

    def _visiting(self, name: str) -> VisitingRegistry:
        owners = Owners(partial(self.visit, name), self.server.rules.prefix_of)
        sharers = partial(self.sharers, name)
        return VisitingRegistry(
            self.own[name], owners, sharers, self.server.rules, self.server.warnings.append
        )

    def visit(self, guest: str, owner: str) -> socket.socket:
        """A stream to the owner's host."""
        if owner == guest or owner not in self.sharers(guest):
            raise NoSuchMailbox("There is no such mailbox")
        ours, theirs = socket.socketpair()
        self.serve(theirs, guest, owner)
        return ours

    def serve(self, stream: socket.socket, guest: str, owner: str, may_name_all: bool = True) -> GuestService:
        """The owner's host serves the guest on that stream."""
        person = Person(guest, groups_of(guest))
        store, prefix = store_of(person, self.server.people[owner], self.own[owner])
        service = GuestService(stream, store, prefix, self.log, guest, may_name_all)
        thread = threading.Thread(target=service.run, daemon=True)
        self.services.append(service)
        self.threads.append(thread)
        thread.start()
        return service

    def kill(self) -> None:
        """The hosts of all owners are gone, as their guests see it."""
        for service in self.services:
            service.close()
        for thread in self.threads:
            thread.join(30)
        self.services, self.threads = [], []
        for registry in self.visiting.values():
            for owner in [*registry.owners._known.values()]:
                owner.connection._thread.join(30)

    def open(self, account: Account) -> AccountStore:
        return self.visiting[account.name].open(account)

    def close(self, store: AccountStore) -> None:
        assert isinstance(store, AccountStore)

    def shut(self) -> None:
        """Nobody visits anybody any more."""
        for registry in self.visiting.values():
            registry.owners.shut()
        self.kill()


class PatientReactor(TestReactor):
    """As `TestReactor`, but what other threads call comes when the test's own thread asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()
        self.waiting: deque[Callable[[], object]] = deque()

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        if threading.get_ident() == self.thread:
            function(*arguments)
        else:
            self.waiting.append(partial(function, *arguments))

    def catch_up(self) -> None:
        """What other threads called is done."""
        while self.waiting:
            self.waiting.popleft()()


class NeighbourServer(SharingServer):
    """`SharingServer`, with a host for each account."""

    def __init__(self, directory: Path, location: str = LOCATIONS[0], private_seen: bool = False) -> None:
        super().__init__(directory, location, private_seen=private_seen)
        self.registry = self.hosts = Hosts(self, directory)
        self.clock = self.reactor = PatientReactor()
        self.factory = ImapFactory(self.settings, self.logins, self.hosts, Inline(), self.clock, self.log)

    def connect(self, address: str = "127.0.0.1") -> Client:
        return PatientClient(self, self.factory.buildProtocol(None), Transport(address))

    def settle(self) -> None:
        """Whoever has another's mailbox open knows what is new."""
        for registry in self.hosts.visiting.values():
            for owner in [*registry.owners._known.values()]:
                for mailbox in [*owner.connection._hearers.values()]:
                    with suppress(StoreError):
                        mailbox.ask("check_rights")  # type: ignore[attr-defined]
        self.reactor.catch_up()

    def close(self) -> None:
        self.hosts.shut()
        super().close()


class PatientClient(Client):
    """A client that hears what others did before it looks."""

    server: NeighbourServer

    def read(self) -> bytes:
        self.server.settle()
        return super().read()
