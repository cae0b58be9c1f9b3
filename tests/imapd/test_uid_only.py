"""UIDONLY holds for every command there is. RFC 9586 §3."""

from __future__ import annotations

import re

import pytest

from mailserver.imapd.dispatch import HANDLERS
from mailserver.store.contract import NewMessage
from tests.imapd.harness import Server, message

ARGUMENTS = {
    "FETCH": b"1 FLAGS",
    "STORE": b"1 +FLAGS (\\Seen)",
    "COPY": b"1 INBOX",
    "MOVE": b"1 INBOX",
    "SEARCH": b"UID 1",
    "SORT": b"(ARRIVAL) UTF-8 UID 1",
    "THREAD": b"REFS UTF-8 UID 1",
    "REPLACE": b"1 INBOX {4+}\r\na: b",
    "EXPUNGE": b"",
}


def test_every_command_with_a_uid_form_is_known_here() -> None:
    """A new one must say here whether it names messages by number."""
    assert {name for name in HANDLERS if f"UID {name}" in HANDLERS} == set(ARGUMENTS)


@pytest.mark.parametrize("name", sorted(set(ARGUMENTS) - {"EXPUNGE"}))
def test_numbers_are_refused_and_nothing_happens(name: str) -> None:
    """BAD [UIDREQUIRED] for the command, OK for its UID form, which says no number."""
    server = Server()
    server.store.inbox.append([NewMessage(message(f"number {n}")) for n in range(3)])
    server.store.inbox.remove([1])
    client = server.select()
    client.ask(b"a ENABLE UIDONLY")
    before = dict(server.store.inbox.messages)
    line = b"%b %b" % (name.encode(), ARGUMENTS[name])
    assert client.ask(b"b " + line).startswith(b"b BAD [UIDREQUIRED] ")
    assert server.store.inbox.messages == before
    said = client.ask(b"c UID " + re.sub(rb"\b1 ", b"3 ", line))
    assert b"\r\nc OK " in b"\r\n" + said and not re.search(rb"\* \d+ (FETCH|EXPUNGE)", said)


@pytest.mark.parametrize("extensions", [b"UIDONLY", b"CONDSTORE UIDONLY", b"UIDONLY QRESYNC"])
def test_no_number_is_said_whatever_else_is_enabled(extensions: bytes) -> None:
    """Of flags that others changed and messages that others removed."""
    server = Server()
    server.store.inbox.append([NewMessage(message(f"number {n}")) for n in range(5)])
    client, other = server.select(), server.select()
    assert b"a OK" in client.ask(b"a ENABLE " + extensions)
    other.ask(b"a STORE 2,4 +FLAGS (\\Deleted)")
    said = client.ask(b"b NOOP")
    assert re.findall(rb"\* (\d+) UIDFETCH \(", said) == [b"2", b"4"] and b" FETCH" not in said
    other.ask(b"b EXPUNGE")
    said = client.ask(b"c NOOP")
    assert b"* VANISHED 2,4\r\n" in said and b"EXPUNGE" not in said
