"""Mail hosts under test, ours and Debian's Postfix, and what each has of the messages that it was given.

A message carries its id in `X-Test-Id`. Postfix runs privately: its configuration, queue and log lie below
a directory of the test, it listens on a free port of 127.0.0.1, and delivers with local(8).
"""

from __future__ import annotations

import abc
import contextlib
import copy
import mailbox
import os
import re
import shutil
import signal
import smtplib
import subprocess
from collections import Counter
from pathlib import Path
from typing import Self

from mailserver.queue.directory import MESSAGE_STATES, QueueDirectory
from tests.end_to_end.server import Server, free_ports, wait_for
from tests.faults.test_everybody import message
from tests.postfix_services import master_cf

_ID = re.compile(rb"X-Test-Id: ([a-z0-9.]+[.][0-9]{5})")  # in a queue file of Postfix no line end follows


def queued(home: Path) -> list[str]:
    """The ids in the queue of a host of ours."""
    queue = QueueDirectory(str(home / "queue"))
    queue.scan()
    contents = [each.message.read_content() for each in queue.listing(MESSAGE_STATES)]
    return [word.decode() for content in contents for word in _ID.findall(content)]


def delivered(path: Path, mail_format: str) -> list[str]:
    """The ids in a mailbox, as any program reads it."""
    if mail_format == "maildir":
        contents = [file.read_bytes() for name in ("new", "cur") for file in path.glob(f"{name}/*")]
        return [word.decode() for content in contents for word in _ID.findall(content)]
    box = mailbox.mbox(path, create=False) if path.exists() else ()
    return [str(each["X-Test-Id"]) for each in box if each["X-Test-Id"]]


class Host(abc.ABC):
    """A host with two local users. `port` is that of SMTP."""

    name: str
    users: tuple[str, str]
    domain = "example.org"
    port: int

    def __init__(self, mail_format: str) -> None:
        self.mail_format = mail_format

    @abc.abstractmethod
    def start(self) -> None:
        """It answers."""

    @property
    @abc.abstractmethod
    def group(self) -> int:
        """The process group of all its processes."""

    @abc.abstractmethod
    def elsewhere(self, directory: Path) -> Self:
        """The same host where its directory was copied to."""

    @abc.abstractmethod
    def log_text(self) -> str:
        """What it has logged."""

    @abc.abstractmethod
    def kill(self) -> None:
        """SIGKILL to each of its processes; all are gone."""

    @abc.abstractmethod
    def stop(self) -> None:
        """It was asked to end, and has."""

    @abc.abstractmethod
    def inbox(self, user: str) -> Path:
        """Where that user's mail lies."""

    @abc.abstractmethod
    def waiting(self) -> list[str]:
        """The ids in the queue."""

    def found(self) -> Counter[str]:
        """The ids in mailboxes and queue."""
        return self.arrived() + Counter(self.waiting())

    def arrived(self) -> Counter[str]:
        """The ids in the mailboxes, and how often each is there."""
        return Counter(each for user in self.users for each in delivered(self.inbox(user), self.mail_format))


class Ours(Host):
    """This project's, as `mailserver init --demo` makes it."""

    name = "mailserver"
    users = ("alice", "bob")

    def __init__(self, directory: Path, mail_format: str) -> None:
        super().__init__(mail_format)
        self.server = Server(directory / "home", mail_format)
        self.port = self.server.ports["smtp"]

    def start(self) -> None:
        """See `Host.start`."""
        self.server.start()

    @property
    def group(self) -> int:
        """See `Host.group`."""
        assert self.server.process is not None
        return self.server.process.pid

    def elsewhere(self, directory: Path) -> Self:
        """See `Host.elsewhere`."""
        other = copy.copy(self)
        other.server = copy.copy(self.server)
        other.server.directory = directory / self.server.directory.name
        other.server.log = directory / "again.log"
        other.server.process = None
        return other

    def log_text(self) -> str:
        """See `Host.log_text`."""
        return self.server.log_text()

    def kill(self) -> None:
        """See `Host.kill`."""
        self.server.stop(signal.SIGKILL)

    def stop(self) -> None:
        """See `Host.stop`."""
        self.server.stop()

    def inbox(self, user: str) -> Path:
        """See `Host.inbox`."""
        return self.server.inbox(user)

    def waiting(self) -> list[str]:
        """See `Host.waiting`."""
        return queued(self.server.directory)


_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
myhostname = mail.example.org
mydestination = example.org
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
maillog_file_prefixes = /var, /dev/stdout, {directory}
maillog_file = {directory}/mail.log
alias_maps =
local_recipient_maps =
mail_spool_directory = {directory}/mail{slash}
in_flow_delay = 0
minimal_backoff_time = 5s
maximal_backoff_time = 5s
queue_run_delay = 5s
"""


class Postfix(Host):
    """Debian's, with its defaults, the retry times apart. Only root can start it."""

    name = "Postfix"
    users = ("nobody", "daemon")

    def __init__(self, directory: Path, mail_format: str) -> None:
        super().__init__(mail_format)
        self.directory = directory / "postfix"
        self.port = free_ports(1)[0]
        for name in ("config", "queue", "data", "mail"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "mail.log").touch()
        for name in ("data", "mail.log"):  # postsuper writes to the log as its user
            shutil.chown(self.directory / name, "postfix")
        (self.directory / "mail").chmod(0o1777)
        slash = "/" if mail_format == "maildir" else ""
        values = {"directory": self.directory, "slash": slash}
        (self.directory / "config" / "main.cf").write_text(_MAIN_CF.format_map(values))
        (self.directory / "config" / "master.cf").write_text(master_cf(self.port))

    def _command(self, word: str) -> None:
        words = ["postfix", "-c", str(self.directory / "config"), word]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    @property
    def group(self) -> int:
        """See `Host.group`: master leads one of its own."""
        return int((self.directory / "queue" / "pid" / "master.pid").read_text())

    def elsewhere(self, directory: Path) -> Self:
        """See `Host.elsewhere`."""
        other = copy.copy(self)
        other.directory = directory / self.directory.name
        return other

    def log_text(self) -> str:
        """See `Host.log_text`."""
        return (self.directory / "mail.log").read_text()

    def start(self) -> None:
        """See `Host.start`."""
        self._command("start")
        wait_for(self._answers, "Postfix to answer")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            smtplib.SMTP("127.0.0.1", self.port, timeout=30).quit()
            return True
        return False

    def kill(self) -> None:
        """See `Host.kill`."""
        group = self.group
        os.killpg(group, signal.SIGKILL)
        wait_for(lambda: not self._runs(group), "Postfix to be gone")

    @staticmethod
    def _runs(group: int) -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """See `Host.stop`."""
        group = self.group
        self._command("stop")
        wait_for(lambda: not self._runs(group), "Postfix to be gone")

    def inbox(self, user: str) -> Path:
        """See `Host.inbox`."""
        return self.directory / "mail" / user

    def waiting(self) -> list[str]:
        """See `Host.waiting`."""
        found = []
        for state in ("maildrop", "incoming", "active", "deferred", "hold", "corrupt"):
            for path in (self.directory / "queue" / state).rglob("*"):
                with contextlib.suppress(OSError):
                    found += (
                        [word.decode() for word in _ID.findall(path.read_bytes())] if path.is_file() else []
                    )
        return found


class Sender:
    """Sends messages over one connection after the other. `acknowledged` is added to after each 250."""

    def __init__(self, host: Host, name: str, acknowledged: list[str]) -> None:
        self._host = host
        self._name = name
        self._count = 0
        self._client: smtplib.SMTP | None = None
        self.acknowledged = acknowledged

    def send(self) -> None:
        """One more; raises OSError or SMTPException where the host went away."""
        if self._client is None:
            self._client = smtplib.SMTP("127.0.0.1", self._host.port, timeout=60)
        self._count += 1
        name = f"{self._name}.{self._count:05}"
        user = self._host.users[self._count % 2]
        try:
            self._client.sendmail("carol@example.net", [f"{user}@{self._host.domain}"], message(name))
        except BaseException:
            self._client.close()
            self._client = None
            raise
        self.acknowledged.append(name)
