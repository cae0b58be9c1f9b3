"""ESEARCH when things go wrong beside it: slow, broken and vanishing mailboxes. RFC 7377."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from mailserver.store.contract import MailboxBusy, NewMessage
from tests.imapd.harness import Client, Server, message
from tests.imapd.sharing import SharingServer
from tests.imapd.test_slow_store import SlowThreads

NAMES = (b"INBOX", b"One", b"Two", b"Three")
_TOLD = re.compile(rb'\* ESEARCH \(TAG "x" MAILBOX "(\w+)" UIDVALIDITY \d+\) UID ALL ([\d:,]+)\r\n')


def filled(server: Server) -> None:
    """Each of the mailboxes has a message."""
    store = server.store
    for name in NAMES:
        if name != b"INBOX":
            store.create(name.decode())
        store.mailboxes[name.decode()].append([NewMessage(message("plan"))])


def slow() -> tuple[Server, Client, SlowThreads]:
    threads = SlowThreads()
    server = Server(threads=threads)
    filled(server)
    client = server.connect()
    client.feed(b"a LOGIN alice secret\r\n")
    threads.work()
    client.read()
    return server, client, threads


def test_each_mailbox_is_told_as_soon_as_it_is_searched() -> None:
    """The answer about the first mailbox does not wait for the last; one mailbox at a time is open."""
    server, client, threads = slow()
    client.send(b"x ESEARCH IN (personal) BODY hi")
    told, opened = [], 0
    while threads.waiting:
        threads.waiting.pop(0)()
        told.append(len(_TOLD.findall(client.read())))
        opened = max(opened, sum(box.users for box in server.store.mailboxes.values()))
    assert sum(told) == len(NAMES) and max(told) == 1 and opened == 1


def test_whoever_leaves_early_leaves_nothing_behind() -> None:
    """At every step the search ends soon after its client, and the mailboxes are given back."""
    for steps in range(16):
        server, client, threads = slow()
        client.send(b"x ESEARCH IN (personal) BODY hi")
        for _ in range(steps):
            if threads.waiting:
                threads.waiting.pop(0)()
        client.transport.close()
        for box in server.store.mailboxes.values():
            box.reads = 0
        threads.work()
        boxes = server.store.mailboxes.values()
        assert not any(box.users or box.listeners for box in boxes), steps
        assert sum(box.reads for box in boxes) <= 1, steps


def test_a_local_fault_is_no_empty_mailbox() -> None:
    """What the other mailboxes have is told, and the command ends with NO: nobody takes it for all."""
    server = Server()
    filled(server)
    server.store.mailboxes["One"].fail_with = MailboxBusy("locked")
    said = server.log_in().ask(b"x ESEARCH IN (personal) BODY hi")
    assert {name for name, _ in _TOLD.findall(said)} == set(NAMES) - {b"One"}
    assert b"\r\nx NO [UNAVAILABLE] " in said


def test_a_mailbox_that_goes_meanwhile_is_passed_over() -> None:
    """Deleted after it was listed: as if it had never been there."""
    server, client, threads = slow()
    client.send(b"x ESEARCH IN (personal) BODY hi")
    threads.waiting.pop(0)()
    server.store.delete("Two")
    threads.work()
    said = client.read()
    assert {name for name, _ in _TOLD.findall(said)} == set(NAMES) - {b"Two"} and b"\r\nx OK " in said


def test_no_message_is_read_where_the_figures_suffice(tmp_path: Path) -> None:
    """A mailbox at rest without unseen messages stays at rest when unseen ones are looked for."""
    server = SharingServer(tmp_path)
    client = server.log_in()
    client.ask(b"a CREATE Old")
    client.ask(b"b APPEND Old (\\Seen) {4+}\r\na: b")
    for command in (b"c SELECT Old", b"d FETCH 1 RFC822.SIZE", b"e UNSELECT"):
        client.ask(command)
    for directory in ("new", "cur"):
        path = Path(server.people["alice"].home, "Maildir", ".Old", directory)
        os.utime(path, (time.time() - 100, time.time() - 100))
    for command in (b"f EXAMINE Old", b"g UNSELECT"):
        client.ask(command)
    client.transport.close()
    server.close()
    server = SharingServer(tmp_path)
    client = server.log_in()
    assert client.ask(b"x ESEARCH IN (mailboxes Old) UNSEEN 1:*") == b"x OK Search completed.\r\n"
    store = server.files.open(server.people["alice"])
    assert store.open("Old").sleeping is not None
    assert b"UID ALL 1\r\n" in client.ask(b"y ESEARCH IN (mailboxes Old) SEEN")
    server.close()


def test_a_right_taken_back_during_the_search(tmp_path: Path) -> None:
    """What was found is not told to who may no longer read it, whenever that was; the rest is. §5."""
    server = SharingServer(tmp_path)
    threads = SlowThreads()
    slow_server = Server(registry=server.sharing, threads=threads)
    slow_server.logins.accounts.update(server.people)
    alice, bob = server.log_in(), server.log_in("bob")
    for client in (alice, bob):
        client.ask(b"a APPEND INBOX {15+}\r\nSubject: plan\r\n")
    for steps in range(12):
        alice.ask(b"b SETACL INBOX bob lr")
        client = slow_server.connect()
        client.feed(b"a LOGIN bob secret\r\n")
        threads.work()
        client.read()
        client.send(b"x ESEARCH IN (mailboxes (shared/alice/INBOX INBOX)) SUBJECT plan")
        for _ in range(steps):
            if threads.waiting:
                threads.waiting.pop(0)()
        before = client.read()
        alice.ask(b"c SETACL INBOX bob l")
        threads.work()
        said = client.read()
        assert b"shared" not in said and b"x OK" in before + said, (steps, said)
        assert b'MAILBOX "INBOX"' in before + said
        client.transport.close()
    assert b"shared" in before
    server.close()
