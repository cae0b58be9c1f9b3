"""The personal namespace's prefix, `INBOX.`, as Courier and Dovecot have it. RFC 2342 §5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mailserver.accounts.account import Account
from mailserver.store.layout import Layout, layout_for
from mailserver.store.registry import FileStoreRegistry
from tests.imapd.harness import Client, Server
from tests.imapd.sharing import SharingServer


def prefixed(layout: Layout) -> Layout:
    return replace(layout, separator=".", prefix="INBOX/")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    def place(account: Account) -> Layout:
        return prefixed(layout_for(account, f"maildir:{tmp_path}/home/Maildir"))

    (tmp_path / "home").mkdir()
    files = FileStoreRegistry(place, str(tmp_path / "state"), "host.example")
    yield Server(registry=files)
    files.shut()


def told(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if line.startswith(b"* ")]


def ends_ok(client: Client, *commands: bytes) -> None:
    for command in commands:
        answer = client.ask(b"x " + command)
        assert b"\r\nx OK" in b"\r\n" + answer, answer


def test_on_the_disk_nothing_has_it(server: Server, tmp_path: Path) -> None:
    """Folders, subscriptions and the names that commands of the server know are without the prefix."""
    client = server.log_in()
    ends_ok(client, b"CREATE INBOX.Work.2024", b"SUBSCRIBE INBOX.Work.2024")
    assert (tmp_path / "home" / "Maildir" / ".Work.2024").is_dir()
    assert not list((tmp_path / "home" / "Maildir").glob(".INBOX*"))
    store = server.registry.open(Account("alice", 1, 1, str(tmp_path / "home")))
    assert "Work/2024" in store.subscriptions()
    assert "Work/2024" in {folder.name for folder in store.folders()}


@pytest.mark.parametrize(
    "command",
    [b"SELECT Work", b"EXAMINE Work", b"CREATE Work", b"DELETE Work", b"SUBSCRIBE Work", b"UNSUBSCRIBE Work",
     b"STATUS Work (MESSAGES)", b"RENAME Work INBOX.New", b"RENAME INBOX.Work New", b"APPEND Work {1+}\r\nx",
     b"GETACL Work", b"SETACL Work bob lr", b"DELETEACL Work bob", b"LISTRIGHTS Work bob", b"MYRIGHTS Work",
     b"GETQUOTAROOT Work", b"GETMETADATA Work /private/comment",
     b'SETMETADATA Work (/private/comment "x")', b"NOTIFY SET (mailboxes Work (MessageNew MessageExpunge))",
     b"ESEARCH IN (mailboxes Work) ALL",
     b"COPY 1 Work", b"MOVE 1 Work", b"UID COPY 1 Work", b"SELECT INBOXES.Work"],
)  # fmt: skip
def test_names_outside_are_refused(server: Server, command: bytes) -> None:
    """A folder that is there is not found without the prefix, and no other is made or touched."""
    client = server.log_in()
    ends_ok(client, b"CREATE INBOX.Work", b"APPEND INBOX {1+}\r\nx", b"SELECT INBOX")
    before = client.ask(b'2 LIST "" "*" RETURN (SUBSCRIBED STATUS (MESSAGES))')
    answer = client.ask(b"1 " + command)
    assert b"1 NO [CANNOT] Client tried to access nonexistent namespace." in answer
    assert b"prefixed with: INBOX.)" in answer
    assert client.ask(b'2 LIST "" "*" RETURN (SUBSCRIBED STATUS (MESSAGES))') == before


def test_responses_have_it(server: Server) -> None:
    """Every response that names a mailbox, INBOX as it always is."""
    client = server.log_in()
    ends_ok(client, b"CREATE INBOX.Work")
    assert told(client.ask(b"1 STATUS INBOX.Work (MESSAGES)")) == [b'* STATUS "INBOX.Work" (MESSAGES 0)']
    assert told(client.ask(b"2 STATUS inbox (MESSAGES)")) == [b'* STATUS "INBOX" (MESSAGES 0)']
    assert told(client.ask(b"3 MYRIGHTS INBOX.Work"))[0].startswith(b'* MYRIGHTS "INBOX.Work" ')
    assert told(client.ask(b"4 GETQUOTAROOT INBOX.Work"))[0].startswith(b'* QUOTAROOT "INBOX.Work"')
    ends_ok(client, b'SETMETADATA INBOX.Work (/private/comment "x")')
    assert b'* METADATA "INBOX.Work" (' in client.ask(b"5 GETMETADATA INBOX.Work /private/comment")
    ends_ok(client, b"ENABLE IMAP4rev2")
    assert b'* LIST () "." "INBOX.Work"' in client.ask(b"6 SELECT INBOX.Work")
    assert b'"INBOX.Sent"' in client.ask(b'7 LIST (SPECIAL-USE) "" "*"')
    assert b'"CHILDINFO"' in client.ask(b'8 LIST (SPECIAL-USE RECURSIVEMATCH) "" "%"')


def test_inbox_is_above_all_others(server: Server) -> None:
    r"""LIST says \HasChildren of it once there is any other folder, and SUBTREE of it means all."""
    client = server.log_in()
    ends_ok(client, b"CREATE INBOX.Work")
    assert told(client.ask(b'1 LIST "" "%"')) == [b'* LIST (\\HasChildren) "." "INBOX"']
    ends_ok(client, b"NOTIFY SET (subtree INBOX (MailboxName MessageNew MessageExpunge))")
    ends_ok(server.log_in(), b"CREATE INBOX.Work.New", b"APPEND INBOX.Work {1+}\r\nx")
    said = client.read()
    assert b'"INBOX.Work.New"' in said
    assert b'* STATUS "INBOX.Work" (MESSAGES 1' in said


def test_a_renamed_folder_is_told_with_both_names(server: Server) -> None:
    """RFC 5465 §5.4: OLDNAME too."""
    client = server.log_in()
    ends_ok(client, b"CREATE INBOX.Work", b"NOTIFY SET (personal (MailboxName))")
    ends_ok(server.log_in(), b"RENAME INBOX.Work INBOX.Play")
    said = client.read()
    assert b'"INBOX.Play" ("OLDNAME" ("INBOX.Work"))' in said


def test_others_mailboxes_are_without_it(tmp_path: Path) -> None:
    """Other users' and public namespaces keep their own prefixes, beside and in LIST, LSUB and ACL."""
    server = SharingServer(tmp_path, change=prefixed)
    alice, bob = server.log_in("alice"), server.log_in("bob")
    ends_ok(bob, b"CREATE INBOX.Team", b"SETACL INBOX.Team alice lrs")
    said = alice.ask(b"1 NAMESPACE")
    assert b'(("INBOX." ".")) (("shared." ".")) (("Public." "."))' in said
    ends_ok(alice, b"SELECT shared.bob.Team", b"SUBSCRIBE shared.bob.Team", b"CREATE Public.News")
    names = {line.rsplit(b" ", 1)[1] for line in told(alice.ask(b'2 LIST "" "*"'))}
    assert {b'"shared.bob.Team"', b'"Public.News"', b'"INBOX"'} <= names
    assert not [name for name in names if name.startswith((b'"INBOX.shared', b'"INBOX.Public'))]
    assert told(alice.ask(b'3 LSUB "" "shared.%"')) == [b'* LSUB (\\Noselect) "." "shared.bob"']
    assert {line.rsplit(b" ", 1)[1] for line in told(alice.ask(b'4 LIST "" "%"'))} == {
        b'"INBOX"', b'"shared"', b'"Public"'
    }  # fmt: skip
    assert b'"INBOX.Team"' in bob.ask(b"5 GETACL INBOX.Team")
    server.close()


def test_esearch_goes_down_the_tree_that_clients_see(server: Server) -> None:
    """All is below INBOX, and one level below it what stands beside it on the disk. RFC 7377 §2.2."""
    client = server.log_in()
    for name in (b"INBOX", b"INBOX.Work", b"INBOX.Work.2024"):
        ends_ok(client, b"CREATE " + name if name != b"INBOX" else b"NOOP", b"APPEND %b {4+}\r\na: b" % name)

    def named(sources: bytes) -> list[bytes]:
        answers = told(client.ask(b"x ESEARCH IN (%b) ALL" % sources))
        return [answer.split(b'"')[3] for answer in answers]

    assert named(b"subtree INBOX") == [b"INBOX", b"INBOX.Work", b"INBOX.Work.2024"]
    assert named(b"subtree-one INBOX") == [b"INBOX", b"INBOX.Work"]
    assert named(b"subtree INBOX.Work") == [b"INBOX.Work", b"INBOX.Work.2024"]
    assert named(b"mailboxes INBOX.Work") == [b"INBOX.Work"]
