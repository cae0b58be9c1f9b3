"""`mailserver who`, `kick`, `penalty` and `rawlog` against a running server."""

from __future__ import annotations

import base64
import imaplib
import json
import poplib
import re
import signal
import smtplib
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("sessions") / "home", "maildir") as started:
        yield started


def imap(server: Server, name: str = "alice") -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=30)
    client.login(name, server.passwords[name])
    return client


def pop3(server: Server, name: str = "alice") -> poplib.POP3:
    client = poplib.POP3("127.0.0.1", server.ports["pop3"], timeout=30)
    client.user(name)
    client.pass_(server.passwords[name])
    return client


def smtp(server: Server, name: str = "bob") -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=30)
    client.login(name, server.passwords[name])
    return client


def test_who_and_kick(server: Server) -> None:
    """Everybody in doveadm's columns; a kick by user, by network, by both."""
    first, second, maildrop, submission = imap(server), imap(server), pop3(server), smtp(server)
    assert server.process is not None
    pid = server.process.pid
    assert [line.split() for line in server.command("who").splitlines()] == [
        ["username", "#", "proto", "(pids)", "(ips)"],
        ["alice", "2", "imap", f"({pid})", "(127.0.0.1)"],
        ["alice", "1", "pop3", f"({pid})", "(127.0.0.1)"],
        ["bob", "1", "smtp", f"({pid})", "(127.0.0.1)"],
    ]
    assert json.loads(server.command("who", "b*", "--json")) == [
        {"username": "bob", "connections": 1, "service": "smtp", "pids": [pid], "ips": ["127.0.0.1"]}
    ]
    assert server.command("who", "-1", "192.0.2.0/24").split() == ["username", "proto", "pid", "ip"]
    assert len(json.loads(server.command("who", "-1", "--json", "alice", "127.0.0.0/8"))) == 3
    messages = maildrop.stat()[0]
    maildrop.dele(1)

    assert "no users kicked" in server.command("kick", "alice", "192.0.2.1", status=68)
    assert server.command("kick", "ali?e") == "kicked connections from the following users:\nalice\n"
    for client in (first, second):
        assert client.readline() == b"* BYE Kicked by an administrator.\r\n"
        client.shutdown()
    assert maildrop.file is not None and maildrop.file.readline().startswith(b"-ERR [SYS/TEMP] Kicked")
    maildrop.close()
    assert len(server.command("who").splitlines()) == 2
    assert "bob" in server.command("kick", "-f", "127.0.0.1")
    assert submission.getreply()[1].endswith(b"Error: kicked by an administrator")
    submission.close()
    assert server.command("who").split() == ["username", "#", "proto", "(pids)", "(ips)"]
    again = pop3(server)
    assert again.stat()[0] == messages
    again.quit()
    server.logged(r"kicked imap session <\S+> of alice")


def test_penalties(server: Server) -> None:
    """The place and how many different wrong passwords; cleared, it is as if nothing had been."""
    assert server.command("penalty").split() == ["IP", "penalty", "last_penalty"]
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"], timeout=30)
    with pytest.raises(imaplib.IMAP4.error):
        client.login("alice", "wrong")
    (found,) = json.loads(server.command("penalty", "--json", "127.0.0.0/8"))
    assert found["IP"] == "127.0.0.1" and found["penalty"] == 1
    assert "nothing is held against 192.0.2.1" in server.command("penalty", "--clear", "192.0.2.1", status=68)
    assert server.command("penalty", "--clear", "127.0.0.1") == "cleared 127.0.0.1\n"
    assert server.command("penalty", "--json") == "[]\n"
    assert "write an address" in server.command("penalty", "nonsense", status=None)
    client.shutdown()


def test_only_the_owner_may_ask(server: Server) -> None:
    """The socket and its directory are the server's user's alone."""
    (private,) = server.directory.rglob("private")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "sessions").stat().st_mode) == 0o600


def test_no_server(tmp_path: Path) -> None:
    """The error says what to do."""
    server = Server(tmp_path / "home")
    assert "mailserver run" in server.command("who", status=69)
    assert "no server is running" in server.command("rawlog", "alice", status=69)
    assert not list(server.directory.rglob("rawlog"))


def test_rawlog_live(server: Server) -> None:
    """What a session says is shown as it is said; after Ctrl-C nothing is left, and nothing more written."""
    follow = subprocess.Popen(
        [sys.executable, "-m", "mailserver.commands.main", "-c", str(server.directory), "rawlog", "alice"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout is not None and "waiting for sessions of alice" in follow.stdout.readline()
    client = imap(server)
    client.select()
    client.logout()
    lines = iter(follow.stdout.readline, "")
    shown = next(line for line in lines if " SELECT INBOX" in line)
    assert re.fullmatch(r"\S+ \d\d:\d\d:\d\d\.\d{3} C: \S+ SELECT INBOX\n", shown)
    assert any("S: " in line and "OK Logout completed." in line for line in lines)
    follow.send_signal(signal.SIGINT)
    assert follow.wait(30) == 0
    follow.stdout.close()
    assert list(server.directory.rglob("rawlog")) == []
    server.logged(r"rawlog: the session <\S+> of alice from 127.0.0.1 goes to ")


def test_rawlog_in_files(server: Server) -> None:
    """--start, --show, --stop."""
    assert "transcripts of new sessions: " in server.command("rawlog", "bob", "--start", "--for", "2h")
    pop3(server, "bob").quit()
    assert "on already" in server.command("rawlog", "bob", status=None)
    shown = server.command("rawlog", "bob", "--show")
    assert re.search(r"C: QUIT\n.* S: \+OK Logging out", shown) and "on for another" in shown
    server.command("rawlog", "bob", "--stop")
    assert server.command("rawlog", "bob", "--show") == "off\n"
    assert "no such account" in server.command("rawlog", "nobody", status=67)


def test_logins_for_another_program(tmp_path: Path) -> None:
    """auth_listener without root: Dovecot's protocol at a socket of our own, its mode as it is set."""
    path = tmp_path / "auth"
    with running(tmp_path / "home", "mbox", f"auth_listener = {path}", "auth_listener_mode = 0600") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as program:
            program.settimeout(30)
            program.connect(str(path))
            lines = program.makefile("rb")
            greeting = list(iter(lines.readline, b"DONE\n"))
            assert greeting[0] == b"VERSION\t1\t2\n" and b"MECH\tPLAIN\tplaintext\n" in greeting
            response = base64.b64encode(f"\0alice\0{server.passwords['alice']}".encode())
            program.sendall(b"VERSION\t1\t1\nCPID\t1\n")
            program.sendall(b"AUTH\t1\tPLAIN\tservice=smtp\trip=192.0.2.7\tresp=" + response + b"\n")
            assert lines.readline() == b"OK\t1\tuser=alice\n"
        server.logged(r"auth: Login: user=<alice>, service=smtp, method=PLAIN, rip=192\.0\.2\.7")
        server.stop()
        server.start()  # the socket that the ended server left is replaced
        with socket.socket(socket.AF_UNIX) as program:
            program.connect(str(path))
            assert program.recv(8) == b"VERSION\t"
