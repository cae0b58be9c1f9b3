"""A small mail host for tests of the queue and of delivery: real files, stated time.

Mailboxes are files under `mail/`, one message after the other with a mark between them. The
agent reads the content from the descriptor that it is handed, as the real one does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailserver.accounts.account import Account, TemporaryAccountFailure
from mailserver.delivery.job import Action, Forward, Job, Owner
from mailserver.delivery.lookups import LiveLookups, LocalRules
from mailserver.delivery.routing import Routing
from mailserver.envelope import Address, Envelope, Outcome, Recipient
from mailserver.maillog import ListLog
from mailserver.queue.bounce import Bounces, Reporter
from mailserver.queue.directory import QueueDirectory
from mailserver.queue.file import QueueFile
from mailserver.queue.runner import Runner
from mailserver.queue.schedule import RetryTimes
from mailserver.queue.services import Services
from mailserver.tables.table import Entry, TableError
from mailserver.threads import Inline

ORIGIN = "example.org"
NOBODY = Owner("nobody", 65534, 65534, "/")
MARK = b"\n--- end of message ---\n"


class DictTable:
    """A table over a dict; a value of None is a table that cannot be read."""

    def __init__(self, entries: dict[str, str] | None, name: str = "inline:test") -> None:
        self.name = name
        self.values = entries
        self.questions = 0

    def version(self) -> object:
        """See `table.version_of`."""
        if self.values is None:
            raise TableError(f"{self.name}: cannot be read")
        return tuple(self.values.items())

    def find(self, key: str) -> Entry | None:
        self.questions += 1
        if self.values is None:
            raise TableError(f"{self.name}: cannot be read")
        lines = list(self.values)
        return Entry(self.values[key], f"aliases:{lines.index(key) + 1}") if key in self.values else None

    def entries(self) -> Iterator[tuple[str, Entry]]:
        return iter(())


class Accounts:
    """Accounts with their homes under one directory; `unreadable` names cannot be looked up."""

    def __init__(self, base: Path, *names: str) -> None:
        self.all = {
            name: Account(name, os.getuid(), os.getgid(), str(base / "home" / name)) for name in names
        }
        self.unreadable: set[str] = set()

    def lookup(self, name: str) -> Account | None:
        if name.lower() in self.unreadable:
            raise TemporaryAccountFailure(f"{name}: data base down")
        return self.all.get(name.lower())

    def names(self) -> Iterator[str]:
        return iter(self.all)


class FileAgents:
    """Does jobs with this process's rights. `faults` maps a target to the outcome it gives instead."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.faults: dict[str, Outcome] = {}

    def read_forward(self, owner: Owner, paths: tuple[str, ...]) -> tuple[Forward | None, tuple[str, ...]]:
        for path in paths:
            if os.path.exists(path):
                return Forward(path, Path(path).read_bytes()), ()
        return None, ()

    def read_include(self, owner: Owner, path: str) -> bytes:
        return Path(path).read_bytes()

    def perform(self, job: Job, content: int) -> Outcome:
        self.jobs.append(job)
        if job.target in self.faults:
            return self.faults[job.target]
        if job.action is Action.COMMAND:
            return Outcome.delivered("delivered to command: " + job.target)
        data = os.pread(content, job.content_length, job.content_offset)
        descriptor = os.open(job.target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, job.prefix + data + MARK)
        os.close(descriptor)
        return Outcome.delivered(f"delivered to {job.action.value}")


class World:
    """A host example.org with alice, bob and carol."""

    def __init__(
        self,
        base: Path,
        aliases: dict[str, str] | None = None,
        retry: RetryTimes | None = None,
        **routing: object,
    ) -> None:
        self.base = base
        for directory in ("mail", "home/alice", "home/bob", "home/carol"):
            (base / directory).mkdir(parents=True, exist_ok=True)
        self.clock = Clock()
        self.clock.advance(1_795_000_000)
        self.log = ListLog()
        self.aliases = DictTable(aliases or {})
        self.accounts = Accounts(base, "alice", "bob", "carol")
        self.agents = FileAgents()
        self.routing = Routing(
            my_origin=ORIGIN,
            is_my_destination=lambda domain: domain in (ORIGIN, "localhost"),
            accounts=self.accounts,
            alias_maps=(self.aliases,),
            recipient_delimiter="+",
            **routing,  # type: ignore[arg-type]
        )
        self.rules = LocalRules(default_privs=NOBODY, mail_spool_directory=str(base / "mail"))
        self.queue = self.open_queue()
        self.queue.prepare()
        self.nudged: list[str] = []
        self.retry = retry or RetryTimes()
        self.services = self.make_services()
        self.runner = Runner(self.services, self.clock)

    def open_queue(self) -> QueueDirectory:
        return QueueDirectory(
            str(self.base / "queue"), clock=self.clock.seconds, warn=lambda text: self.log.write("qmgr", text)
        )

    def make_services(self, **changes: object) -> Services:
        values: dict[str, object] = {
            "queue": self.queue,
            "threads": Inline(),
            "log": self.log,
            "clock": self.clock.seconds,
            "routing": self.routing,
            "rules": self.rules,
            "lookups": LiveLookups(self.routing, self.rules, self.agents),
            "agents": self.agents,
            "bounces": Bounces(self.queue, Reporter("mx.example.org", my_origin=ORIGIN), self.clock.seconds),
            "host": "mx.example.org",
            "retry": self.retry,
            "delivered": self.nudged.append,
        }
        return Services(**(values | changes))  # type: ignore[arg-type]

    def restart(self, **changes: object) -> None:
        """A new runner over what is on disk, as after a crash."""
        self.queue = self.open_queue()
        self.services = self.make_services(**changes)
        self.runner = Runner(self.services, self.clock)
        finish(self.runner.start())

    def commit(self, *recipients: str, sender: str | None = "s@example.com", **facts: object) -> QueueFile:
        """A committed message; see `envelope`."""
        content = facts.pop("content", b"Subject: hi\n\nhello\n")
        message = self.queue.create(envelope(*recipients, sender=sender, **facts))
        assert isinstance(content, bytes)
        message.write(content)
        return message.commit()

    def send(self, *recipients: str, **facts: object) -> str:
        """The message is with the runner; its queue id."""
        message = self.commit(*recipients, **facts)  # type: ignore[arg-type]
        queue_id = message.queue_id
        self.runner.accept(message)
        return queue_id

    def mailbox(self, name: str) -> list[bytes]:
        """The messages in a mailbox or file, with their prefixes."""
        path = self.base / "mail" / name
        return path.read_bytes().split(MARK)[:-1] if path.exists() else []

    def forward(self, name: str, text: str) -> None:
        """That user's .forward."""
        (self.base / "home" / name / ".forward").write_text(text)

    def queued(self) -> list[str]:
        """What lies in the queue, as state/id."""
        states = ("incoming", "deferred", "hold", "corrupt")
        return [
            f"{state}/{name}" for state in states for name in sorted(os.listdir(self.base / "queue" / state))
        ]

    def lines(self, word: str) -> list[str]:
        """Log lines that contain the word."""
        return [f"{service}: {text}" for service, text in self.log.lines if word in text]


def envelope(*recipients: str, sender: str | None = "s@example.com", **facts: object) -> Envelope:
    """An envelope; recipients as `local@domain`. `notify` counts for all of them."""
    notify = facts.pop("notify", frozenset())
    parsed = tuple(
        Recipient(Address(*each.rsplit("@", 1)), each, notify)  # type: ignore[arg-type]
        for each in recipients
    )
    return Envelope(None if sender is None else Address(*sender.rsplit("@", 1)), parsed, **facts)  # type: ignore[arg-type]


def finish(deferred: Deferred[object] | Deferred[None]) -> None:
    """The deferred has fired, and did not fail."""
    results: list[object] = []
    deferred.addBoth(results.append)
    assert results, "still waiting"
    assert results[0] is None, results[0]
