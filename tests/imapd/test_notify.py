"""NOTIFY's limits, and what it holds. The dialogue is in transcripts/imap/notify.txt. RFC 5465."""

from __future__ import annotations

import re

import pytest

from mailserver.imapd.notify import MOST_WATCHED
from mailserver.store.contract import NewMessage, Quota
from tests.imapd.harness import Client, Server, message

ALL = b"NOTIFY SET (personal (MessageNew MessageExpunge MailboxName))"


@pytest.fixture
def server() -> Server:
    return Server()


def listeners(server: Server, name: str) -> int:
    return len(server.store.open(name).listeners)


def arrive(server: Server, name: str, count: int = 1) -> None:
    server.store.open(name).append([NewMessage(message()) for _ in range(count)])


def test_a_session_that_ends_watches_nothing(server: Server) -> None:
    """Whether by LOGOUT or by a lost connection."""
    server.store.create("box")
    for end in (lambda client: client.send(b"z LOGOUT"), lambda client: client.transport.close()):
        client = server.log_in()
        assert b"OK NOTIFY" in client.ask(b"a " + ALL)
        assert listeners(server, "box") == 1
        end(client)
        assert listeners(server, "box") == 0
    arrive(server, "box")


def test_notify_none_and_unauthenticate_end_it(server: Server) -> None:
    """RFC 5465 §3.1, RFC 8437 §4.1."""
    server.store.create("box")
    client = server.log_in()
    for end in (b"b NOTIFY NONE", b"c UNAUTHENTICATE"):
        client.ask(b"a " + ALL)
        client.ask(end)
        assert listeners(server, "box") == 0
        arrive(server, "box")
        assert client.read() == b""


def test_new_messages_are_told_with_their_modseq(server: Server) -> None:
    """RFC 7162 §3.2.4: UID and MODSEQ in every FETCH once CONDSTORE is in force."""
    client = server.select()
    client.ask(b"a ENABLE QRESYNC")
    client.ask(b"b NOTIFY SET (selected (MessageNew (FLAGS) MessageExpunge))")
    arrive(server, "INBOX")
    assert re.search(rb"\* 1 FETCH \(UID 1 FLAGS \(\\Recent\) MODSEQ \(\d+\)\)\r\n", client.read())
    server.store.open("INBOX").remove([1])
    assert client.read() == b"* VANISHED 1\r\n* 0 RECENT\r\n"


def test_too_many_mailboxes_are_refused(server: Server) -> None:
    """RFC 5465 §3.1: NO [NOTIFICATIONOVERFLOW], with nothing held and what was in force still so."""
    server.store.create("box")
    client = server.log_in()
    client.ask(b"a NOTIFY SET (mailboxes box (MessageNew MessageExpunge))")
    for number in range(MOST_WATCHED):
        server.store.create(f"box{number}")
    assert client.ask(b"b " + ALL).startswith(b"b NO [NOTIFICATIONOVERFLOW] ")
    assert listeners(server, "box") == 1 and listeners(server, "box1") == 0
    arrive(server, "box")
    assert client.read() == b'* STATUS "box" (MESSAGES 1 UIDNEXT 2)\r\n'


def test_a_client_that_does_not_read_hears_of_the_overflow(server: Server) -> None:
    """RFC 5465 §5.8: nothing piles up for it."""
    server.store.create("box")
    client = server.select()
    arrive(server, "INBOX", 3000)
    client.ask(b"a " + ALL)
    client.transport.is_reading = False
    client.send(b"b FETCH 1:* (FLAGS UID INTERNALDATE RFC822.SIZE ENVELOPE)")
    for _ in range(100):
        arrive(server, "box")
    client.transport.read_on()
    said = client.read()
    assert said.count(b"* OK [NOTIFICATIONOVERFLOW] ") == 1
    assert said.count(b"* STATUS ") == 0
    arrive(server, "box")
    assert b"STATUS" not in client.ask(b"c NOOP")


def test_another_accounts_names_stay_unknown(server: Server) -> None:
    """Watches are the account store's, and no other store's."""
    client = server.log_in()
    client.ask(b"a " + ALL)
    other: Client = server.log_in()
    other.protocol._session.store = type(server.store)()  # as another account's would be
    other.ask(b"a CREATE secret")
    assert client.read() == b""


def test_limits_are_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9208 §4.2.1: only what is limited, STORAGE in units of 1024 octets."""
    monkeypatch.setattr(server.store, "quota", lambda: Quota(1500, 2, 10_240, 0))
    client = server.log_in()
    assert client.ask(b'a GETQUOTA "User quota"').startswith(b'* QUOTA "User quota" (STORAGE 2 10)\r\n')
    monkeypatch.setattr(server.store, "quota", lambda: Quota(1500, 2, 0, 7))
    assert client.ask(b'a GETQUOTA "User quota"').startswith(b'* QUOTA "User quota" (MESSAGE 2 7)\r\n')


def test_names_that_other_processes_change_are_found(server: Server) -> None:
    """Within the poll's interval: made, renamed, subscribed; new ones are watched too. §5.4, §5.5."""
    server.store.create("old")
    client = server.log_in()
    client.ask(b"a NOTIFY SET (personal (MessageNew MessageExpunge MailboxName SubscriptionChange))")
    interval = server.settings.poll_interval
    server.store.create("box/child")
    server.clock.advance(interval)
    assert sorted(client.read().split(b"\r\n")) == [
        b"",
        b'* LIST (\\HasChildren) "/" "box"',
        b'* LIST (\\HasNoChildren) "/" "box/child"',
    ]
    server.clock.advance(interval)
    assert client.read() == b""
    arrive(server, "box/child")
    assert b'* STATUS "box/child" (MESSAGES 1 ' in client.read()
    server.store.rename("old", "new")
    server.store.set_subscribed("box/child", True)
    server.clock.advance(interval)
    said = client.read()
    assert b'* LIST (\\HasNoChildren) "/" "new"\r\n' in said
    assert b'* LIST (\\NonExistent \\HasNoChildren) "/" "old"\r\n' in said
    assert b'* LIST (\\HasNoChildren \\Subscribed) "/" "box/child"\r\n' in said
    client.ask(b"b CREATE mine")
    server.clock.advance(interval)
    assert client.read() == b""
    client.send(b"c LOGOUT")
    assert not any(
        call.getTime() - server.clock.seconds() == interval for call in server.clock.getDelayedCalls()
    )
