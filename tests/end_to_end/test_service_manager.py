"""The server in one process under a service manager and logrotate."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
from pathlib import Path

import pytest

from tests.end_to_end.server import running, wait_for


def test_the_service_manager_is_told_and_the_log_reopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sd_notify(3): ready, alive, reloading, stopping; F55: a rotated log is left for the new one."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(60)
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    log = tmp_path / "logs" / "mail.log"
    log.parent.mkdir()
    log.parent.chmod(0o777)
    with running(tmp_path / "home", "mbox", f"maillog_file = {log}") as server:
        hear(manager, b"READY=1")
        hear(manager, b"WATCHDOG=1")
        log.rename(log.parent / "mail.log.1")
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGHUP)
        hear(manager, b"RELOADING=1\nMONOTONIC_USEC=")
        hear(manager, b"READY=1")
        with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
            client.noop()
        wait_for(lambda: "disconnect from" in log.read_text(), "a line in the new log")
        server.process.send_signal(signal.SIGTERM)
        hear(manager, b"STOPPING=1")
    manager.close()


def hear(manager: socket.socket, text: bytes) -> None:
    """Returns once the service has said it."""
    while not manager.recv(1000).startswith(text):
        pass
