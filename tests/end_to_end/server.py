"""A whole server in a directory of its own, on free ports, for tests that drive real clients."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE = 60.0  # seconds until a wait gives up; no test depends on how much of it passes
DEMO_PORTS = {
    "smtp": 2525,
    "submission": 1587,
    "submissions": 1465,
    "pop3": 1110,
    "pop3s": 1995,
    "imap": 1143,
    "imaps": 1993,
}


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has at the moment.

    They lie below those that Linux gives to outgoing connections, so that none takes one meanwhile.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def wait_for(claim: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Returns once the claim is true; fails the test where it never is."""
    end = time.monotonic() + deadline
    while not claim():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


class Server:
    """A demo server made by `mailserver init --demo`, with its ports moved to free ones."""

    def __init__(self, directory: Path, mail_format: str = "mbox") -> None:
        self.directory = directory
        self.mail_format = mail_format
        self.ports = dict(zip(DEMO_PORTS, free_ports(len(DEMO_PORTS)), strict=True))
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory.parent / f"{directory.name}.log"
        printed = self.command("init", str(directory), "--demo", "--format", mail_format, home=False)
        self.passwords = dict(re.findall(r"^  (alice|bob)  (\S+)$", printed, re.MULTILINE))
        rows = (directory / "master.cf").read_text()
        for name, port in self.ports.items():
            rows = rows.replace(f"127.0.0.1:{DEMO_PORTS[name]} ", f"127.0.0.1:{port} ")
        (directory / "master.cf").write_text(rows)

    def configure(self, *lines: str) -> None:
        """The lines are added to main.cf, where the last one of a name wins."""
        with (self.directory / "main.cf").open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def command(self, *arguments: str, home: bool = True, text: str = "", status: int | None = 0) -> str:
        """Standard output of a `mailserver` subcommand; its exit status must be the one given."""
        where = ["-c", str(self.directory)] if home else []
        done = subprocess.run(
            [sys.executable, "-m", "mailserver.commands.main", *where, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert status is None or done.returncode == status, done.stderr
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def start(self) -> None:
        """The server answers on every port."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mailserver.commands.main", "-c", str(self.directory), "run"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        wait_for(self._answers, f"the server to listen; its log:\n{self.log_text()[-2000:]}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended:\n{self.log_text()[-3000:]}"
        try:
            for port in self.ports.values():
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """The server and its children are gone."""
        if self.process is None:
            return
        if how is signal.SIGKILL:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        self.process.wait(DEADLINE)
        self.process = None

    def log_text(self) -> str:
        """What the server has printed so far."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def logged(self, pattern: str) -> None:
        """Returns once a log line matches."""
        wait_for(
            lambda: re.search(pattern, self.log_text()), f"{pattern!r} in the log:\n{self.log_text()[-3000:]}"
        )

    def inbox(self, name: str) -> Path:
        """The spool file or directory of an account."""
        return self.directory / "spool" / "mail" / name


@contextmanager
def running(directory: Path, mail_format: str = "mbox", *lines: str) -> Iterator[Server]:
    """A started server, stopped at the end."""
    server = Server(directory, mail_format)
    server.configure(*lines)
    server.start()
    try:
        yield server
    finally:
        server.stop()
