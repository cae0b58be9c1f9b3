"""Mailboxes shared between the accounts of a running server, met by IMAPClient and `mailserver acl`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from tests.end_to_end.server import Server, running, wait_for


@pytest.fixture(scope="module", params=["mbox", "maildir"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp(f"sharing-{request.param}")
    lines = (
        f"public_namespaces = {{ Public/={request.param}:{directory}/home/public }}",
        "acl_anyone = allow",
    )
    with running(directory / "home", request.param, *lines) as server:
        yield server


def log_in(server: Server, name: str) -> IMAPClient:
    client = IMAPClient("127.0.0.1", server.ports["imap"], ssl=False, use_uid=True)
    client.login(name, server.passwords[name])
    return client


def test_a_team_mailbox(server: Server) -> None:
    """One gives rights, the other works with them; each hears of the other in IDLE; rights end at once."""
    with log_in(server, "bob") as bob, log_in(server, "alice") as alice:
        assert b"ACL" in bob.capabilities() and b"RIGHTS=TEXK" in bob.capabilities()
        assert bob.namespace().other == (("shared/", "/"),)
        assert bob.namespace().shared == (("Public/", "/"),)
        bob.create_folder("Team")
        bob.setacl("Team", "alice", "lrswi")
        assert (b"alice", b"lrswi") in bob.getacl("Team")
        assert [name for _, _, name in alice.list_folders("shared/", "*")][-1] == "shared/bob/Team"
        alice.select_folder("shared/bob/Team")
        bob.select_folder("Team")
        bob.idle()
        alice.append("shared/bob/Team", b"Subject: shared\r\n\r\nHi.\r\n", [b"\\Seen"])
        assert (1, b"EXISTS") in bob.idle_check(timeout=30)
        bob.idle_done()
        assert bob.search() == alice.search() == [1]
        assert b"\\Seen" in bob.get_flags([1])[1]
        alice.add_flags([1], b"\\Flagged")
        assert b"\\Flagged" in bob.get_flags([1])[1]
        with pytest.raises(IMAPClientError, match="NOPERM"):
            alice.expunge()
        bob.setacl("Team", "alice", "l")
        with pytest.raises(IMAPClientError):
            alice.fetch([1], ["FLAGS"])
        bob.unselect_folder()
        bob.delete_folder("Team")


def test_the_administrators_command(server: Server) -> None:
    """Rights given beside the running server count from the next command on."""
    server.command("acl", "set", "Public", "user=alice", "all")
    server.command("acl", "add", "Public", "anyone", "lookup", "read")
    with log_in(server, "alice") as alice, log_in(server, "bob") as bob:
        alice.create_folder("Public/News")
        alice.append("Public/News", b"Subject: one\r\n\r\n1\r\n")
        assert b"READ-ONLY" in bob.select_folder("Public/News", readonly=True)
        assert bob.search() == [1]
        with pytest.raises(IMAPClientError, match="NOPERM"):
            bob.append("Public/News", b"Subject: two\r\n\r\n2\r\n")
        server.command("acl", "set", "Public/News", "user=bob", "lri")
        bob.append("Public/News", b"Subject: two\r\n\r\n2\r\n")
        server.command("acl", "set", "Public/News", "user=bob", "l")
        with pytest.raises(IMAPClientError):
            bob.search()
        wait_for(lambda: alice.folder_status("Public/News", ["MESSAGES"])[b"MESSAGES"] == 2, "two messages")
        said = server.command("acl", "get", "Public/News")
        assert "user=bob                         lookup\n" in said


def test_what_each_has_seen_outlives_a_kill(tmp_path: Path) -> None:
    r"""private_seen: bob's \Seen is not alice's, and what she was told is seen is so after SIGKILL."""
    with running(tmp_path / "home", "maildir", "private_seen = shared/%u/") as server:
        with log_in(server, "bob") as bob, log_in(server, "alice") as alice:
            bob.create_folder("Team")
            bob.setacl("Team", "alice", "lrs")
            for subject in (b"one", b"two"):
                bob.append("Team", b"Subject: %b\r\n\r\nHi.\r\n" % subject, [b"\\Seen"])
            assert b"READ-WRITE" in alice.select_folder("shared/bob/Team")
            assert alice.search("UNSEEN") == [1, 2]
            alice.fetch([2], ["BODY[TEXT]"])
            bob.select_folder("Team")
            bob.remove_flags([2], [b"\\Seen"])
            assert alice.search("UNSEEN") == [1] and bob.search("UNSEEN") == [2]
            server.stop(signal.SIGKILL)
        server.start()
        with log_in(server, "bob") as bob, log_in(server, "alice") as alice:
            assert alice.folder_status("shared/bob/Team", ["UNSEEN"]) == {b"UNSEEN": 1}
            alice.select_folder("shared/bob/Team")
            bob.select_folder("Team")
            assert alice.search("UNSEEN") == [1] and bob.search("UNSEEN") == [2]
