"""A mailbox that sleeps says what it would say awake, and wakes in time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.imapd.selected import Selected
from mailserver.store.contract import DELETED, FLAGGED, SEEN, Mailbox, MailboxReplaced, Modseq, StoreMode
from tests.imapd.harness import Server
from tests.store.contract_suite import FIRST, SECOND, flags
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness, let_time_pass

THIRD = b"Subject: third\r\n\r\n3\r\n"


@pytest.fixture(params=[MaildirHarness, MboxHarness])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileHarness]:
    """INBOX has three messages, 1 seen and 3 flagged, that nobody calls recent; the server was restarted."""
    made = request.param(tmp_path)
    for content in (FIRST, SECOND, THIRD):
        made.deliver(content)
    box = made.store.open("INBOX")
    box.claim_recent()
    box.sizes(box.uids)
    box.change_flags(box.uids[:1], flags(SEEN), StoreMode.ADD)
    box.change_flags(box.uids[2:], flags(FLAGGED), StoreMode.ADD)
    _settle(made, box)
    yield made
    made.registry.shut()


def _settle(harness: FileHarness, box: Mailbox) -> None:
    """The mailbox is closed, its figures kept; the server starts anew."""
    harness.store.close(box)
    let_time_pass(harness)
    harness.store.close(harness.store.open("INBOX"))
    harness.restart()


def _change(harness: FileHarness, statement: str) -> None:
    with sqlite3.connect(harness.state_path / "state.db") as db:
        assert db.execute(statement).rowcount == 1
    db.close()


def test_a_mailbox_that_nobody_touched_is_opened_without_its_messages(harness: FileHarness) -> None:
    """What SELECT and STATUS say is known; the messages are there when they are asked for."""
    box = harness.store.open("INBOX")
    asleep, figures = box.sleeping, harness.store.status("INBOX", with_size=True)
    assert asleep is not None and box.is_current()
    assert (asleep.messages, asleep.unseen, asleep.first_unseen, asleep.uidnext) == (3, 2, 2, 4)
    assert harness.store.status_at_once("INBOX", with_size=True) == figures
    assert box.sleeping is asleep
    assert list(box.uids) == list(asleep.uids or ()) == [1, 2, 3]
    assert box.sleeping is None
    assert harness.store.status("INBOX", with_size=True) == figures
    assert box.messages[box.uids[2]].flags == {FLAGGED}
    assert box.read(box.uids[1]) == SECOND
    harness.store.close(box)


def test_closing_a_mailbox_that_sleeps_wakes_nobody(harness: FileHarness) -> None:
    r"""Nothing was put off; CLOSE finds nothing \Deleted; what Dovecot reads has our UIDs already."""
    box = harness.store.open("INBOX")
    assert box.expunge() == []
    assert harness.store.close_at_once(box)
    harness.store.shut()
    assert box.sleeping is not None


def test_a_mailbox_whose_uids_dovecot_lacks_wakes_to_leave_them(tmp_path: Path) -> None:
    """A crash came before the list was written: it is written the next time."""
    harness = MaildirHarness(tmp_path)
    harness.deliver(FIRST)
    box = harness.store.open("INBOX")
    box.claim_recent()
    _settle(harness, box)
    uidlist = harness.inbox_path / "dovecot-uidlist"
    written = uidlist.read_bytes()
    uidlist.write_bytes(written.replace(b" N2 ", b" N1 ").partition(b"\n")[0] + b"\n")
    with harness.store._state.transaction():
        harness.store._state.set_foreign_mark(1, harness.store._make_format("INBOX").foreign_mark())
    assert harness.store.open("INBOX").sleeping is not None
    harness.registry.shut()
    assert uidlist.read_bytes() == written


def test_news_wakes(harness: FileHarness) -> None:
    """Another program's delivery is found by the next look, and told from the modseq that was known."""
    box = harness.store.open("INBOX")
    selected = Selected(box, False, range(0))
    harness.deliver(b"Subject: fourth\r\n\r\n4\r\n")
    assert not box.is_current()
    assert box.refresh()
    assert box.sleeping is None
    assert list(box.changes_since(selected.modseq).changed) == [4]
    assert list(selected.uids) == [1, 2, 3]
    harness.store.close(box)


def test_what_was_told_holds_whatever_happens_before_it_wakes(harness: FileHarness) -> None:
    """Another process removed and added messages: the session counts as it was told, then hears of it."""
    box = harness.store.open("INBOX")
    selected = Selected(box, False, range(0))
    first = harness.store
    other = harness.crash().open("INBOX")
    other.change_flags(other.uids[:2], flags(DELETED), StoreMode.ADD)
    other.expunge(other.uids[:1])
    harness.deliver(b"Subject: fourth\r\n\r\n4\r\n")
    other.refresh()
    box.refresh()
    assert list(selected.uids) == [1, 2, 3] and selected.exists == 3
    changes = box.changes_since(selected.modseq)
    assert (list(changes.changed), list(changes.expunged)) == ([2, 4], [1])
    assert list(box.uids) == [2, 3, 4]
    harness.store.close(other)
    first.shut()


def test_a_mailbox_with_recent_messages_does_not_sleep(tmp_path: Path) -> None:
    r"""RFC 3501 §2.3.2: whoever selects it is told of them, and \Recent is claimed."""
    harness = MaildirHarness(tmp_path)
    harness.deliver(FIRST)
    _settle(harness, harness.store.open("INBOX"))
    assert harness.store.open("INBOX").sleeping is None
    harness.registry.shut()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE figures SET messages=messages+1",
        "UPDATE figures SET unseen=unseen+1",
        "UPDATE summary SET first_unseen=3",
        "UPDATE summary SET checksum=checksum+1",
        "UPDATE mailbox SET uidnext=9",
        "UPDATE mailbox SET recent=2",
        "DELETE FROM summary",
    ],
)
def test_figures_that_do_not_fit_their_checksum_are_not_believed(harness: FileHarness, damage: str) -> None:
    """RELIABILITY F27: then the mailbox is opened with all its messages."""
    harness.registry.shut()
    _change(harness, damage)
    harness.restart()
    box = harness.store.open("INBOX")
    assert box.sleeping is None and len(box.uids) == 3
    harness.store.close(box)


def test_messages_that_are_not_those_that_were_counted_end_the_session(harness: FileHarness) -> None:
    """RELIABILITY F27: no UID moves. The next to open the mailbox finds a higher UIDVALIDITY."""
    harness.registry.shut()
    _change(harness, "DELETE FROM message WHERE uid=2")
    harness.restart()
    box = harness.store.open("INBOX")
    assert box.sleeping is not None
    selected, hints = Selected(box, False, range(0)), list[int]()
    box.subscribe(lambda: hints.append(1))
    with pytest.raises(MailboxReplaced):
        box.wake()
    with pytest.raises(MailboxReplaced):
        box.refresh()
    with pytest.raises(MailboxReplaced):
        selected.number(1)
    assert hints
    harness.store.close(box)
    again = harness.store.open("INBOX")
    assert again.sleeping is None and len(again.uids) == 3
    assert again.uidvalidity > box.uidvalidity
    harness.store.close(again)


def test_a_failure_to_wake_leaves_it_asleep(harness: FileHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local fault is temporary: the next try finds each message once."""
    box = harness.store.open("INBOX")
    with monkeypatch.context() as broken:
        broken.setattr(harness.store._state, "expunged", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            box.wake()
    assert list(box.uids) == [1, 2, 3]
    assert box.changes_since(Modseq(0)).changed
    harness.store.close(box)


def test_a_session_sees_no_difference(harness: FileHarness) -> None:
    """SELECT, NOOP and UNSELECT let it sleep; FETCH and SEARCH answer as ever. RFC 3501 §6.3.1."""
    server = Server(registry=harness.registry)
    server.logins.accounts["alice"] = harness.account
    client = server.log_in()
    said = client.ask(b"a SELECT INBOX")
    for line in (b"* 3 EXISTS", b"* 0 RECENT", b"[UNSEEN 2]", b"[UIDNEXT 4]", b"[PERMANENTFLAGS ("):
        assert line in said
    assert client.ask(b"b NOOP") == b"b OK NOOP completed.\r\n"
    assert client.ask(b"c STATUS INBOX (MESSAGES UNSEEN DELETED)").startswith(
        b'* STATUS "INBOX" (MESSAGES 3 UNSEEN 2 DELETED 0)'
    )
    box = harness.store._open.boxes["INBOX"]
    client.ask(b"d UNSELECT")
    assert b"e OK [READ-ONLY]" in client.ask(b"e EXAMINE INBOX")
    assert box.sleeping is not None
    assert b"* 2 FETCH (UID 2 FLAGS ())" in client.ask(b"f FETCH 1:* (UID FLAGS)")
    assert box.sleeping is None
    assert client.ask(b"g SEARCH FLAGGED").startswith(b"* SEARCH 3\r\n")
    client.ask(b"h LOGOUT")


def test_a_resynchronising_client_is_told_what_it_missed(harness: FileHarness) -> None:
    """RFC 7162 §3.2.5: of a mailbox that slept too."""
    server = Server(registry=harness.registry)
    server.logins.accounts["alice"] = harness.account
    client = server.log_in()
    client.ask(b"a ENABLE QRESYNC")
    validity = harness.store.status("INBOX").uidvalidity
    assert b"* 3 FETCH (UID 3 MODSEQ" in client.ask(b"b SELECT INBOX (QRESYNC (%d 2))" % validity)
    client.ask(b"c LOGOUT")
