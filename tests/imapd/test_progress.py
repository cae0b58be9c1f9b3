"""INPROGRESS: a long command says how far it has come. RFC 9585."""

from __future__ import annotations

import re

import pytest

from mailserver.store.contract import NewMessage
from tests.imapd.harness import Client, Server, message
from tests.imapd.test_slow_store import SlowThreads

COUNT = 450  # more than two batches of a search


def slow() -> tuple[Server, Client, SlowThreads]:
    """A client whose INBOX of `COUNT` messages answers when the test wants."""
    threads = SlowThreads()
    server = Server(threads=threads)
    server.store.inbox.append([NewMessage(message(f"number {n}")) for n in range(COUNT)])
    client = server.connect()
    client.feed(b"a LOGIN alice secret\r\nb SELECT INBOX\r\n")
    threads.work()
    client.read()
    return server, client, threads


def test_a_search_tells_its_figures() -> None:
    """Tag, messages read and messages to be read, once in ten seconds, the goal always above."""
    server, client, threads = slow()
    client.send(b"c SEARCH BODY nowhere")
    told = []
    while threads.waiting:
        server.clock.advance(10)
        told.append(client.read())
        threads.waiting.pop(0)()
        server.clock.advance(0)
    figures = [re.fullmatch(rb'\* OK \[INPROGRESS \("c" (\d+) (\d+)\)\] .*\r\n', line) for line in told]
    assert [(int(found[1]), int(found[2])) for found in figures if found] == [
        (0, COUNT), (0, COUNT), (200, COUNT), (400, COUNT)
    ]  # fmt: skip
    assert client.read().endswith(b"c OK Search completed.\r\n")


def test_several_keys_count_together() -> None:
    """NOT, OR and lists: the figures never fall, and never reach the goal."""
    server, client, threads = slow()
    client.send(b"c SEARCH OR BODY nowhere NOT SUBJECT number (SENTON 1-Jan-2000 LARGER 5)")
    told = b""
    while threads.waiting:
        server.clock.advance(10)
        told += client.read()
        threads.waiting.pop(0)()
        server.clock.advance(0)
    figures = [(int(done), int(goal)) for done, goal in re.findall(rb'\("c" (\d+) (\d+)\)', told)]
    assert figures == sorted(figures) and all(done < goal == 4 * COUNT for done, goal in figures)


@pytest.mark.parametrize(
    "command",
    [b"SORT (SUBJECT) UTF-8 ALL", b"THREAD REFERENCES UTF-8 ALL", b"UID COPY 1:* other", b"EXPUNGE"],
)
def test_one_long_piece_of_work(command: bytes) -> None:
    """The client hears within ten seconds, and no more after the command's end."""
    server, client, threads = slow()
    client.feed(b"b CREATE other\r\n")
    threads.work()
    client.read()
    client.send(b"c " + command)
    server.clock.advance(9)
    assert client.read() == b""
    server.clock.advance(1)
    assert re.fullmatch(rb'\* OK \[INPROGRESS \("c" (0 %d|NIL NIL)\)\] .*\r\n' % COUNT, client.read())
    threads.work()
    assert b"\r\nc OK " in b"\r\n" + client.read()
    server.clock.advance(60)
    assert client.read() == b""


def test_short_commands_say_nothing() -> None:
    """What is done at once leaves no timer behind."""
    server = Server()
    client = server.select()
    before = len(server.clock.getDelayedCalls())
    assert b"INPROGRESS" not in client.ask(b"c SEARCH TEXT x")
    assert len(server.clock.getDelayedCalls()) == before


def test_a_client_that_left_is_told_nothing() -> None:
    """The connection is gone while the store still works."""
    server, client, threads = slow()
    client.send(b"c SORT (SUBJECT) UTF-8 ALL")
    client.transport.close()
    server.clock.advance(30)
    threads.work()
    assert client.read() == b"" and not server.clock.getDelayedCalls()
