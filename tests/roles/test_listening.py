"""What is said where a port cannot be had."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from mailserver.config.read import read_config
from mailserver.rights.listeners import CannotListen
from mailserver.roles import listening
from mailserver.roles.listening import StartFailed, bind_all


def forbidden(host: str, port: int, beside: Sequence[socket.socket]) -> socket.socket:
    """A port below 1024, for whoever is not root; where tests run, anybody may have any port."""
    raise CannotListen("no") from PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_low_port_needs_root_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs has become the mail_owner for good, and its reload says what helps."""
    monkeypatch.setattr(listening, "listen_tcp", forbidden)
    (tmp_path / "main.cf").write_text("myhostname = mail.example.org\n")
    (tmp_path / "master.cf").write_text("127.0.0.1:25 inet n - n - - smtpd\n")
    config = read_config(str(tmp_path), {})
    with pytest.raises(StartFailed, match=r"master\.cf:1\): start as root, or choose a port above 1023"):
        bind_all(config)
    with socket.socket() as kept, pytest.raises(StartFailed, match="stop and start the mail system as root"):
        bind_all(config, {("127.0.0.1", 2525): kept})
