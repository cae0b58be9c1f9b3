"""A store that takes its time: commands wait for each other, and for nobody who has left."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.store.contract import NewMessage
from tests.imapd.harness import Server, message


class SlowThreads:
    """`Threads` whose work is done when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def run(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def work() -> None:
            try:
                done.callback(function(*arguments, **named))
            except Exception as fault:
                done.errback(fault)

        self.waiting.append(work)
        return done

    def work(self) -> None:
        """All that waits is done, and what comes of it."""
        while self.waiting:
            self.waiting.pop(0)()


def test_pipelined_commands_are_answered_in_order() -> None:
    """SELECT, FETCH, LOGOUT in one segment (twisted: BAD, since SELECT is not done yet)."""
    threads = SlowThreads()
    server = Server(threads=threads)
    server.store.inbox.append([NewMessage(message())])
    client = server.connect()
    client.feed(b"a LOGIN alice secret\r\nb SELECT INBOX\r\nc FETCH 1 RFC822.SIZE\r\nd LOGOUT\r\n")
    assert b"a OK" not in client.read()
    threads.work()
    said = client.read()
    assert re.findall(rb"^(\w) OK", said, re.MULTILINE) == [b"a", b"b", b"c", b"d"]
    assert said.index(b"c OK") < said.index(b"* BYE")


def test_whoever_leaves_early_leaves_nothing_behind() -> None:
    """At every step of every command: mailbox, listener and store are given back."""
    for steps in range(12):
        threads = SlowThreads()
        server = Server(threads=threads)
        client = server.connect()
        client.feed(
            b"a LOGIN alice secret\r\nb SELECT INBOX\r\nc APPEND INBOX {5+}\r\nhello\r\n"
            b"d FETCH 1 BODY[]\r\ne COPY 1 INBOX\r\nf NOOP\r\n"
        )
        for _ in range(steps):
            if threads.waiting:
                threads.waiting.pop(0)()
        client.transport.close()
        threads.work()
        store = server.registry.stores.get("alice")
        assert store is None or not (store.users or store.inbox.users or store.inbox.listeners), steps


def test_a_change_during_a_search_is_told_afterwards() -> None:
    """New mail that comes while SEARCH reads: EXISTS before its OK, the numbers unmoved."""
    threads = SlowThreads()
    server = Server(threads=threads)
    inbox = server.store.inbox
    inbox.append([NewMessage(message("one")), NewMessage(message("two"))])
    client = server.connect()
    client.feed(b"a LOGIN alice secret\r\nb SELECT INBOX\r\n")
    threads.work()
    client.read()
    client.send(b"c SEARCH SUBJECT two")
    inbox.append([NewMessage(message("two"))])
    inbox.remove([1])
    threads.work()
    assert client.read() == b"* SEARCH 2\r\n* 3 EXISTS\r\n* 3 RECENT\r\nc OK Search completed.\r\n"
    client.send(b"d NOOP")
    threads.work()
    assert client.read() == b"* 1 EXPUNGE\r\n* 2 RECENT\r\nd OK NOOP completed.\r\n"
