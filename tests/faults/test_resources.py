"""No inodes, no descriptors, little memory, a slow disk, and a next hop that has taken the message.

RELIABILITY F10, F21, F22, F24, F25, F58.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import smtplib
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailserver.envelope import Status
from mailserver.queue.directory import QueueDirectory
from mailserver.store.contract import NewMessage
from tests.end_to_end.server import Server, running, wait_for
from tests.faults.test_everybody import imap, message
from tests.faults.test_partners import deliver
from tests.store.contract_suite import FIRST, SECOND, THIRD, contents
from tests.store.harness import MaildirHarness, MboxHarness


@contextmanager
def few_inodes(path: Path, count: int) -> Iterator[Path]:
    """A file system of a few files."""
    path.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=64m,nr_inodes={count}", "none", str(path)], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.needs("root", "mount")
@pytest.mark.parametrize("slash", ["", "/"], ids=["mbox", "maildir"])
def test_no_inodes_left(tmp_path: Path, slash: str) -> None:
    """F21: mail waits, nothing is half made, the queue takes none, and all goes on when there is room."""
    with few_inodes(tmp_path / "disk", 40) as disk:
        queue = QueueDirectory(str(disk / "queue"), message_size_limit=1000)
        queue.prepare()
        target = f"{disk}/alice{slash}"
        assert deliver(target).status is Status.DELIVERED
        assert queue.has_room()
        filler = []
        with contextlib.suppress(OSError):
            for number in range(100):
                (disk / f"filler{number}").touch()
                filler.append(disk / f"filler{number}")
        assert not queue.has_room()
        outcome = deliver(target)
        assert (outcome.status, outcome.dsn) == (Status.DEFERRED, "4.3.0")
        for path in filler:
            path.unlink()
        assert queue.has_room()
        assert deliver(target).status is Status.DELIVERED
        inbox = Path(target)
        content = (
            b"".join(path.read_bytes() for path in (inbox / "new").iterdir()) if slash else inbox.read_bytes()
        )
        assert content.count(b"Subject: new\n") == 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "home", "maildir", "smtpd_client_connection_count_limit = 0") as server:
        yield server


def descriptors(server: Server) -> int:
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def test_no_descriptors_left(server: Server) -> None:
    """F22: those who are there are served, the rest waits or is sent away; afterwards all is as before."""
    assert server.process is not None
    session = imap(server)
    before = descriptors(server)
    soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (before + 60, hard))
    clients = []
    for _ in range(200):
        with contextlib.suppress(OSError):
            clients.append(smtplib.socket.create_connection(("127.0.0.1", server.ports["smtp"]), timeout=60))
    assert session.noop()[0] == "OK"
    assert session.fetch("1", "(BODY.PEEK[])")[0] == "OK"
    for client in clients:
        client.close()
    server.logged("too few file descriptors")
    wait_for(lambda: descriptors(server) <= before + 5, "the descriptors to come back")
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=60) as client:
        client.sendmail("carol@example.net", ["alice@example.org"], message("after"))
    wait_for(lambda: "status=sent" in server.log_text(), "a delivery")
    assert session.noop()[0] == "OK"
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))


def peak(server: Server) -> int:
    """The most memory that the server ever had, in octets."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_large_messages_at_once(server: Server, thorough: bool, verdict: Callable[[str], None]) -> None:
    """F24: content streams to the disk: many times ten megabytes take little memory."""
    count = 100 if thorough else 8
    text = message("large").encode() + (b"x" * 76 + b"\n") * 120_000  # 9.2 MB
    before = peak(server)
    errors: list[Exception] = []

    def send() -> None:
        try:
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=300) as client:
                client.sendmail("carol@example.net", ["alice@example.org"], text)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    grown = peak(server) - before
    verdict(f"{count} of 9 MB at once, {grown >> 20} MB more memory at most")
    assert grown < 50 << 20


@pytest.mark.needs("strace")
def test_a_slow_disk(server: Server, tmp_path: Path) -> None:
    """F25: while a commit waits for its fsync, others are answered."""
    assert server.process is not None
    session = imap(server)
    tracer = subprocess.Popen(
        [
            *("strace", "-f", "-q", "-p", str(server.process.pid), "-o", str(tmp_path / "strace.log")),
            *("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=3000000"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: "TracerPid:\t0\n" not in _status(server), "strace")
        is_done = threading.Event()

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=60) as client:
                client.sendmail("carol@example.net", ["alice@example.org"], message("slow"))
            is_done.set()

        thread = threading.Thread(target=send)
        thread.start()
        wait_for(lambda: "fsync" in _text(tmp_path / "strace.log"), "the commit to begin")
        answered = 0
        while not is_done.is_set() and answered < 20:
            assert session.noop()[0] == "OK"
            answered += not is_done.is_set()
        thread.join()
        assert answered == 20
    finally:
        tracer.terminate()
        tracer.wait()


def _status(server: Server) -> str:
    assert server.process is not None
    return Path(f"/proc/{server.process.pid}/status").read_text()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


class NextHop(socketserver.ThreadingTCPServer):
    """Takes mail; `taken` is called before its 250 to the content is sent, `told` behind it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.told = told
        self.copies = 0


class _Taking(socketserver.StreamRequestHandler):
    server: NextHop

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self._say(b"220 next.example ESMTP")
            while line := self.rfile.readline():
                self._say({b"DATA": b"354 go on", b"QUIT": b"221 bye"}.get(line[:4].upper(), b"250 ok"))
                if line[:4].upper() == b"DATA":
                    while self.rfile.readline() not in (b".\r\n", b""):
                        pass
                    self.server.copies += 1
                    self._say(b"250 taken")
                    self.server.told()

    def _say(self, reply: bytes) -> None:
        self.wfile.write(reply + b"\r\n")
        self.wfile.flush()


def test_killed_when_the_next_hop_has_said_250(tmp_path: Path) -> None:
    """F10: it has one copy or two, never none, never three; then the queue is empty."""
    first = threading.Event()
    server: Server | None = None

    def kill_once() -> None:
        if not first.is_set():
            assert server is not None and server.process is not None
            os.killpg(server.process.pid, 9)
            first.set()

    with NextHop(kill_once) as hop:
        threading.Thread(target=hop.serve_forever, daemon=True).start()
        server = Server(tmp_path / "home")
        server.configure(f"relayhost = [127.0.0.1]:{hop.server_address[1]}")
        server.start()
        with (
            contextlib.suppress(OSError, smtplib.SMTPException),  # the client may see it die
            smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=60) as client,
        ):
            client.sendmail("alice@example.org", ["dora@example.net"], message("once"))
        assert first.wait(60)
        assert server.process is not None
        server.process.wait(60)
        server.process = None
        server.start()
        try:
            wait_for(lambda: "queue is empty" in server.command("queue", "list"), "the queue to be empty")
        finally:
            server.stop()
        hop.shutdown()
    assert 1 <= hop.copies <= 2


@pytest.mark.parametrize("kind", [MaildirHarness, MboxHarness])
def test_restored_on_another_machine(tmp_path: Path, kind: type[MaildirHarness] | type[MboxHarness]) -> None:
    """F58: mail and state from a tar, under new inodes and times: UIDs and content are the same."""
    old = tmp_path / "old"
    old.mkdir()
    harness = kind(old)
    box = harness.store.open("INBOX")
    box.append([NewMessage(each) for each in (FIRST, SECOND, THIRD)])
    before = box.uidvalidity, contents(box)
    harness.registry.shut()
    new = tmp_path / "new"
    shutil.copytree(old, new, copy_function=shutil.copy)
    shutil.rmtree(old)
    after = kind(new)
    again = after.store.open("INBOX")
    assert (again.uidvalidity, contents(again)) == before
    after.registry.shut()
