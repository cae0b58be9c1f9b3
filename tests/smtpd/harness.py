"""A whole SMTP server over an in-memory transport: real queue directory, real policy, real cleanup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mailserver.accounts.account import Account
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.delivery.routing import Routing
from mailserver.dns import TemporaryLookupFailure
from mailserver.maillog import ListLog
from mailserver.queue.cleanup import Cleanup, CleanupRules
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.file import QueueFile
from mailserver.smtpd.address_restrictions import RecipientDirectory
from mailserver.smtpd.factory import SmtpFactory
from mailserver.smtpd.limits import ClientLimits
from mailserver.smtpd.local_clients import LocalClients
from mailserver.smtpd.policy import Policy, RestrictionTexts
from mailserver.smtpd.protocol import SmtpServer
from mailserver.smtpd.restrictions import Tools
from mailserver.smtpd.services import Services
from mailserver.smtpd.settings import SmtpdSettings
from mailserver.tables.lists import NetworkList, read_items
from mailserver.tables.open import open_table
from mailserver.tables.table import Table
from mailserver.threads import Inline, Threads
from tests.accounts.scram_client import SECRET, answer_to_proof

STRANGER = "192.0.2.7"
NEIGHBOUR = "10.1.1.1"
NOW = 1_795_000_000.0


class Accounts:
    """alice and bob exist."""

    def lookup(self, name: str) -> Account | None:
        """See AccountDirectory."""
        return Account(name, 1000, 1000, f"/home/{name}") if name in ("alice", "bob") else None

    def names(self) -> Iterator[str]:
        """See AccountDirectory."""
        yield from ("alice", "bob")


class Passwords:
    """Everybody's password is `secret`; attempts are kept."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.answer: Deferred[Granted | Refused] | None = None

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        """See Logins."""
        self.attempts.append(attempt)
        if self.answer is not None:
            return self.answer
        account = Accounts().lookup(attempt.name)
        if account is not None and attempt.proof is not None:
            return succeed(answer_to_proof(attempt, account))
        if account is not None and attempt.password == b"secret":
            return succeed(Granted(account))
        return succeed(Refused())

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        """See `Logins.challenge`."""
        return succeed(SECRET.challenge)


@dataclass
class Names:
    """DNS from three dictionaries; a name in `broken` has no answer."""

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    exchangers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    async def ptr(self, address: str) -> tuple[str, ...]:
        """See Resolver."""
        return self._answer(self.names, address)

    async def addresses(self, name: str) -> tuple[str, ...]:
        """See Resolver."""
        return self._answer(self.hosts, name)

    async def mx(self, domain: str) -> tuple[str, ...]:
        """See Resolver."""
        return self._answer(self.exchangers, domain)

    def _answer(self, table: dict[str, tuple[str, ...]], key: str) -> tuple[str, ...]:
        if key in self.broken:
            raise TemporaryLookupFailure(key)
        return table.get(key, ())


class Transport(StringTransport):
    """A connection in memory that remembers that it was cut."""

    no_delay = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ITCPTransport."""
        self.no_delay = enabled

    def startTLS(self, context: object) -> None:
        """See ITLSTransport: the client's first octets never come."""

    def abortConnection(self) -> None:
        """See ITCPTransport."""
        self.aborting = self.disconnecting = True


def networks(text: str) -> NetworkList:
    """The list as main.cf would give it."""
    return NetworkList(read_items(text.split(), open_table, "main.cf:7"))


class House:
    """A server for example.org with everything it stands on, and connections to it."""

    def __init__(self, directory: Path, *, threads: Threads | None = None, **changes: Any) -> None:
        """`changes` are fields of SmtpdSettings; texts, tools, policy: the policy; others: Services."""
        self.clock = changes.pop("clock", None) or Clock()
        self.log = ListLog()
        self.queue = QueueDirectory(os.fspath(directory), clock=lambda: NOW, message_size_limit=1 << 20)
        self.queue.prepare()
        self.passwords = Passwords()
        self.names = Names()
        self.accepted: list[QueueFile] = []
        self.threads = threads or Inline()
        self.tables: dict[str, Table] = {}
        policy_options = changes.pop("policy", {})
        tls = changes.pop("tls", None)
        xclient = changes.pop("xclient", None)
        tools = self.tools(**changes.pop("tools", {}))
        clients = {name: networks(text) for name, text in changes.pop("clients", {}).items()}
        urls = changes.pop("urls", None)
        milters, proxy = changes.pop("milters", None), changes.pop("proxy", None)
        sasl_rate_limits = changes.pop("sasl_rate_limits", ())
        local_clients = changes.pop("local_clients", None) or LocalClients()
        texts = RestrictionTexts(**changes.pop("texts", {}))
        settings = SmtpdSettings(myhostname="mx.example.org", **changes)
        rules = CleanupRules(message_size_limit=settings.message_size_limit)
        self.services = Services(
            settings=settings,
            policy=Policy(texts, tools, **policy_options),
            queue=self.queue,
            make_filter=partial(Cleanup, rules),
            accepted=self.accepted.append,
            logins=self.passwords,
            threads=self.threads,
            log=self.log,
            clock=self.clock,
            now=lambda: NOW,
            limits=ClientLimits(self.clock.seconds),
            resolver=self.names,
            tls=tls,
            may_override_client=networks(xclient) if xclient else None,
            milters=milters,
            proxy=proxy,
            urls=urls,
            sasl_rate_limits=sasl_rate_limits,
            local_clients=local_clients,
            **clients,
        )
        self.factory = SmtpFactory(self.services)

    def tools(self, **changes: Any) -> Tools:
        """What the policy is built from."""
        domains = changes.pop("domains", ("example.org", "mx.example.org", "localhost"))
        relay = changes.pop("relay", ("relayed.example",))
        self.routing = Routing(
            my_origin="example.org",
            is_my_destination=lambda name: name in domains,
            is_relay_domain=lambda name: name in relay,
            is_own_literal=lambda text: text in ("127.0.0.1",),
            accounts=Accounts(),
            recipient_delimiter="+",
        )
        values: dict[str, Any] = {
            "directory": RecipientDirectory(self.routing, self.threads, self.clock.seconds),
            "mynetworks": networks("127.0.0.0/8 10.0.0.0/8"),
            "threads": self.threads,
            "open_table": open_table,
            "resolver": self.names,
            "delimiters": "+",
        }
        return Tools(**(values | changes))

    def connect(self, address: str = STRANGER) -> Connection:
        """A client's connection, greeted."""
        return Connection(self, address)

    def contents(self) -> list[bytes]:
        """What was stored of each accepted message, our Received: field left out."""
        return [read_content(message).partition(b"2026 ")[2].partition(b"\n")[2] for message in self.accepted]


def read_content(message: QueueFile) -> bytes:
    """The content of a committed message."""
    return os.pread(message.descriptor, message.content_length, message.content_offset)


class Connection:
    """One client, its server protocol, and the transport between them."""

    def __init__(self, house: House, address: str) -> None:
        self.transport = Transport(peerAddress=IPv4Address("TCP", address, 40000))
        self.server: SmtpServer = house.factory.buildProtocol(None)
        self.server.makeConnection(self.transport)
        self.greeting = self.take()

    def take(self) -> str:
        """What the server has said since the last time."""
        text: bytes = self.transport.value()
        self.transport.clear()
        return text.decode("utf-8")

    def say(self, *lines: str | bytes) -> str:
        """The lines are sent in one segment; the replies to them, CRLF as newline."""
        return self.send(
            b"".join((each.encode() if isinstance(each, str) else each) + b"\r\n" for each in lines)
        )

    def send(self, data: bytes) -> str:
        """The octets are sent in one segment; the replies to them, CRLF as newline."""
        self.server.dataReceived(data)
        return self.take().replace("\r\n", "\n")

    @property
    def is_closed(self) -> bool:
        """Whether the server ended the connection."""
        return bool(self.transport.disconnecting)
