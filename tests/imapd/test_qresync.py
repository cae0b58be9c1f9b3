"""What a client that reconnects must not miss, whatever happened at which moment. RFC 7162 §3.2."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mailserver.store.contract import Mailbox, NewMessage, StoreMode, Uid
from tests.imapd.harness import Client, Server, message

_SEEN = frozenset([b"\\Seen"])


def server_with_mail() -> Server:
    server = Server()
    server.store.inbox.append([NewMessage(message(subject)) for subject in ("one", "two", "three")])
    return server


def resynchronising(server: Server) -> Client:
    client = server.log_in()
    client.ask(b"a ENABLE QRESYNC")
    return client


def number_after(word: bytes, said: bytes) -> int:
    """The last number that was told with the word."""
    return int(re.findall(rb"\b%b \(?(\d+)" % word, said)[-1])


def vanished_since(server: Server, modseq: int) -> bytes:
    """What a client is told that comes back with the modseq."""
    uidvalidity = server.store.inbox.uidvalidity
    said = resynchronising(server).ask(b"b SELECT INBOX (QRESYNC (%d %d))" % (uidvalidity, modseq))
    return b"".join(re.findall(rb"\* VANISHED \(EARLIER\) ([\d:,]+)", said))


def at_the_next_question(mailbox: Mailbox, before: Callable[[], Any], after: Callable[[], Any]) -> None:
    """Things happen just before and just after somebody asks the mailbox for changes."""
    ask = mailbox.changes_since

    def answer(modseq: Any) -> Any:
        mailbox.changes_since = ask  # type: ignore[method-assign]
        before()
        changes = ask(modseq)
        after()
        return changes

    mailbox.changes_since = answer  # type: ignore[method-assign]


def nothing() -> None: ...


def test_modseqs_do_not_pass_an_expunge_that_is_held_back() -> None:
    """HIGHESTMODSEQ counts for more than MODSEQ, and stays low until VANISHED is told. RFC 7162 §3.2, §6."""
    server = server_with_mail()
    client = resynchronising(server)
    client.ask(b"b SELECT INBOX")
    server.store.inbox.remove([Uid(1)])
    for command in (b"c STORE 2 +FLAGS (\\Flagged)", b"d FETCH 2 (MODSEQ)"):
        said = client.ask(command)
        assert b"VANISHED" not in said
        assert number_after(b"HIGHESTMODSEQ", said) < number_after(b"MODSEQ", said)
        assert vanished_since(server, number_after(b"HIGHESTMODSEQ", said)) == b"1"
    said = client.ask(b"e NOOP")
    assert b"* VANISHED 1\r\n" in said
    assert number_after(b"HIGHESTMODSEQ", said) == server.store.inbox.highest_modseq


def test_what_is_told_of_flags_is_not_newer_than_what_is_known_of_expunges() -> None:
    """A message that changes while changes are told may have a modseq above an expunge's. RFC 7162 §3.2."""
    server = server_with_mail()
    inbox = server.store.inbox
    client = resynchronising(server)
    client.ask(b"b SELECT INBOX")
    inbox.change_flags([Uid(2)], _SEEN, StoreMode.ADD)

    def happen() -> None:
        inbox.remove([Uid(1)])
        inbox.change_flags([Uid(2)], _SEEN, StoreMode.REMOVE)

    at_the_next_question(inbox, nothing, happen)
    said = client.ask(b"c FETCH 3 (UID)")
    assert b"* 2 FETCH (UID 2 MODSEQ (%d)" % inbox.messages[Uid(2)].modseq in said
    assert vanished_since(server, number_after(b"HIGHESTMODSEQ", said)) == b"1"


def test_what_happens_during_select_is_left_to_the_next_command() -> None:
    """VANISHED (EARLIER) says nothing of messages that EXISTS counts. RFC 7162 §3.2.5."""
    server = server_with_mail()
    inbox = server.store.inbox
    start = inbox.highest_modseq
    client = resynchronising(server)

    def happen() -> None:
        inbox.remove([Uid(2)])
        inbox.change_flags([Uid(3)], _SEEN, StoreMode.ADD)

    at_the_next_question(inbox, happen, nothing)
    said = client.ask(b"b SELECT INBOX (QRESYNC (%d %d))" % (inbox.uidvalidity, start))
    assert b"* 3 EXISTS\r\n" in said
    assert b"VANISHED" not in said
    assert b"FETCH" not in said
    said = client.ask(b"c NOOP")
    assert b"* VANISHED 2\r\n" in said
    assert b"* 2 FETCH (UID 3 MODSEQ (" in said
