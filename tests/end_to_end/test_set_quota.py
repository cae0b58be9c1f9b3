"""SETQUOTA by an administrator, whom the passwd-file names with `userdb_admin=y`. RFC 9208 §4.1.3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.plain_client import PlainClient
from tests.end_to_end.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """alice administers; bob has limits already, one of them for Trash."""
    server = Server(tmp_path / "home", "maildir")
    users = server.directory / "users"
    lines = dict(line.split(":", 1) for line in users.read_text().splitlines() if line[:1].isalpha())
    users.write_text(
        f"# kept\nalice:{lines['alice']} userdb_admin=y\n"
        f"bob:{lines['bob']} nologin_hint=x userdb_quota_rule=*:storage=1G,Trash:storage=+10%\n"
    )
    server.start()
    yield server
    server.stop()


def test_an_administrator_sets_quota(server: Server) -> None:
    """Durably, for what is delivered and appended from then on; what single mailboxes may stays."""
    alice = PlainClient(server.ports["imap"], "alice", server.passwords["alice"])
    bob = PlainClient(server.ports["imap"], "bob", server.passwords["bob"])
    assert b" QUOTASET" in alice.ask("a CAPABILITY") and b" QUOTASET" not in bob.ask("a CAPABILITY")
    assert b"b NO [NOPERM]" in bob.ask('b SETQUOTA "User quota" (STORAGE 9999999)')
    assert b"c NO [NONEXISTENT]" in bob.ask('c SETQUOTA "alice:User quota" (STORAGE 1)')
    assert b"d NO [NONEXISTENT]" in bob.ask('d GETQUOTA "alice:User quota"')
    said = alice.ask('b SETQUOTA "bob:User quota" (STORAGE 512 MESSAGE 2)')
    assert b'* QUOTA "bob:User quota" (STORAGE 0 512 MESSAGE 0 2)\r\nb OK' in said
    assert b"(STORAGE 0 512 MESSAGE 0 2)\r\ne OK" in bob.ask('e GETQUOTA "User quota"')
    text = (server.directory / "users").read_text()
    assert text.startswith("# kept\nalice:")
    assert ":nologin_hint=x userdb_quota_rule=*:storage=512k:messages=2,Trash:storage=+10%\n" in text
    mail = "A: b\r\n\r\n"
    append = f"INBOX {{{len(mail)}+}}\r\n{mail}"
    for tag in ("f", "g"):
        assert f"{tag} OK".encode() in bob.ask(f"{tag} APPEND {append}")
    assert b"h NO [OVERQUOTA]" in bob.ask(f"h APPEND {append}")
    assert b'* QUOTA "bob:User quota" (STORAGE 1 512)\r\nc OK' in alice.ask(
        'c SETQUOTA "bob:User quota" (STORAGE 512)'
    )
    assert b"i OK" in bob.ask(f"i APPEND {append}")
    assert b'* QUOTA "bob:User quota" ()\r\nd OK' in alice.ask('d SETQUOTA "bob:User quota" ()')
    assert b"e NO [NONEXISTENT]" in alice.ask('e SETQUOTA "nobody:User quota" (STORAGE 1)')
    assert b"f NO [CANNOT]" in alice.ask('f SETQUOTA "bob:User quota" (MAILBOX 7)')
    assert b"g NO [LIMIT]" in alice.ask('g SETQUOTA "bob:User quota" (STORAGE 9223372036854775807)')
    assert b'* QUOTA "User quota" (MESSAGE ' in alice.ask('h SETQUOTA "User quota" (MESSAGE 1000)')
