"""What the tests of a reload share: load meanwhile, and what a client is counted and slowed for."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import smtplib
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mailserver.commands import penalty
from tests.end_to_end.server import wait_for


@dataclass
class Load:
    """Clients of an SMTP port until `stop`: each that fails says how in `failures`."""

    port: int
    recipient: str
    acknowledged: list[str] = field(default_factory=list)
    connections: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        works: list[Callable[[], None]] = [lambda n=n: self._send(n) for n in range(3)]  # type: ignore[misc]
        self._threads = [threading.Thread(target=self._until_stopped, args=(work,)) for work in works]
        self._threads.append(threading.Thread(target=self._until_stopped, args=(self._connect,)))
        for thread in self._threads:
            thread.start()

    def _until_stopped(self, work: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                work()
            except (OSError, smtplib.SMTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")

    def _connect(self) -> None:
        """A connection that is refused, reset or not greeted is a failure."""
        with socket.create_connection(("127.0.0.1", self.port), 60) as client:
            if not client.recv(100).startswith(b"220 "):
                raise ConnectionError("no greeting")
            client.sendall(b"QUIT\r\n")
        self.connections += 1
        self._stop.wait(0.002)

    def _send(self, number: int) -> None:
        """Some messages over one session, now and then with a pause inside a dialogue."""
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
            for turn in range(4):
                name = f"{number}.{len(self.acknowledged)}.{turn}"
                client.ehlo_or_helo_if_needed()
                client.mail("carol@example.net")
                self._stop.wait(0.01 * turn)
                client.rcpt(self.recipient)
                code, answer = client.data(f"Message-ID: <load.{name}@example.net>\r\n\r\n{'x' * 500}\r\n")
                if code != 250:
                    raise smtplib.SMTPDataError(code, answer)
                self.acknowledged.append(f"load.{name}")

    def at_least(self, messages: int, connections: int) -> None:
        """Returns when that much more has been done."""
        goal = len(self.acknowledged) + messages, self.connections + connections
        wait_for(
            lambda: self.failures or (len(self.acknowledged) >= goal[0] and self.connections >= goal[1]),
            "clients that get on",
        )

    def stop(self) -> None:
        """No client is there any more, and none has failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.failures

    def arrived_once(self, mailbox: Callable[[], str]) -> None:
        """P1 and P2: what was acknowledged is in the mailbox, each message once."""

        def copies() -> Counter[str]:
            lines = mailbox().splitlines()
            return Counter(
                line.partition("<")[2].partition("@")[0]
                for line in lines
                if line.lower().startswith("message-id: <load.")
            )

        wait_for(lambda: set(self.acknowledged) <= set(copies()), "every acknowledged message")
        assert {name: count for name, count in copies().items() if count > 1} == {}


def mail_replies(port: int, messages: int) -> list[int]:
    """The replies to so many MAIL commands on one connection."""
    client = smtplib.SMTP("127.0.0.1", port)
    client.ehlo()
    replies = []
    for _ in range(messages):
        replies.append(client.mail("carol@example.net")[0])
        client.rset()
    client.quit()
    return replies


def penalties(config_directory: Path) -> list[dict[str, int]]:
    """What `mailserver penalty --json` prints."""
    arguments = argparse.Namespace(
        config_directory=str(config_directory), network=None, clear=None, json=True
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert penalty.run(arguments) == 0
    found: list[dict[str, int]] = json.loads(printed.getvalue())
    return found
