"""The servers that are measured: ours, and Debian's Postfix and Dovecot on one spool.

Each has a directory of its own, listens on free ports of 127.0.0.1, logs to a file, knows the
same accounts with the same SHA512-CRYPT password, and is started and ended by us.
"""

from __future__ import annotations

import abc
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks import messages
from benchmarks.clients import ImapClient, Pop3Client, SmtpClient, trusting_tls

PASSWORD: Final = "open-sesame"
STORED_PASSWORD: Final = (
    "$6$benchmarksalt$yurtvW9YXTGQrh2Xh3H.KZKgR1s4JA/RjtMEZmWtQxj8oYlUubZhxNBlUuu08dTNgFjlBrcpl0mMthIN.P0Ve/"
)
ACCOUNTS: Final = tuple(f"user{number:03}" for number in range(400))
ALIAS_MEMBERS: Final = 10_000
ALIAS: Final = ", ".join(f"member{number:05}@elsewhere.example" for number in range(ALIAS_MEMBERS))
_DEADLINE: Final = 60.0  # seconds


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has at the moment, below those of outgoing connections."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


class Server(abc.ABC):
    """A running server. `owner` is the uid and gid that mail belongs to."""

    name: str
    owner: tuple[int, int]

    def __init__(self, directory: Path, mail_format: str) -> None:
        self.directory = directory
        self.mail_format = mail_format
        names = ("smtp", "imap", "imaps", "pop3", "sink")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._unused = list(reversed(ACCOUNTS))

    @abc.abstractmethod
    def start(self) -> None:
        """The server answers on every port."""

    @abc.abstractmethod
    def stop(self) -> None:
        """It is gone."""

    @abc.abstractmethod
    def roots(self) -> Sequence[int]:
        """The processes that all others descend from."""

    @property
    @abc.abstractmethod
    def spool(self) -> Path:
        """The directory of the INBOXes."""

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + _DEADLINE
        for name, port in self.ports.items():
            while name != "sink":  # another host's
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                if time.monotonic() > end:
                    raise TimeoutError(f"{self.name} does not answer on port {port}; see {self.directory}")
                time.sleep(0.05)

    # Mail and clients.

    def new_account(self, count: int = 0, is_mixed: bool = True) -> str:
        """An account that nobody used yet, with so many messages in its INBOX."""
        account = self._unused.pop()
        if count:
            self.fill(self.spool / account, count, is_mixed)
        return account

    def fill(self, path: Path, count: int, is_mixed: bool = True) -> None:
        """So many messages lie in a mailbox that did not exist."""
        fill = messages.fill_maildir if self.mail_format == "maildir" else messages.fill_mbox
        fill(path, messages.messages(count, is_mixed))
        self._give(path)

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            for each in (path, *path.rglob("*")):
                os.chown(each, *self.owner)

    def arrived(self, account: str) -> int:
        """How many messages lie in an INBOX that only deliveries reached."""
        path = self.spool / account
        if self.mail_format == "maildir":
            with contextlib.suppress(FileNotFoundError):
                return len(os.listdir(path / "new")) + len(os.listdir(path / "cur"))
            return 0
        return path.read_bytes().count(b"\nReturn-Path: <") if path.exists() else 0

    def wait_for(self, account: str, count: int) -> None:
        """So many messages have arrived."""
        end = time.monotonic() + _DEADLINE
        while self.arrived(account) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.name}: {self.arrived(account)} of {count} messages arrived")
            time.sleep(0.02)

    def imap(self, account: str, is_tls: bool = False) -> ImapClient:
        """A client that has logged in."""
        if is_tls:
            return ImapClient(self.ports["imaps"], account, PASSWORD, trusting_tls())
        return ImapClient(self.ports["imap"], account, PASSWORD)

    def pop3(self, account: str) -> Pop3Client:
        """A client that has logged in."""
        return Pop3Client(self.ports["pop3"], account, PASSWORD)

    def smtp(self) -> SmtpClient:
        """A client that has said EHLO."""
        return SmtpClient(self.ports["smtp"])


class Ours(Server):
    """This project's server, as `mailserver init --demo` sets it up."""

    name = "mailserver"

    def __init__(self, directory: Path, mail_format: str) -> None:
        super().__init__(directory, mail_format)
        self._process: subprocess.Popen[bytes] | None = None
        command = ["init", str(directory), "--demo", "--format", mail_format]
        subprocess.run([*_PROGRAM, *command], check=True, capture_output=True)
        status = (directory / "users").stat()
        self.owner = status.st_uid, status.st_gid
        users = (f"{name}:{STORED_PASSWORD}::::{directory}/home/{name}::\n" for name in ACCOUNTS)
        (directory / "users").write_text("".join(users))
        for name in ACCOUNTS:
            (directory / "home" / name).mkdir()
            self._give(directory / "home" / name)
        rows = {
            "smtp": "smtpd",
            "imap": "imapd",
            "imaps": "imapd\n    -o smtpd_tls_wrappermode=yes",
            "pop3": "pop3d",
        }
        (directory / "master.cf").write_text(
            "".join(f"127.0.0.1:{self.ports[name]} inet n - n - - {row}\n" for name, row in rows.items())
        )
        with (directory / "main.cf").open("a") as main:
            main.write(f"maillog_file = {directory}/mail.log\nmailbox_size_limit = 0\n")
            main.write(f"relayhost = [127.0.0.1]:{self.ports['sink']}\n")
        with (directory / "aliases").open("a") as aliases:
            aliases.write(f"everybody: {ALIAS}\n")

    @property
    def spool(self) -> Path:
        """See `Server.spool`."""
        return self.directory / "spool" / "mail"

    def start(self) -> None:
        """See `Server.start`."""
        self.launch()
        self._wait_until_it_answers()

    def launch(self) -> None:
        """The server is on its way."""
        environment = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
        with (self.directory / "output").open(
            "ab"
        ) as output:  # its bytecode is kept, as where it is installed
            self._process = subprocess.Popen(
                [*_PROGRAM, "-c", str(self.directory), "run"], stdout=output, stderr=output, env=environment
            )

    def stop(self) -> None:
        """See `Server.stop`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_DEADLINE)
            self._process = None

    def roots(self) -> Sequence[int]:
        """See `Server.roots`."""
        return [self._process.pid] if self._process is not None else []


_PROGRAM: Final = (sys.executable, "-m", "mailserver.commands.main")


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server runs inside; afterwards it and its directory are gone."""
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.directory, ignore_errors=True)
