"""A recorded dialogue is a transcript that comes true. See `record`."""

from __future__ import annotations

from mailserver.store.contract import NewMessage
from tests.imapd.harness import Server, message, play
from tests.imapd.record import SUBJECTS, transcript

CLIENT = (
    b"a LOGIN {5}\r\n", b"alice {6}\r\n", b"secret\r\n", b'b LIST "" *\r\nc SELECT INBOX\r\n',
    b"d UID FETCH 2 (INTERNALDATE BODY.PEEK[])\r\n", b"e APPEND INBOX {10+}\r\n", b"\r\n{3}\r\nx\r\n\r\n",
    b"f NOOP\r\n",
)  # fmt: skip


def test_what_was_recorded_comes_true() -> None:
    """Literals, pipelined commands, and what differs from store to store."""
    server = Server()
    server.store.inbox.append([NewMessage(message(subject)) for subject in SUBJECTS])
    client = server.connect()
    said = [("S", 1, client.read())]
    for data in CLIENT:
        said.append(("C", 1, data))
        client.feed(data)
        if answer := client.read():
            said.append(("S", 1, answer))
    text = transcript(said)
    assert "C: a LOGIN {{alice}} {{secret}}\n" in text
    assert 'INTERNALDATE "{[^"]*}"' in text
    play(text, Server())
