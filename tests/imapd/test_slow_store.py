"""A store that takes its time: commands wait for each other, and for nobody who has left."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.store.contract import Mailbox, NewMessage, StoreMode, Uid
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
    assert (
        client.read()
        == b"* SEARCH 2\r\n* 3 EXISTS\r\n* 3 RECENT\r\nc OK [EXPUNGEISSUED] Search completed.\r\n"
    )
    client.send(b"d NOOP")
    threads.work()
    assert client.read() == b"* 1 EXPUNGE\r\n* 2 RECENT\r\nd OK NOOP completed.\r\n"


def at_the_next_claim(inbox: Mailbox, happen: Callable[[], object]) -> None:
    r"""Something happens just after a session claimed what is \Recent."""
    claim = inbox.claim_recent

    def claim_first() -> range:
        inbox.claim_recent = claim  # type: ignore[method-assign]
        claimed = claim()
        happen()
        return claimed

    inbox.claim_recent = claim_first  # type: ignore[method-assign]


def test_what_comes_during_select_is_recent_to_one_session() -> None:
    r"""Whoever is told of a message first has it as \Recent, and nobody else. RFC 3501 §2.3.2."""
    server = Server()
    inbox = server.store.inbox
    inbox.append([NewMessage(message("one"))])
    at_the_next_claim(inbox, lambda: inbox.append([NewMessage(message("late"))]))
    said = server.log_in().ask(b"a SELECT INBOX")
    assert b"* 2 EXISTS\r\n" in said
    assert b"* 2 RECENT\r\n" in said
    assert b"* 0 RECENT\r\n" in server.log_in().ask(b"b SELECT INBOX")


def test_what_comes_while_new_mail_is_told_is_recent_too() -> None:
    r"""A message is \Recent to the session that claimed it, though it hears of it later. RFC 3501 §2.3.2."""
    server = Server()
    inbox = server.store.inbox
    client = server.log_in()
    client.ask(b"a SELECT INBOX")
    inbox.append([NewMessage(message("one"))])
    at_the_next_claim(inbox, lambda: inbox.append([NewMessage(message("late"))]))
    assert client.ask(b"b NOOP") == b"* 1 EXISTS\r\n* 1 RECENT\r\nb OK NOOP completed.\r\n"
    assert client.ask(b"c NOOP") == b"* 2 EXISTS\r\n* 2 RECENT\r\nc OK NOOP completed.\r\n"


def test_a_keyword_is_introduced_before_it_is_used() -> None:
    """FLAGS comes before a FETCH with a keyword that another session made meanwhile. RFC 3501 §7.2.6."""
    threads = SlowThreads()
    server = Server(threads=threads)
    inbox = server.store.inbox
    inbox.append([NewMessage(message("one"))])
    client = server.connect()
    client.feed(b"a LOGIN alice secret\r\nb SELECT INBOX\r\n")
    threads.work()
    client.read()
    client.send(b"c FETCH 1 (FLAGS RFC822.SIZE)")
    inbox.change_flags([Uid(1)], frozenset([b"fetched"]), StoreMode.ADD)
    threads.work()
    said = client.read()
    assert 0 <= said.index(b"* FLAGS ") < re.search(rb"FETCH .*fetched", said).start()  # type: ignore[union-attr]
    inbox.change_flags([Uid(1)], frozenset([b"\\Seen"]), StoreMode.ADD)
    inbox.append([NewMessage(message("two"))])
    told = frozenset([b"told"])
    at_the_next_claim(inbox, lambda: inbox.change_flags([Uid(1)], told, StoreMode.ADD))
    client.send(b"d NOOP")
    threads.work()
    said = client.read()
    assert 0 <= said.index(b"* FLAGS ") < re.search(rb"FETCH .*told", said).start()  # type: ignore[union-attr]
