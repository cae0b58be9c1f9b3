"""Mailbox names that would like to be paths: RELIABILITY B9, T13, B27."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import Server
from tests.hostile.attacker import Attacker, logged_in

NAMES = [
    "../bob",
    "../../etc/passwd",
    "../../../../../../../../etc/passwd",
    "INBOX/../..",
    "INBOX/../../bob",
    "/etc/passwd",
    "//etc/passwd",
    "~/.ssh",
    "~bob/mail",
    "~root",
    ".",
    "..",
    "./x",
    "a/./b",
    "a/../b",
    "a//b",
    "a/",
    "/",
    "&AC8-etc&AC8-passwd",
    "..&AC8-..&AC8-bob",
    "&AC4ALg-/bob",
    "&AAA-",
    "a&AAA-b",
    "&",
    "&AC8",
    "&!!!-",
    "&2D0-",
    "&3gA-",
    "x" * 300,
    "/".join("abcdefghijklmnopqrst"),
    "a\tb",
    "\x01",
    "\x7f",
    "../state.db",
    "dovecot-uidlist",
    ".mailserver",
    "#news",
    "%2e%2e%2fbob",
    "..\\\\..\\\\bob",
    "C:\\\\bob",
    "user/bob",
    "Other Users/bob",
    "*",
    "%",
]
COMMANDS = [
    "SELECT {}",
    "EXAMINE {}",
    "CREATE {}",
    "DELETE {}",
    "RENAME {} stolen",
    "RENAME mine {}",
    "SUBSCRIBE {}",
    "UNSUBSCRIBE {}",
    'LIST "" {}',
    "LIST {} *",
    'LSUB "" {}',
    "STATUS {} (MESSAGES UIDVALIDITY)",
    "COPY 1 {}",
    "MOVE 1 {}",
    "APPEND {} {{6+}}\r\nA: b\r\n",
]


@pytest.fixture
def outside(server: Server) -> Iterator[None]:
    """Whatever lies beside alice's own directories is the same afterwards."""
    logged_in(server).send(b"t LOGOUT\r\n")
    roots = [server.directory.parent, server.directory / "home" / "bob", server.directory / "state"]
    before = [listing(root, server) for root in roots]
    yield
    assert [listing(root, server) for root in roots] == before


def listing(root: Path, server: Server) -> set[str]:
    """The names below a directory, but for what is alice's, the queue's and the log's."""
    ours = ("home/alice", "state/accounts/alice", "queue", "spool/mail/alice")
    kept = [
        path for path in root.rglob("*") if not str(path.relative_to(server.directory.parent)).count("/queue")
    ]
    return {str(path) for path in kept if not any(f"/{each}" in str(path) for each in ours)}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split("\r")[0])
def test_no_name_leads_outside(server: Server, outside: None, command: str) -> None:
    """Each hostile name gets a tagged answer in its turn, and nothing beside alice's folders changes."""
    with logged_in(server) as client:
        assert client.tagged(b"SELECT INBOX").startswith(b"t OK")
        client.tagged(b"CREATE mine")
        for name in NAMES:
            answer = client.tagged(command.format(f'"{name}"').encode("latin-1"))
            assert answer.startswith((b"t OK", b"t NO", b"t BAD")), (name, answer)
            if ".." in name.split("/") or name.startswith(("/", "~")):
                assert not answer.startswith(b"t OK") or command.startswith(("LIST", "LSUB", "UNSUB")), name
            assert client.tagged(b"NOOP").startswith(b"t OK")
        for leftover in NAMES[18:]:
            client.tagged(f'DELETE "{leftover}"'.encode("latin-1"))


def test_a_literal_with_nul_is_no_name(server: Server) -> None:
    """NUL ends no name early."""
    with logged_in(server) as client:
        assert client.tagged(b"CREATE {7+}\r\nab\0/../").startswith((b"t BAD", b"t NO"))
        assert client.tagged(b"NOOP").startswith(b"t OK")


def test_anothers_mail_is_not_to_be_had(server: Server) -> None:
    """B27: two accounts, and no name of the one gives anything of the other."""
    with Attacker(server, "imap", "127.0.0.1") as bob:
        assert bob.tagged(f'LOGIN bob "{server.passwords["bob"]}"'.encode()).startswith(b"t OK")
        assert bob.tagged(b"CREATE private").startswith(b"t OK")
    with logged_in(server) as alice:
        for command in ("SELECT private", 'SELECT "bob/private"', 'STATUS "../bob/mail/private" (MESSAGES)'):
            assert not alice.tagged(command.encode()).startswith(b"t OK")
        alice.send(b't LIST "" *\r\n')
        line = alice.line()
        while not line.startswith(b"t "):
            assert b"private" not in line
            line = alice.line()
