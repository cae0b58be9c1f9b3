"""STATUS that is asked again in the same words is answered as before only while that is the truth.

Over real stores; each test first makes sure that the answer is one that is kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imapd.harness import Client, message
from tests.imapd.sharing import LOCATIONS, SharingServer

WORDS = b"STATUS Work (MESSAGES UNSEEN UIDNEXT RECENT HIGHESTMODSEQ)"


@pytest.fixture(params=LOCATIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharingServer]:
    """Alice has a mailbox Work with one message."""
    served = SharingServer(tmp_path, request.param)
    client = served.log_in()
    client.ask(b"a CREATE Work")
    append(client)
    yield served
    served.close()


def append(client: Client, folder: bytes = b"Work") -> None:
    """A message more in the folder."""
    content = message()
    assert b" OK [APPENDUID" in client.ask(b"a APPEND %b {%d+}\r\n%b" % (folder, len(content), content))


def is_kept(client: Client, words: bytes = WORDS) -> bool:
    """Whether the session would answer the words from what it keeps."""
    session = client.protocol._session
    return session is not None and session.recall.answer(b"x %b\r\n" % words) is not None


def asked_often(client: Client, words: bytes = WORDS) -> bytes:
    """The answer's line, once it is kept: a maildir that changed just now is not trusted yet."""
    end = time.monotonic() + 30
    first = client.ask(b"s1 " + words).partition(b"s1 OK Status completed.\r\n")[0]
    while not is_kept(client, words) and time.monotonic() < end:
        time.sleep(0.02)
        client.ask(b"s2 " + words)
    assert client.ask(b"s3 " + words) == first + b"s3 OK Status completed.\r\n"
    return first


def test_new_messages_and_flags_count(server: SharingServer) -> None:
    """What another session does to the mailbox is in the next answer. RFC 3501 §6.3.10."""
    client, other = server.log_in(), server.log_in()
    assert b"MESSAGES 1 UNSEEN 1 UIDNEXT 2 " in asked_often(client)
    append(other)
    assert b"MESSAGES 2 UNSEEN 2 UIDNEXT 3 " in asked_often(client)
    other.ask(b"b SELECT Work")
    assert b"RECENT 0 " in asked_often(client)
    other.ask(b"c STORE 1 +FLAGS (\\Seen)")
    assert b"MESSAGES 2 UNSEEN 1 UIDNEXT 3 " in asked_often(client)


def test_what_another_program_delivers_counts(server: SharingServer) -> None:
    """Nobody tells us of it: the mailbox itself is looked at each time."""
    client = server.log_in()
    asked_often(client)
    home = Path(server.people["alice"].home)
    if "mbox" in str(server.files._layout_for(server.people["alice"]).kind).lower():
        with (home / "mail" / "Work").open("ab") as file:
            file.write(b"From a@b Mon Feb  7 21:52:25 1994\nSubject: new\n\nHi.\n\n")
    else:
        (new,) = (each for each in home.rglob("new") if "Work" in str(each))
        (new / "1700000000.M1P1.other").write_bytes(b"Subject: new\n\nHi.\n")
    assert b"MESSAGES 2 " in asked_often(client)


def test_a_mailbox_that_is_gone_is_not_answered_for(server: SharingServer) -> None:
    """Nor is one that has got another name."""
    client, other = server.log_in(), server.log_in()
    asked_often(client)
    other.ask(b"a RENAME Work Play")
    assert b"t NO " in client.ask(b"t " + WORDS)
    other.ask(b"a RENAME Play Work")
    asked_often(client)
    other.ask(b"a DELETE Work")
    assert b"t NO " in client.ask(b"t " + WORDS)


def test_an_acl_is_looked_at_each_time(server: SharingServer) -> None:
    """A mailbox that got an ACL is behind the gate from then on. RFC 4314 §4."""
    client, other = server.log_in(), server.log_in()
    asked_often(client)
    assert b"a OK" in other.ask(b"a SETACL Work bob lr")
    assert not is_kept(client)
    assert b"t OK" in client.ask(b"t " + WORDS)


def test_names_are_told_as_the_client_enabled(server: SharingServer) -> None:
    """ENABLE UTF8=ACCEPT changes how names travel. RFC 6855 §3."""
    client = server.log_in()
    client.ask(b"a CREATE Gr&APwA3w-e")
    words = b"STATUS Gr&APwA3w-e (MESSAGES)"
    asked_often(client, words)
    client.ask(b"a ENABLE UTF8=ACCEPT")
    assert not is_kept(client, words)


def test_octets_of_a_literal_are_no_command(server: SharingServer) -> None:
    """A message whose lines are such a command is a message. RFC 3501 §4.3."""
    client = server.log_in()
    asked_often(client)
    command = b"x " + WORDS + b"\r\n"
    client.read()
    client.feed(b"a APPEND Work {%d+}\r\n" % len(command))
    client.feed(command)
    client.feed(b"\r\n")
    assert client.read().startswith(b"a OK [APPENDUID ")


def test_the_selected_mailbox_is_told_of_too(server: SharingServer) -> None:
    """A command's answer tells what happened to the selected mailbox. RFC 3501 §5.2."""
    client, other = server.log_in(), server.log_in()
    client.ask(b"a ENABLE CONDSTORE")
    client.ask(b"a SELECT INBOX")
    asked_often(client)
    append(other, b"INBOX")
    assert b"* 1 EXISTS\r\n" in client.ask(b"t " + WORDS)


def test_a_tag_is_judged_as_ever(server: SharingServer) -> None:
    """BAD for what is no tag; what comes together is answered in order."""
    client = server.log_in()
    asked_often(client)
    assert b" BAD " in client.ask(b"{1} " + WORDS)
    both = client.ask(b"t1 %b\r\nt2 %b" % (WORDS, WORDS))
    assert both.index(b"t1 OK") < both.index(b"t2 OK")


def test_a_rawlog_hears_all(server: SharingServer) -> None:
    """Where somebody listens, nothing is answered apart."""
    client = server.log_in()
    asked_often(client)
    heard: list[bytes] = []
    client.protocol._input.tap(heard.append)
    client.ask(b"t " + WORDS)
    assert b"".join(heard) == b"t " + WORDS + b"\r\n"
