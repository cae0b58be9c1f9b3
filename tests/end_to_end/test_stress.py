r"""IMAP sessions at random on one mailbox of a running server, while mail comes in: what imaptest checks.

Each client believes what it is told and nothing else. EXISTS never shrinks, EXPUNGE comes only where it may
(RFC 3501 §7.4.1), a sequence number means the UID that it was told to mean, what cannot change about a
message never does (RFC 3501 §2.3), and in the end all have the same mailbox before them.
"""

from __future__ import annotations

import random
import re
import smtplib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.server import DEADLINE, Server, running

CLIENTS = 5
COMMANDS = 80
DELIVERIES = 15
FLAGS = ("\\Seen", "\\Flagged", "\\Deleted", "\\Answered", "work")
_NEVER_EXPUNGE = ("FETCH", "STORE", "SEARCH", "SORT", "COPY")
_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")


@pytest.fixture(scope="module", params=["mbox", "maildir"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp(f"stress-{request.param}") / "home", request.param) as server:
        yield server


class Known:
    """What all clients together know of messages that cannot change, by UID."""

    def __init__(self) -> None:
        self._facts: dict[tuple[int, bytes], bytes] = {}
        self._lock = threading.Lock()

    def check(self, uid: int, what: bytes, value: bytes) -> None:
        """The first value that anybody was told is the only one."""
        with self._lock:
            assert self._facts.setdefault((uid, what), value) == value, (uid, what)


class StressClient:
    """One connection, and the mailbox as it was told of."""

    def __init__(self, server: Server, number: int, known: Known) -> None:
        self.chance = random.Random(number)
        self.known = known
        self.number = number
        self.uids: list[int] = []  # 0: not told yet
        self.count = 0
        self._socket = socket.create_connection(("127.0.0.1", server.ports["imap"]), timeout=DEADLINE)
        self._file = self._socket.makefile("rb")
        self._file.readline()
        self.ask(f'LOGIN alice "{server.passwords["alice"]}"')
        self.select()

    def select(self) -> None:
        """INBOX is selected anew."""
        self.uids = []
        self.ask("SELECT INBOX")
        self.ask("FETCH 1:* (UID)" if self.uids else "NOOP")

    def _response(self) -> bytes:
        line = self._file.readline()
        assert line, "the server hung up"
        while found := _LITERAL.search(line):
            line += self._file.read(int(found[1])) + self._file.readline()
        return line

    def ask(self, command: str, *literals: bytes) -> bytes:
        """The tagged response; every other one was checked."""
        self.count += 1
        tag = f"c{self.number}-{self.count}".encode()
        self._socket.sendall(tag + b" " + command.encode() + b"".join(literals) + b"\r\n")
        if command == "IDLE":
            while not (line := self._response()).startswith(b"+"):
                self._hear(line, command)
            self._socket.sendall(b"DONE\r\n")
        while not (line := self._response()).startswith(tag):
            self._hear(line, command)
        assert b" OK " in line or b" NO [EXPUNGEISSUED]" in line, (command, line)
        return line

    def _hear(self, line: bytes, command: str) -> None:
        found = re.match(rb"\* (\d+) (EXISTS|EXPUNGE|FETCH)", line)
        if found is None:
            return
        number = int(found[1])
        if found[2] == b"EXISTS":
            assert number >= len(self.uids), (command, line)
            self.uids += [0] * (number - len(self.uids))
            return
        assert 1 <= number <= len(self.uids), (command, line, len(self.uids))
        if found[2] == b"EXPUNGE":
            assert not command.startswith(_NEVER_EXPUNGE), (command, line)
            del self.uids[number - 1]
        else:
            self._learn(number, line)

    def _learn(self, number: int, line: bytes) -> None:
        if found := re.search(rb"[ (]UID (\d+)", line):
            uid = int(found[1])
            assert self.uids[number - 1] in (0, uid), line
            assert uid not in self.uids[: number - 1], line
            self.uids[number - 1] = uid
        uid = self.uids[number - 1]
        if not uid:
            return
        for what in (rb"RFC822\.SIZE (\d+)", rb'INTERNALDATE ("[^"]+")', rb"(?i)Message-ID: (<[^>]*>)"):
            if found := re.search(what, line):
                self.known.check(uid, what, found[1])

    def step(self) -> None:
        """A command at random; numbers are such as the client knows."""
        chance, last = self.chance, len(self.uids)
        if not last:
            self.append()
            return
        low, high = sorted((chance.randint(1, last), chance.randint(1, last)))
        flags = " ".join(chance.sample(FLAGS, 2))
        uid = self.uids[low - 1] or 1
        commands = (
            f"FETCH {low}:{high} (UID FLAGS)", f"FETCH {low} (UID BODY.PEEK[HEADER] RFC822.SIZE)",
            "UID FETCH 1:* (FLAGS RFC822.SIZE INTERNALDATE)", f"FETCH {low} (UID BODY[])",
            f"STORE {low}:{high} +FLAGS ({flags})", f"STORE {low} -FLAGS ({flags})",
            f"UID STORE {uid} FLAGS.SILENT ({flags})", "NOOP", "CHECK", "IDLE", "EXPUNGE",
            f"UID EXPUNGE {uid}",
            "SEARCH UNSEEN", "UID SEARCH SUBJECT number", "SORT (SUBJECT) UTF-8 ALL", f"COPY {low} INBOX",
            f"MOVE {low} Archive", "STATUS INBOX (MESSAGES UIDNEXT UNSEEN)", "", "SELECT",
        )  # fmt: skip
        command = chance.choice(commands)
        if command == "SELECT":
            self.select()
        elif command:
            self.ask(command)
        else:
            self.append()

    def append(self) -> None:
        """A message of its own comes in."""
        self.count += 1
        text = (
            f"Message-ID: <{self.number}.{self.count}@append>\r\nSubject: number {self.count}\r\n\r\nHi.\r\n"
        )
        self.ask(f"APPEND INBOX ({self.chance.choice(FLAGS)}) {{{len(text)}+}}\r\n", text.encode())

    def mailbox(self) -> list[tuple[bytes, frozenset[bytes]]]:
        """UIDs and flags, asked anew; \\Recent is each session's own."""
        self.count += 1
        tag = f"m{self.count}".encode()
        self._socket.sendall(tag + b" FETCH 1:* (UID FLAGS)\r\n")
        rows = []
        while not (line := self._response()).startswith(tag):
            if found := re.search(rb"FETCH \(UID (\d+) FLAGS \(([^)]*)\)\)", line):
                rows.append((found[1], frozenset(found[2].split()) - {b"\\Recent"}))
        return rows

    def close(self) -> None:
        """The client has left."""
        self._file.close()
        self._socket.close()


def deliver(server: Server) -> None:
    """Mail comes in over SMTP, one after the other."""
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=DEADLINE) as client:
        for number in range(DELIVERIES):
            text = f"Message-ID: <{number}@smtp>\r\nSubject: number {number}\r\n\r\nHi.\r\n"
            client.sendmail("carol@example.net", ["alice@example.org"], text)


def work(client: StressClient) -> None:
    """All of one client's commands."""
    for _ in range(COMMANDS):
        client.step()


def test_sessions_at_random_while_mail_comes_in(server: Server) -> None:
    """No rule is broken on the way, and in the end everybody sees one mailbox, without a message twice."""
    known = Known()
    clients = [StressClient(server, number, known) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        running_work = [pool.submit(deliver, server), *(pool.submit(work, client) for client in clients)]
        for each in running_work:
            each.result()
    for client in clients:
        client.ask("NOOP")
    clients[0].append()
    seen = []
    for client in clients:
        client.ask("NOOP")
        seen.append(client.mailbox())
        client.close()
    assert all(mailbox == seen[0] for mailbox in seen)
    uids = [int(uid) for uid, _ in seen[0]]
    assert uids == sorted(set(uids)) and uids
