"""The Mailbox contract's own tests: what every store must do, whatever it is made of.

A store is tested by a class that derives from these and gives the fixture `harness`:

    @pytest.fixture
    def harness(tmp_path): return MyHarness(tmp_path)
    class TestMine(MailboxContract, AccountStoreContract, NamesContract, DurableContract): ...

`DurableContract` is for stores that outlive the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol

import pytest

from mailserver.message.header import header_end
from mailserver.store.contract import (
    ANSWERED,
    DELETED,
    DRAFT,
    FLAGGED,
    SEEN,
    AccountStore,
    BadMailboxName,
    Mailbox,
    MailboxExists,
    MailboxReplaced,
    MessageGone,
    Modseq,
    NewMessage,
    NoSuchMailbox,
    StoreError,
    StoreMode,
    Uid,
)

FIRST = b"Subject: first\r\nX-Test-Id: 1\r\n\r\nFirst body\r\n"
SECOND = b"Subject: second\r\nX-Test-Id: 2\r\n\r\nSecond\r\n\r\nbody\r\n"
THIRD = b"Subject: third\r\n\r\n.\r\n..dots\r\n\xe4\xf6\xfc\r\n"


HOSTILE_NAMES = [
    *("", "/", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "..", "~root", "INBOX/../x", "./x"),
    *("a\x00b", "a\nb", "a\x7fb", "a\x1b[0m", "\u2028", "x" * 241, "\u00e4" * 121, "/".join("a" * 17)),
]
ODD_NAMES = [
    *("a.b", "a.b/c.d", "a^b", "a\\b", "a:b", "a~b", "a%b", "a*b", "R&D", "#x", "-", " ", ".hidden", "...x"),
    *("\u00c4rger/\u00dcber", "\u65e5\u672c\u8a9e", "cur", "new/tmp", "a.lock", "dovecot-uidlist"),
    *("INBOX/Sub", "mBoX-MeSsAgEs", "subscriptions", "maildirfolder", "a\\2eb"),
]


class Harness(Protocol):
    """A store under test, with one account."""

    store: AccountStore

    def deliver(self, content: bytes) -> None:
        """Another program puts a message (CRLF line ends here) into INBOX."""

    def vanish(self, uid: Uid) -> None:
        """Another program removes a message from INBOX."""

    def restart(self) -> AccountStore:
        """The process ends in good order and another opens the account; `store` is the new one."""


def flags(*names: bytes) -> frozenset[bytes]:
    return frozenset(names)


def append(mailbox: Mailbox, *contents: bytes, with_flags: frozenset[bytes] = frozenset()) -> Sequence[Uid]:
    return mailbox.append([NewMessage(content, with_flags, 1_600_000_000) for content in contents])


def contents(mailbox: Mailbox) -> dict[int, bytes]:
    return {uid: mailbox.read(uid) for uid in mailbox.uids}


class MailboxContract:
    """One mailbox."""

    @pytest.fixture
    def inbox(self, harness: Harness) -> Mailbox:
        return harness.store.open("INBOX")

    @pytest.fixture
    def other(self, harness: Harness) -> Mailbox:
        harness.store.create("Other")
        return harness.store.open("Other")

    def test_empty(self, inbox: Mailbox) -> None:
        """An empty mailbox has UIDNEXT 1, a UIDVALIDITY and a modseq of at least 1. RFC 7162 §3.1.2.1."""
        assert (list(inbox.uids), dict(inbox.messages), inbox.uidnext) == ([], {}, 1)
        assert 0 < inbox.uidvalidity < 2**32
        assert inbox.highest_modseq >= 1
        assert inbox.mailbox_id

    def test_append_gives_ascending_uids_and_the_same_octets(self, inbox: Mailbox) -> None:
        """What is read is what was appended. RFC 3501 §6.3.11."""
        assert list(append(inbox, FIRST, SECOND)) == [1, 2]
        assert list(append(inbox, THIRD)) == [3]
        assert list(inbox.uids) == [1, 2, 3]
        assert contents(inbox) == {1: FIRST, 2: SECOND, 3: THIRD}
        assert inbox.uidnext == 4

    def test_append_keeps_flags_and_date(self, inbox: Mailbox) -> None:
        """Flags, keywords and internal date of APPEND are kept. RFC 3501 §6.3.11."""
        wanted = flags(SEEN, FLAGGED, DRAFT, ANSWERED, DELETED, b"$Forwarded", b"Work")
        inbox.append([NewMessage(FIRST, wanted, 1_234_567_890)])
        message = inbox.messages[Uid(1)]
        assert message.flags == wanted
        assert message.internal_date == 1_234_567_890
        assert set(inbox.keywords) == {b"$Forwarded", b"Work"}

    def test_each_change_has_a_higher_modseq(self, inbox: Mailbox) -> None:
        """HIGHESTMODSEQ rises with every change, and messages carry the one of theirs. RFC 7162 §3.1."""
        seen = [inbox.highest_modseq]
        append(inbox, FIRST)
        seen.append(inbox.highest_modseq)
        inbox.change_flags([Uid(1)], flags(SEEN), StoreMode.ADD)
        seen.append(inbox.highest_modseq)
        assert inbox.messages[Uid(1)].modseq == inbox.highest_modseq
        inbox.remove([Uid(1)])
        seen.append(inbox.highest_modseq)
        assert seen == sorted(set(seen))

    def test_store_modes(self, inbox: Mailbox) -> None:
        """FLAGS, +FLAGS and -FLAGS. RFC 3501 §6.4.6."""
        append(inbox, FIRST, SECOND)
        assert list(inbox.change_flags([Uid(1), Uid(2)], flags(SEEN), StoreMode.ADD).changed) == [1, 2]
        assert list(inbox.change_flags([Uid(1)], flags(FLAGGED, b"Work"), StoreMode.ADD).changed) == [1]
        assert inbox.messages[Uid(1)].flags == flags(SEEN, FLAGGED, b"Work")
        inbox.change_flags([Uid(1)], flags(SEEN, DRAFT), StoreMode.REMOVE)
        assert inbox.messages[Uid(1)].flags == flags(FLAGGED, b"Work")
        inbox.change_flags([Uid(1), Uid(2)], flags(DRAFT), StoreMode.REPLACE)
        assert [inbox.messages[uid].flags for uid in inbox.uids] == [flags(DRAFT)] * 2

    def test_keywords_keep_their_first_spelling(self, inbox: Mailbox) -> None:
        """Keywords are compared without case. RFC 3501 §9, flag-keyword is an atom."""
        append(inbox, FIRST, with_flags=flags(b"Work"))
        inbox.change_flags([Uid(1)], flags(b"WORK"), StoreMode.ADD)
        assert inbox.messages[Uid(1)].flags == flags(b"Work")
        inbox.change_flags([Uid(1)], flags(b"work"), StoreMode.REMOVE)
        assert inbox.messages[Uid(1)].flags == flags()

    def test_store_of_gone_messages_is_no_error(self, inbox: Mailbox) -> None:
        """UID STORE ignores UIDs that do not exist. RFC 3501 §6.4.8."""
        append(inbox, FIRST)
        assert list(inbox.change_flags([Uid(1), Uid(9)], flags(SEEN), StoreMode.ADD).changed) == [1]

    def test_unchanged_since(self, inbox: Mailbox) -> None:
        """A message changed after UNCHANGEDSINCE is left alone and reported. RFC 7162 §3.1.3."""
        append(inbox, FIRST, SECOND)
        before = inbox.highest_modseq
        inbox.change_flags([Uid(1)], flags(SEEN), StoreMode.ADD)
        result = inbox.change_flags([Uid(1), Uid(2)], flags(DELETED), StoreMode.ADD, before)
        assert (list(result.changed), list(result.modified)) == ([2], [1])
        assert inbox.messages[Uid(1)].flags == flags(SEEN)

    def test_expunge(self, inbox: Mailbox) -> None:
        """EXPUNGE removes what is \\Deleted, UID EXPUNGE only of the set. RFC 3501 §6.4.3, RFC 4315 §2.1."""
        append(inbox, FIRST, SECOND, THIRD)
        inbox.change_flags([Uid(1), Uid(3)], flags(DELETED), StoreMode.ADD)
        assert list(inbox.expunge([Uid(2), Uid(3)])) == [3]
        assert list(inbox.expunge()) == [1]
        assert list(inbox.expunge()) == []
        assert contents(inbox) == {2: SECOND}
        with pytest.raises(MessageGone):
            inbox.read(Uid(1))

    def test_remove(self, inbox: Mailbox) -> None:
        """POP3's QUIT removes without \\Deleted; what is gone already is no error. RFC 1939 §6."""
        append(inbox, FIRST, SECOND)
        assert list(inbox.remove([Uid(1), Uid(7)])) == [1]
        assert contents(inbox) == {2: SECOND}

    def test_uids_are_never_given_twice(self, inbox: Mailbox) -> None:
        """The UID of an expunged message is not used again. RFC 3501 §2.3.1.1."""
        append(inbox, FIRST, SECOND)
        inbox.remove([Uid(2)])
        assert list(append(inbox, THIRD)) == [3]

    def test_sizes(self, inbox: Mailbox) -> None:
        """RFC822.SIZE is the number of octets that are sent. RFC 3501 §2.3.4."""
        append(inbox, FIRST, SECOND, THIRD)
        inbox.remove([Uid(2)])
        assert dict(inbox.sizes([Uid(1), Uid(2), Uid(3)])) == {1: len(FIRST), 3: len(THIRD)}

    def test_save_dates(self, harness: Harness, inbox: Mailbox, other: Mailbox) -> None:
        """APPEND and COPY save now, whatever the date; for others' mail first sight counts. RFC 8514 §2."""
        start = int(time.time())
        append(inbox, FIRST, SECOND)
        harness.deliver(THIRD)
        inbox.refresh()
        ((_, copied),) = inbox.copy([Uid(1)], other)
        saved = {**inbox.save_dates([Uid(1), Uid(3), Uid(9)]), Uid(100): other.save_dates([copied])[copied]}
        assert sorted(saved) == [1, 3, 100]
        assert all(start <= when <= time.time() for when in saved.values())
        assert inbox.messages[Uid(1)].internal_date == 1_600_000_000
        assert inbox.save_dates([]) == {}

    def test_facts_are_made_once(self, inbox: Mailbox) -> None:
        """A fact is computed once per message and kind, from what `read` gives."""
        append(inbox, FIRST, SECOND)
        made: list[bytes] = []

        def make(content: bytes) -> bytes:
            made.append(content)
            return content[:14]

        uids = [Uid(1), Uid(2), Uid(5)]
        assert dict(inbox.facts(uids, make, "start.1")) == {1: FIRST[:14], 2: SECOND[:14]}
        assert dict(inbox.facts(uids, make, "start.1")) == {1: FIRST[:14], 2: SECOND[:14]}
        assert made == [FIRST, SECOND]
        assert dict(inbox.facts([Uid(2)], len_text, "length.1")) == {2: b"%d" % len(SECOND)}

    def test_facts_of_headers(self, inbox: Mailbox) -> None:
        """Who wants the header alone is given it, to its blank line, however long message and header are."""
        long_header = b"".join(b"X-Number-%d: %b\r\n" % (number, b"x" * 60) for number in range(400))
        contents = [FIRST, long_header + b"\r\n" + SECOND, THIRD + b"a line\r\n" * 30_000, long_header]
        append(inbox, *contents)
        facts = inbox.facts(inbox.uids, lambda header: header, "header.test", of_header=True)
        stored = [inbox.read(uid) for uid in inbox.uids]
        assert [*facts.values()] == [content[: header_end(content)] for content in stored]

    def test_changes_since(self, inbox: Mailbox) -> None:
        """Changed and expunged since a modseq, each ascending. RFC 7162 §3.2."""
        start = inbox.highest_modseq
        append(inbox, FIRST, SECOND, THIRD)
        middle = inbox.highest_modseq
        inbox.change_flags([Uid(3)], flags(SEEN), StoreMode.ADD)
        inbox.remove([Uid(1)])
        changes = inbox.changes_since(middle)
        assert (list(changes.changed), list(changes.expunged)) == ([3], [1])
        assert changes.highest_modseq == inbox.highest_modseq
        assert list(inbox.changes_since(start).changed) == [2, 3]
        nothing = inbox.changes_since(inbox.highest_modseq)
        assert (list(nothing.changed), list(nothing.expunged)) == ([], [])

    def test_listeners_hear_of_every_change(self, harness: Harness, inbox: Mailbox) -> None:
        """Each change calls the listener; after `unsubscribe` none does."""
        heard: list[Modseq] = []

        def listener() -> None:
            heard.append(inbox.highest_modseq)

        inbox.subscribe(listener)
        append(inbox, FIRST)
        inbox.change_flags([Uid(1)], flags(SEEN), StoreMode.ADD)
        harness.deliver(SECOND)
        inbox.refresh()
        inbox.remove([Uid(1)])
        assert len(heard) >= 4
        assert heard[-1] == inbox.highest_modseq
        inbox.unsubscribe(listener)
        inbox.unsubscribe(listener)
        count = len(heard)
        inbox.remove([Uid(2)])
        assert len(heard) == count

    def test_two_sessions_share_a_mailbox(self, harness: Harness, inbox: Mailbox) -> None:
        """What one session does, the other sees."""
        second = harness.store.open("INBOX")
        append(inbox, FIRST)
        assert list(second.uids) == [1]
        harness.store.close(second)
        assert contents(inbox) == {1: FIRST}

    def test_recent_is_claimed_once(self, inbox: Mailbox) -> None:
        """A message is \\Recent to one session only. RFC 3501 §2.3.2."""
        append(inbox, FIRST, SECOND)
        assert inbox.peek_recent() == 1
        assert inbox.claim_recent() == range(1, 3)
        assert inbox.claim_recent().stop == 3
        append(inbox, THIRD)
        assert inbox.peek_recent() == 3
        assert inbox.claim_recent() == range(3, 4)

    def test_delivery_by_others(self, harness: Harness, inbox: Mailbox) -> None:
        """Mail that another program delivers is numbered at the next refresh, in order of arrival."""
        harness.deliver(FIRST)
        harness.deliver(SECOND)
        assert inbox.refresh() is True
        assert contents(inbox) == {1: FIRST, 2: SECOND}
        assert inbox.refresh() is False

    def test_delivery_beside_an_append(self, harness: Harness, inbox: Mailbox) -> None:
        """Neither gets lost nor the other's UID."""
        harness.deliver(FIRST)
        (uid,) = append(inbox, SECOND)
        inbox.refresh()
        assert inbox.read(uid) == SECOND
        assert sorted(contents(inbox).values()) == sorted([FIRST, SECOND])

    def test_removal_by_others(self, harness: Harness, inbox: Mailbox) -> None:
        """A message that another program removed is expunged at the next refresh."""
        append(inbox, FIRST, SECOND)
        before = inbox.highest_modseq
        harness.vanish(Uid(1))
        with pytest.raises(MessageGone):
            inbox.read(Uid(1))
        inbox.refresh()
        assert contents(inbox) == {2: SECOND}
        assert list(inbox.changes_since(before).expunged) == [1]

    def test_copy(self, inbox: Mailbox, other: Mailbox) -> None:
        """COPY keeps content, flags and internal date, and pairs UIDs in order. RFC 4315 §3."""
        append(inbox, FIRST, SECOND, with_flags=flags(SEEN, b"Work"))
        append(other, THIRD)
        assert list(inbox.copy([Uid(1), Uid(2), Uid(8)], other)) == [(1, 2), (2, 3)]
        assert contents(other) == {1: THIRD, 2: FIRST, 3: SECOND}
        assert other.messages[Uid(2)].flags == flags(SEEN, b"Work")
        assert other.messages[Uid(2)].internal_date == 1_600_000_000
        assert list(inbox.uids) == [1, 2]

    def test_copy_to_itself(self, inbox: Mailbox) -> None:
        """A mailbox may be its own target."""
        append(inbox, FIRST)
        assert list(inbox.copy([Uid(1)], inbox)) == [(1, 2)]
        assert contents(inbox) == {1: FIRST, 2: FIRST}

    def test_copies_are_independent(self, inbox: Mailbox, other: Mailbox) -> None:
        """Flags and removal of the one leave the other alone."""
        append(inbox, FIRST)
        inbox.copy([Uid(1)], other)
        inbox.change_flags([Uid(1)], flags(FLAGGED), StoreMode.ADD)
        inbox.remove([Uid(1)])
        other.refresh()
        assert contents(other) == {1: FIRST}
        assert other.messages[Uid(1)].flags == flags()

    def test_move(self, inbox: Mailbox, other: Mailbox) -> None:
        """MOVE is COPY, and the sources are gone. RFC 6851 §3.3."""
        append(inbox, FIRST, SECOND)
        assert list(inbox.move([Uid(2)], other)) == [(2, 1)]
        assert (contents(inbox), contents(other)) == ({1: FIRST}, {1: SECOND})

    def test_moves_in_both_directions_do_not_deadlock(self, inbox: Mailbox, other: Mailbox) -> None:
        """Two mailboxes are locked in one order."""
        append(inbox, *[FIRST] * 20)
        append(other, *[SECOND] * 20)
        together = threading.Barrier(2)

        def shuttle(source: Mailbox, target: Mailbox) -> None:
            uids = list(source.uids)[:20]
            together.wait()
            for uid in uids:
                source.move([uid], target)

        threads = [
            threading.Thread(target=shuttle, args=pair, daemon=True)
            for pair in ((inbox, other), (other, inbox))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        everything = [*contents(inbox).values(), *contents(other).values()]
        assert sorted(everything) == [FIRST] * 20 + [SECOND] * 20

    def test_many_threads(self, inbox: Mailbox) -> None:
        """Any number of threads may call: no UID twice, nothing lost."""
        uids: list[Uid] = []

        def work() -> None:
            for _ in range(5):
                (uid,) = append(inbox, FIRST)
                inbox.change_flags([uid], flags(SEEN), StoreMode.ADD)
                inbox.refresh()
                uids.append(uid)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(uids) == list(inbox.uids) == list(range(1, 21))
        assert all(message.flags == flags(SEEN) for message in inbox.messages.values())


def len_text(content: bytes) -> bytes:
    return b"%d" % len(content)


class AccountStoreContract:
    """All mailboxes of an account."""

    def names(self, harness: Harness) -> list[str]:
        return [folder.name for folder in harness.store.folders()]

    def test_inbox_comes_first_and_cannot_go(self, harness: Harness) -> None:
        """INBOX is always there. RFC 3501 §5.1, §6.3.4."""
        assert self.names(harness)[0] == "INBOX"
        with pytest.raises(BadMailboxName):
            harness.store.delete("INBOX")
        with pytest.raises(MailboxExists):
            harness.store.create("INBOX")

    def test_create_and_delete(self, harness: Harness) -> None:
        """A mailbox that was created can be opened; one that was deleted cannot. RFC 3501 §6.3.3."""
        harness.store.create("Work")
        assert "Work" in self.names(harness)
        with pytest.raises(MailboxExists):
            harness.store.create("Work")
        append(harness.store.open("Work"), FIRST)
        harness.store.delete("Work")
        assert "Work" not in self.names(harness)
        for act in (harness.store.open, harness.store.delete, harness.store.status):
            with pytest.raises(NoSuchMailbox):
                act("Work")

    def test_recreated_mailbox_has_a_higher_uidvalidity(self, harness: Harness) -> None:
        """A UIDVALIDITY is not given twice for one name. RFC 3501 §2.3.1.1."""
        harness.store.create("Work")
        box = harness.store.open("Work")
        append(box, FIRST)
        harness.store.delete("Work")
        harness.store.create("Work")
        again = harness.store.open("Work")
        assert again.uidvalidity > box.uidvalidity
        assert list(again.uids) == []

    def test_sessions_of_a_deleted_mailbox_end(self, harness: Harness) -> None:
        """Every later call raises MailboxReplaced, and the listeners hear of it."""
        harness.store.create("Work")
        box = harness.store.open("Work")
        heard: list[bool] = []
        box.subscribe(lambda: heard.append(True))
        harness.store.delete("Work")
        assert heard
        with pytest.raises(MailboxReplaced):
            box.refresh()

    def test_children_outlive_their_parent(self, harness: Harness) -> None:
        """DELETE leaves inferior names alone; the parent stays as a level. RFC 3501 §6.3.4."""
        harness.store.create("Work")
        harness.store.create("Work/2024/May")
        append(harness.store.open("Work/2024/May"), FIRST)
        folders = {folder.name: folder for folder in harness.store.folders()}
        assert folders["Work"].has_children and folders["Work"].selectable
        assert "Work/2024" in folders
        harness.store.delete("Work")
        folders = {folder.name: folder for folder in harness.store.folders()}
        assert not folders["Work"].selectable
        assert contents(harness.store.open("Work/2024/May")) == {1: FIRST}

    def test_parents_hold_messages_too(self, harness: Harness) -> None:
        """A mailbox with messages can get children, and keeps its UIDs."""
        harness.store.create("Work")
        box = harness.store.open("Work")
        append(box, FIRST)
        harness.store.create("Work/Child")
        again = harness.store.open("Work")
        assert (again.uidvalidity, contents(again)) == (box.uidvalidity, {1: FIRST})
        append(again, SECOND)
        assert contents(again) == {1: FIRST, 2: SECOND}
        assert contents(harness.store.open("Work/Child")) == {}

    def test_rename_takes_children_and_uids_along(self, harness: Harness) -> None:
        """RENAME keeps UIDVALIDITY, UIDs and MAILBOXID, children included. RFC 3501 §6.3.5, RFC 8474 §4."""
        harness.store.create("Work")
        harness.store.create("Work/2024")
        box, child = harness.store.open("Work"), harness.store.open("Work/2024")
        append(box, FIRST)
        append(child, SECOND, with_flags=flags(SEEN))
        harness.store.rename("Work", "Old/Job")
        names = self.names(harness)
        assert "Work" not in names and "Work/2024" not in names
        assert {"Old", "Old/Job", "Old/Job/2024"} <= set(names)
        moved = harness.store.open("Old/Job/2024")
        assert (moved.uidvalidity, moved.mailbox_id) == (child.uidvalidity, child.mailbox_id)
        assert contents(moved) == {1: SECOND}
        assert moved.messages[Uid(1)].flags == flags(SEEN)
        assert contents(harness.store.open("Old/Job")) == {1: FIRST}

    def test_rename_errors(self, harness: Harness) -> None:
        """Missing source, existing target. RFC 3501 §6.3.5."""
        harness.store.create("Work")
        with pytest.raises(NoSuchMailbox):
            harness.store.rename("Nothing", "New")
        harness.store.create("Play")
        with pytest.raises(MailboxExists):
            harness.store.rename("Work", "Play")

    def test_rename_of_inbox_moves_its_messages(self, harness: Harness) -> None:
        """INBOX stays, empty; inferior names of INBOX are unaffected. RFC 3501 §6.3.5."""
        append(harness.store.open("INBOX"), FIRST, SECOND)
        harness.store.rename("INBOX", "Saved")
        assert contents(harness.store.open("INBOX")) == {}
        assert sorted(contents(harness.store.open("Saved")).values()) == sorted([FIRST, SECOND])

    def test_file_names_are_of_files_of_one_message(self, harness: Harness) -> None:
        """Those that there are stay through flag changes, and are as many as messages."""
        inbox = harness.store.open("INBOX")
        uids = append(inbox, FIRST, SECOND)
        before = inbox.file_names(uids)
        inbox.change_flags(uids, frozenset([SEEN]), StoreMode.ADD)
        assert inbox.file_names(uids) == before
        assert len(set(before.values())) == len(before) in (0, 2)
        inbox.remove(uids[:1])
        assert set(inbox.file_names(uids)) <= set(uids[1:])

    def test_annotations_follow_their_mailbox(self, harness: Harness) -> None:
        """Set, replaced, removed; kept by RENAME, gone after DELETE. RFC 5464 §4.1."""
        store = harness.store
        store.create("Work")
        store.annotate("Work", {"/private/comment": b"mine\r\n\x80", "/shared/x": b""})
        store.annotate("", {"/private/comment": b"the account's"})
        store.annotate("Work", {"/shared/x": None, "/shared/none": None, "/private/y": b"1"})
        assert store.annotations("Work") == {"/private/comment": b"mine\r\n\x80", "/private/y": b"1"}
        assert store.annotations("") == {"/private/comment": b"the account's"}
        assert store.annotations("INBOX") == {}
        store.rename("Work", "Play")
        assert store.annotations("Play").keys() == {"/private/comment", "/private/y"}
        store.delete("Play")
        store.create("Play")
        assert store.annotations("Play") == {}
        for name in ("Nowhere", "../x"):
            with pytest.raises(StoreError):
                store.annotations(name)
            with pytest.raises(StoreError):
                store.annotate(name, {"/private/y": b"1"})

    def test_subscriptions_outlive_mailboxes(self, harness: Harness) -> None:
        """DELETE does not unsubscribe. RFC 3501 §6.3.6."""
        harness.store.set_subscribed("Lists/one", True)
        assert "Lists/one" in harness.store.subscriptions()
        harness.store.set_subscribed("Lists/one", False)
        assert "Lists/one" not in harness.store.subscriptions()
        assert list(harness.store.subscriptions()) == sorted(harness.store.subscriptions())

    def test_status(self, harness: Harness) -> None:
        """STATUS's figures, of a mailbox that nobody has open. RFC 3501 §6.3.10, RFC 8438."""
        harness.store.create("Work")
        box = harness.store.open("Work")
        append(box, FIRST, SECOND)
        box.claim_recent()
        append(box, THIRD)
        box.change_flags([Uid(1)], flags(SEEN, DELETED), StoreMode.ADD)
        harness.store.close(box)
        status = harness.store.status("Work", with_size=True)
        assert (status.messages, status.recent, status.unseen, status.deleted) == (3, 1, 2, 1)
        assert (status.uidnext, status.uidvalidity) == (4, box.uidvalidity)
        assert status.size == len(FIRST) + len(SECOND) + len(THIRD)
        assert harness.store.status("Work").size is None

    def test_status_sees_new_mail(self, harness: Harness) -> None:
        """STATUS is refreshed."""
        assert harness.store.status("INBOX").messages == 0
        harness.deliver(FIRST)
        assert harness.store.status("INBOX").messages == 1

    def test_maildrop_lock(self, harness: Harness) -> None:
        """One POP3 session at a time; delivery does not wait for it. RFC 1939 §3."""
        release = harness.store.lock_maildrop()
        assert release is not None
        assert harness.store.lock_maildrop() is None
        harness.deliver(FIRST)
        release()
        again = harness.store.lock_maildrop()
        assert again is not None
        again()


class NamesContract:
    """What an account has from the first login, and which names it may have."""

    def names(self, harness: Harness) -> list[str]:
        return [folder.name for folder in harness.store.folders()]

    def test_special_folders_exist_and_are_subscribed(self, harness: Harness) -> None:
        """Clients find Drafts, Sent, Trash, Junk and Archive at the first login. RFC 6154."""
        special = {folder.special_use: folder for folder in harness.store.folders() if folder.special_use}
        assert set(special) == {b"\\Drafts", b"\\Sent", b"\\Trash", b"\\Junk", b"\\Archive"}
        assert all(folder.subscribed and folder.selectable for folder in special.values())

    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_hostile_names(self, harness: Harness, name: str) -> None:
        """Names that could leave the mailbox root or confuse are refused everywhere. RELIABILITY B9."""
        before = self.names(harness)
        store = harness.store
        acts = [store.open, store.create, store.status, store.delete]
        for act in [*acts, lambda name: store.rename("Sent", name), lambda name: store.rename(name, "New")]:
            with pytest.raises((BadMailboxName, NoSuchMailbox)):
                act(name)
        assert self.names(harness) == before

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_odd_names(self, harness: Harness, name: str) -> None:
        """Names that mean something to a layout are mailboxes like any other."""
        harness.store.create(name)
        assert name in self.names(harness)
        box = harness.store.open(name)
        append(box, FIRST)
        assert contents(box) == {1: FIRST}
        harness.store.close(box)
        harness.store.delete(name)
        assert name not in self.names(harness)


class DurableContract:
    """What a restart must not change."""

    def test_everything_outlives_a_restart(self, harness: Harness) -> None:
        """UIDVALIDITY, UIDs, flags, keywords, dates of saving too, modseqs, MAILBOXID. RELIABILITY P6."""
        box = harness.store.open("INBOX")
        append(box, FIRST, SECOND, THIRD, with_flags=flags(SEEN, b"Work"))
        box.change_flags([Uid(3)], flags(FLAGGED, b"Play"), StoreMode.REPLACE)
        box.remove([Uid(2)])
        box.claim_recent()
        facts = box.facts(box.uids, len_text, "length.1")
        before, saved = describe(box), box.save_dates(box.uids)
        again = harness.restart().open("INBOX")
        assert describe(again) == before
        assert again.save_dates(again.uids) == saved
        assert again.claim_recent().start == 4
        assert again.facts(again.uids, len_text, "length.1") == facts

    def test_changes_while_nobody_was_there(self, harness: Harness) -> None:
        """What others did between two runs is seen; what they left alone keeps its UID."""
        box = harness.store.open("INBOX")
        append(box, FIRST, SECOND)
        before = box.highest_modseq
        harness.store.close(box)
        harness.vanish(Uid(1))
        harness.deliver(THIRD)
        again = harness.restart().open("INBOX")
        assert contents(again) == {2: SECOND, 3: THIRD}
        changes = again.changes_since(before)
        assert (list(changes.changed), list(changes.expunged), changes.complete) == ([3], [1], True)

    def test_old_expunges_are_remembered(self, harness: Harness) -> None:
        """VANISHED (EARLIER) is answered after a restart. RFC 7162 §3.2.5.2."""
        box = harness.store.open("INBOX")
        append(box, FIRST, SECOND, THIRD)
        before = box.highest_modseq
        box.remove([Uid(2)])
        again = harness.restart().open("INBOX")
        assert list(again.changes_since(before).expunged) == [2]

    def test_folders_outlive_a_restart(self, harness: Harness) -> None:
        """Folders, subscriptions and special uses stay; what was unsubscribed stays so."""
        harness.store.create("Work/2024", b"\\Flagged")
        harness.store.set_subscribed("Junk", False)
        before = list(harness.store.folders())
        assert list(harness.restart().folders()) == before

    def test_a_deleted_special_folder_stays_deleted(self, harness: Harness) -> None:
        """Only the first login makes the special folders."""
        harness.store.delete("Archive")
        assert "Archive" not in [folder.name for folder in harness.restart().folders()]


def describe(box: Mailbox) -> object:
    figures = (box.uidvalidity, box.uidnext, box.highest_modseq, box.mailbox_id)
    return figures, list(box.uids), dict(box.messages), list(box.keywords), contents(box)
