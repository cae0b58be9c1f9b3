"""FUZZY keys answer alike however they are answered. RFC 6203."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store.contract import NewMessage
from mailserver.store.layout import layout_for
from mailserver.store.registry import FileStoreRegistry
from tests.imapd.harness import Client, Server, message

WORDS = (
    "invoice",
    "invoices",
    "invioce",
    "Résumé",
    "resume",
    "Stromrechnung",
    "會議",
    "ab",
    "meeting",
    "break",
)
NEEDLES = (
    "invoice", "meetings", "resume", "résumé", "rechnung", "議", "ab", "abc", "break invoice", "breaking",
    "rn", "invoice resume meeting", "1", "!", "subject",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """INBOX and Work have the same dozens of messages."""
    yield from serving(tmp_path_factory.mktemp("fuzzy"))


@pytest.fixture
def unsearched(tmp_path: Path) -> Iterator[Server]:
    """The same, and nothing is in the text index."""
    yield from serving(tmp_path)


def serving(directory: Path) -> Iterator[Server]:
    os.makedirs(directory / "home")
    files = FileStoreRegistry(
        lambda account: layout_for(account, f"maildir:{directory}/home/Maildir"),
        str(directory / "state"),
        "host.example",
    )
    server = Server(registry=files)
    mixed = [
        (
            WORDS[n % len(WORDS)],
            f"{WORDS[n * 7 % len(WORDS)]} and {WORDS[n * 3 // 2 % len(WORDS)]}\r\n" * (n % 4),
        )
        for n in range(40)
    ]
    new = [
        NewMessage(
            message(subject, body).replace(
                b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n", 1
            )
        )
        for subject, body in mixed
    ]
    server.store.create("Work")
    for name in ("INBOX", "Work"):
        server.store.open(name).append(new)
    yield server
    files.shut()


def scored(client: Client, key: str, needle: str) -> bytes:
    text = needle.encode()
    line = b"x UID SEARCH RETURN (ALL RELEVANCY) CHARSET UTF-8 FUZZY %b {%d+}\r\n%b" % (
        key.encode(),
        len(text),
        text,
    )
    said = client.ask(line)
    assert b"x OK" in said, said
    return said


def test_the_index_changes_nothing(unsearched: Server) -> None:
    """What the trigrams leave out would have had no score."""
    client = unsearched.select()
    asked = [(key, needle) for key in ("TEXT", "BODY") for needle in NEEDLES]
    before = [scored(client, key, needle) for key, needle in asked]
    unsearched.store._texts.wait()
    box = unsearched.store.open("INBOX")
    assert not box.search_text(box.uids, "x", True)[1], "all is in the index"
    assert [scored(client, key, needle) for key, needle in asked] == before
    assert sum(b"RELEVANCY" in said for said in before) > len(asked) // 2


@pytest.mark.parametrize("key", ["TEXT", "SUBJECT"])
def test_what_an_exact_search_finds_is_found(server: Server, key: str) -> None:
    """An exact answer is a part of the fuzzy one."""
    client = server.select()
    for needle in NEEDLES:
        text = needle.encode()
        exact = client.ask(b"x UID SEARCH CHARSET UTF-8 %b {%d+}\r\n%b" % (key.encode(), len(text), text))
        found = client.ask(
            b"x UID SEARCH CHARSET UTF-8 FUZZY %b {%d+}\r\n%b" % (key.encode(), len(text), text)
        )
        numbers = [set(said.partition(b"\r\n")[0].split()[2:]) for said in (exact, found)]
        assert numbers[0] <= numbers[1], needle


PROGRAMS = (
    b"ALL", b"SEEN", b"SUBJECT invoice", b"NOT BODY invoice", b"OR 3:5 TEXT meeting", b"UID 7:* LARGER 300",
    b"FUZZY TEXT invoice", b"RECENT", b"SENTSINCE 1-Jan-1990 2", b"EMAILID x",
    b"SAVEDSINCE 1-Jan-2020 FROM alice", b"OLDER 1", b"HEADER Message-ID invoice",
)  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_esearch_finds_what_search_finds(server: Server, program: bytes) -> None:
    """The mailbox may be selected, named, or one of all. RFC 7377 §2."""
    client = server.log_in()
    client.ask(b"a EXAMINE Work")
    selected = client.ask(b"x UID SEARCH RETURN (ALL) " + program).partition(b"\r\n")[0]
    asked = [
        client.ask(b"x ESEARCH IN (%b) %b" % (sources, program)) for sources in (b"selected", b"personal")
    ]
    client.ask(b"a UNSELECT")
    asked.append(client.ask(b"x ESEARCH IN (mailboxes Work) " + program))
    for said in asked:
        lines = [line for line in said.split(b"\r\n") if b'"Work"' in line]
        assert [line.partition(b" UID ")[2] for line in lines] == [selected.partition(b" UID ")[2]] * bool(
            b"ALL" in selected
        )
