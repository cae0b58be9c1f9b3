"""Workloads of what stands before any mail: TLS handshakes, a server that starts, the `sendmail` command."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks import messages
from benchmarks.clients import trusting_tls
from benchmarks.measure import Sample, Workload, repeated
from benchmarks.servers import Ours, Server

_HANDSHAKES: Final = 20
_QUEUED: Final = 100_000
_ACCOUNTS: Final = 10_000
_COMMANDS: Final = 20
_DEADLINE: Final = 60.0  # seconds


def _shake_hands(server: Server, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession:
    """A connection to IMAP over TLS, greeted and closed; the session, which may be resumed."""
    address = "127.0.0.1", server.ports["imaps"]
    with (
        socket.create_connection(address, 30) as plain,
        context.wrap_socket(plain, session=session) as client,
    ):
        client.recv(1000)
        if session is not None and not client.session_reused:
            raise OSError("the session was not resumed")
        assert client.session is not None
        return client.session


def _handshakes(is_resumed: bool) -> Callable[[Server], Sample]:
    def run(server: Server) -> Sample:
        context = trusting_tls()
        session = _shake_hands(server, context, None)

        def act() -> int:
            nonlocal session
            for _ in range(_HANDSHAKES):
                session = _shake_hands(server, context, session if is_resumed else None)
            return _HANDSHAKES

        return repeated(server, act)

    return run


def _fill_queue(server: Ours) -> None:
    """So many messages are deferred, and so many accounts exist. The server is stopped."""
    deferred = server.directory / "queue" / "deferred"
    template = next(deferred.iterdir())
    content, status = template.read_bytes(), template.stat()
    first = int(template.name, 16)
    for number in range(1, _QUEUED):
        path = deferred / f"{first + 16 * number:011X}"
        path.write_bytes(content)
        path.chmod(status.st_mode & 0o777)
        os.chown(path, status.st_uid, status.st_gid)
        os.utime(path, (status.st_atime, status.st_mtime))
    with (server.directory / "users").open("a") as users:
        users.writelines(f"more{number}:{{PLAIN}}x::::/nonexistent::\n" for number in range(_ACCOUNTS))


def _until_ready(server: Server) -> Sample:
    """Seconds from the start to SMTP's greeting, with a long queue and many accounts. Ours alone."""
    if not isinstance(server, Ours):
        raise OSError("its queue is not filled")
    client = server.smtp()
    client.send(["somebody@elsewhere.example"], messages.of_size(1024))
    client.close()
    deferred, end = server.directory / "queue" / "deferred", time.monotonic() + _DEADLINE
    while not list(deferred.iterdir()):
        if time.monotonic() > end:
            raise TimeoutError("the message was not deferred")
        time.sleep(0.1)
    server.stop()
    users = (server.directory / "users").read_text()
    _fill_queue(server)
    began = time.perf_counter()
    server.launch()
    while True:
        try:
            with closing(server.smtp()):
                break
        except OSError:
            time.sleep(0.005)
    took = time.perf_counter() - began
    server.stop()
    shutil.rmtree(deferred)
    deferred.mkdir(mode=0o700)
    shutil.chown(deferred, *server.owner)
    (server.directory / "users").write_text(users)
    server.start()
    return Sample(_QUEUED, figure=took)


def _processor_seconds(command: Sequence[str], content: bytes) -> float:
    """What the command costs, on average."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(_COMMANDS):
        subprocess.run(command, input=content, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / _COMMANDS


def _sendmail(server: Server) -> Sample:
    """How many times as much as a bare interpreter our `sendmail` costs, until the message is dropped."""
    if not isinstance(server, Ours):
        raise OSError("its sendmail is written in C")
    tree = str(Path(__file__).parent.parent)
    main = f"import sys; sys.path.insert(0, {tree!r}); from mailserver.commands.sendmail import main; main()"
    python = [sys.executable, "-I", "-S", "-c"]
    account = f"{server.new_account()}@example.org"
    ours = [*python, main, "-C", str(server.directory), account]
    _processor_seconds(ours, b"Subject: first\n\n")
    bare = _processor_seconds([*python, "pass"], b"")
    return Sample(_COMMANDS, figure=_processor_seconds(ours, b"Subject: hi\n\nhello\n") / bare)


WORKLOADS: Final = (
    Workload("tls-full", "TLS handshake to IMAP, full", _handshakes(False), 1.0),
    Workload("tls-resumed", "TLS handshake to IMAP, resumed", _handshakes(True), 1.0),
    Workload(
        "start",
        f"start with {_QUEUED:,} queued messages, {_ACCOUNTS:,} accounts, s",
        _until_ready,
        1.0,
        True,
    ),
    Workload("sendmail", "`sendmail`, times a bare interpreter", _sendmail, 2.0, True),
)
