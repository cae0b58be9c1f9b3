"""postfix start, status, reload, stop, abort: a server in the background. postfix(1)."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import DEADLINE, Server, wait_for


class Daemon:
    """A home, and the commands for it."""

    def __init__(self, base: Path) -> None:
        self.server = Server(base / "home")
        self.maillog = base / "mail.log"
        self.server.configure(f"maillog_file = {self.maillog}")
        main = self.server.directory / "main.cf"
        main.write_text(main.read_text().replace("maillog_file = /dev/stdout\n", ""))

    def postfix(self, word: str, status: int = 0) -> str:
        """What the command says on standard error; its exit status must be the one given."""
        done = self.run("postfix", "-c", str(self.server.directory), word)
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        return done.stderr

    def run(self, program: str, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"mailserver.commands.{program}", *words],
            input=text,
            env={**os.environ, "MAIL_CONFIG": str(self.server.directory)},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def pid(self) -> int:
        return int(self.postfix("status").split("PID: ")[1])


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    if "is running" in made.run("postfix", "-c", str(made.server.directory), "status").stderr:
        made.postfix("abort")


def test_a_whole_life(daemon: Daemon) -> None:
    """start returns when all ports are bound; reload takes a new log; stop waits for the end."""
    say = "postfix/postfix-script: "
    assert daemon.postfix("start") == f"{say}starting the Postfix mail system\n"
    for port in daemon.server.ports.values():
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert daemon.postfix("start", 1) == f"{say}fatal: the Postfix mail system is already running\n"
    pid = daemon.pid()
    assert os.getsid(pid) == pid and os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
    rotated = daemon.maillog.with_suffix(".1")
    daemon.maillog.rename(rotated)
    assert daemon.postfix("reload") == f"{say}refreshing the Postfix mail system\n"
    assert daemon.run("sendmail", "alice", text="Subject: x\n\nx\n").returncode == 0
    wait_for(lambda: "status=sent" in daemon.maillog.read_text(), "a line in the new log")
    assert daemon.pid() == pid
    assert daemon.postfix("flush") == ""
    assert daemon.postfix("stop") == f"{say}stopping the Postfix mail system\n"
    assert daemon.postfix("status", 1) == f"{say}the Postfix mail system is not running\n"
    assert daemon.postfix("stop", 1) == f"{say}fatal: the Postfix mail system is not running\n"
    assert "daemon started" in rotated.read_text()


def test_the_log_is_rotated(daemon: Daemon) -> None:
    """logrotate: the old log is compressed under another name, the server goes on in a new one."""
    daemon.server.configure("maillog_file_rotate_suffix = old")
    daemon.postfix("start")
    assert daemon.postfix("logrotate") == ""
    packed = daemon.maillog.with_name(f"{daemon.maillog.name}.old.gz")
    assert b"daemon started" in gzip.decompress(packed.read_bytes())
    assert daemon.run("sendmail", "alice", text="Subject: x\n\nx\n").returncode == 0
    wait_for(lambda: "status=sent" in daemon.maillog.read_text(), "a line in the new log")
    daemon.postfix("stop")
    daemon.server.configure("maillog_file = /dev/stdout")
    assert "fatal: not rotating '/dev/stdout'\n" in daemon.postfix("logrotate", 1)


def test_a_broken_configuration_is_not_loaded(daemon: Daemon) -> None:
    """reload checks first: the server goes on as it is."""
    daemon.postfix("start")
    pid = daemon.pid()
    daemon.server.configure("smtpd_relay_restrictions = permit")
    text = daemon.postfix("reload", 1)
    assert "smtpd_relay_restrictions" in text and "the configuration is not loaded" in text
    assert daemon.pid() == pid
    daemon.postfix("abort")
    assert "cannot be started" in daemon.postfix("start", 1)


def test_a_start_that_fails_says_why(daemon: Daemon) -> None:
    """What the check cannot know: here, a log that only the server itself cannot open."""
    daemon.maillog.mkdir()
    text = daemon.postfix("start", 1)
    assert "maillog_file" in text and "Is a directory" in text
    assert "fatal: mail system startup failed" in text and "Traceback" not in text


def test_in_the_foreground(daemon: Daemon) -> None:
    """start-fg, for containers: the process is the server, and SIGTERM ends it in order."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mailserver.commands.postfix", "-c", str(daemon.server.directory), "start-fg"],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: "is running" in daemon.run("postfix", "status").stderr, "the start")
        wait_for(lambda: "daemon started" in daemon.maillog.read_text(), "the ports")
        assert daemon.pid() == process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == -signal.SIGTERM  # as twistd ends, which systemd counts as success
