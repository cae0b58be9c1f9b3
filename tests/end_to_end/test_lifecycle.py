"""Starting, stopping, being killed, and starting again."""

from __future__ import annotations

import imaplib
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.server import DEADLINE, Server, running


def uids(server: Server, name: str) -> dict[str, str]:
    """UIDVALIDITY and UID to Message-ID of an INBOX."""
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    client.login(name, server.passwords[name])
    client.select("INBOX", readonly=True)
    validity = client.response("UIDVALIDITY")[1][0].decode()
    rows = client.fetch("1:*", "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")[1]
    client.logout()
    found = {"UIDVALIDITY": validity}
    for row in rows:
        if isinstance(row, tuple):
            found[row[0].split(b"UID ")[1].split()[0].decode()] = row[1].decode().strip()
    return found


@pytest.mark.parametrize("mail_format", ["mbox", "maildir"])
def test_a_second_start_keeps_everything(tmp_path: Path, mail_format: str) -> None:
    """Passwords, mail, UIDVALIDITY and UIDs are as they were. RFC 3501 §2.3.1.1."""
    with running(tmp_path / "home", mail_format) as server:
        before = uids(server, "alice")
        assert len(before) == 5
        server.stop()
        server.start()
        assert uids(server, "alice") == before


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    """The start fails with the address, what is wrong and what to do; nothing else is printed."""
    server = Server(tmp_path / "home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.ports["imap"]))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "mailserver.commands.main", "-c", str(server.directory), "run"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"127.0.0.1:{server.ports['imap']}" in last
    assert "Traceback" not in done.stdout + done.stderr


def test_a_bad_parameter_is_one_clear_line(tmp_path: Path) -> None:
    """File, line, what, and how to fix it."""
    server = Server(tmp_path / "home")
    server.configure("message_size_limit = lots")
    text = server.command("run", status=1)
    assert "main.cf" in text and "message_size_limit" in text
    assert "Traceback" not in text


def test_two_servers_on_one_queue_are_refused(tmp_path: Path) -> None:
    """F36: the second instance ends with "already running"."""
    with running(tmp_path / "home") as server:
        text = server.command("run", status=1)
        assert "already running" in text


def test_every_idle_client_hears_bye_at_the_end(tmp_path: Path) -> None:
    """F11: SIGTERM with 50 clients in IDLE; the server is gone soon, and mail is as it was."""
    with running(tmp_path / "home", "mbox", "mail_max_userip_connections = 0") as server:
        before = uids(server, "alice")
        clients = []
        for _ in range(50):
            client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
            client.login("alice", server.passwords["alice"])
            client.select("INBOX")
            client.send(b"i IDLE\r\n")
            assert client.readline().startswith(b"+ ")
            clients.append(client)
        server.stop()
        for client in clients:
            assert client.readline().startswith(b"* BYE ")
        server.start()
        assert uids(server, "alice") == before


def test_a_second_term_changes_nothing(tmp_path: Path) -> None:
    """The stop is under way: no traceback, and the same end. ps and ss show a `master`, as Postfix's."""
    with running(tmp_path / "home") as server:
        process = server.process
        assert process is not None
        client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
        client.login("alice", server.passwords["alice"])
        assert Path(f"/proc/{process.pid}/comm").read_text() == "master\n"
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        assert client.readline().startswith(b"* BYE ")
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == -signal.SIGTERM
        server.process = None
        assert "Traceback" not in server.log_text()
