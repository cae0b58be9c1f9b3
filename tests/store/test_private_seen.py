r"""A \Seen of each reader's own: the contract holds for him, and nobody else sees what he has seen."""

from __future__ import annotations

import mailbox as standard_mailbox
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mailserver.store import mailbox_changes
from mailserver.store.account import FileAccountStore
from mailserver.store.contract import (
    DELETED,
    FLAGGED,
    SEEN,
    Mailbox,
    MailboxStatus,
    Message,
    Modseq,
    NewMessage,
    Reader,
    StoreFailure,
    StoreMode,
    Uid,
)
from mailserver.store.private_seen import PrivateSeenMailbox
from mailserver.store.state_downgrade import downgrade
from tests.store.contract_suite import AccountStoreContract, DurableContract, MailboxContract
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness

BOB, CAROL = Reader("bob", starts_with_common=False), Reader("carol", starts_with_common=False)
LETTER = NewMessage(b"Subject: x\r\n\r\n")
READ = frozenset({SEEN})


class ReadersStore:
    """An account's store as one reader sees all of it."""

    def __init__(self, inner: FileAccountStore, reader: Reader) -> None:
        self._inner = inner
        self._reader = reader
        self._open: dict[int, Mailbox] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open(self, name: str) -> Mailbox:
        mailbox = self._inner.open(name)
        seen = mailbox.seen_by(self._reader)
        seen.wake()
        self._open[id(seen)] = mailbox
        return seen

    def close(self, mailbox: Mailbox) -> None:
        self._inner.close(self._open.pop(id(mailbox)))

    @contextmanager
    def borrow(self, name: str) -> Iterator[Mailbox]:
        with self._inner.borrow(name) as mailbox:
            yield mailbox.seen_by(self._reader)

    def status(self, name: str, with_size: bool = False) -> MailboxStatus:
        return self._inner.status(name, with_size, self._reader)


class OneReader(MaildirHarness):
    """As a public namespace's reader."""

    def _open(self) -> Any:
        return ReadersStore(super()._open(), Reader("bob", starts_with_common=True))


class OneReaderOfMboxes(MboxHarness):
    def _open(self) -> Any:
        return ReadersStore(super()._open(), Reader("bob", starts_with_common=False))


class TestMaildirOfOne(MailboxContract, AccountStoreContract, DurableContract):
    """Whoever reads finds the contract whole."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[OneReader]:
        harness = OneReader(tmp_path)
        yield harness
        harness.registry.shut()


class TestMboxOfOne(MailboxContract, AccountStoreContract, DurableContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[OneReaderOfMboxes]:
        harness = OneReaderOfMboxes(tmp_path)
        yield harness
        harness.registry.shut()


# Two readers, the owner, two processes.


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[MaildirHarness]:
    harness = MaildirHarness(tmp_path)
    yield harness
    harness.registry.shut()


def view(mailbox: Mailbox, reader: Reader) -> Mailbox:
    seen = mailbox.seen_by(reader)
    seen.wake()
    return seen


def seen_by(mailbox: Mailbox) -> list[int]:
    return [uid for uid, message in mailbox.messages.items() if SEEN in message.flags]


def unseen(store: FileAccountStore, reader: Reader | None = None) -> int:
    return store.status("INBOX", reader=reader).unseen


def test_what_one_reader_has_seen_is_his(harness: MaildirHarness) -> None:
    """In memory, in STATUS, for the format, and after a restart."""
    inbox = harness.store.open("INBOX")
    inbox.append([NewMessage(b"a: b\r\n\r\n", READ), LETTER, LETTER])
    bob, carol = view(inbox, BOB), view(inbox, CAROL)
    bob.change_flags([Uid(1), Uid(2)], frozenset({SEEN, FLAGGED}), StoreMode.ADD)
    carol.change_flags([Uid(3)], READ, StoreMode.ADD)
    (own,) = bob.append([NewMessage(b"c: d\r\n\r\n", READ)])
    for _ in range(2):
        assert (seen_by(inbox), seen_by(bob), seen_by(carol)) == ([1], [1, 2, own], [3])
        assert [uid for uid, each in carol.messages.items() if FLAGGED in each.flags] == [1, 2]
        counts = [unseen(harness.store, reader) for reader in (None, BOB, CAROL)]
        assert counts == [3, 1, 3]
        assert sum(path.name.endswith("S") for path in harness.files()) == 1
        harness.store.close(inbox)
        assert [unseen(harness.restart(), reader) for reader in (None, BOB, CAROL)] == counts
        inbox = harness.store.open("INBOX")
        bob, carol = view(inbox, BOB), view(inbox, CAROL)


def test_the_header_of_an_mbox_tells_the_common_one(tmp_path: Path) -> None:
    """`Status:` has an R where the owner has read the message, whoever else has."""
    harness = MboxHarness(tmp_path)
    with harness.store.borrow("INBOX") as inbox:
        inbox.append([LETTER, LETTER])
        view(inbox, BOB).change_flags([Uid(1)], READ, StoreMode.ADD)
        inbox.change_flags([Uid(2)], READ, StoreMode.ADD)
    harness.registry.shut()
    with closing(standard_mailbox.mbox(harness.inbox_path)) as spool:
        assert ["R" in message.get("Status", "") for message in spool] == [False, True]


def test_who_starts_with_the_common_flags(harness: MaildirHarness) -> None:
    r"""Until a reader says otherwise a message is \Seen for him as it is for all."""
    carol = Reader("carol", starts_with_common=True)
    with harness.store.borrow("INBOX") as inbox:
        inbox.append([NewMessage(b"a: b\r\n\r\n", READ), NewMessage(b"a: b\r\n\r\n", READ), LETTER])
        seen = view(inbox, carol)
        assert seen_by(seen) == [1, 2]
        seen.change_flags([Uid(1)], READ, StoreMode.REMOVE)
        inbox.change_flags([Uid(1), Uid(3)], READ, StoreMode.ADD)
        inbox.change_flags([Uid(2)], READ, StoreMode.REMOVE)
        assert seen_by(seen) == [3] and unseen(harness.store, carol) == 2


def test_one_transaction_and_a_modseq(harness: MaildirHarness) -> None:
    """Each change has the next modseq; others are not told, and find nothing that changed."""
    inbox = harness.store.open("INBOX")
    inbox.append([LETTER, LETTER])
    bob, again, carol = view(inbox, BOB), view(inbox, BOB), view(inbox, CAROL)
    heard: list[str] = []
    for name, each in (("owner", inbox), ("bob", again), ("carol", carol)):
        each.subscribe(lambda name=name: heard.append(name))  # type: ignore[misc]
    before = inbox.highest_modseq
    assert bob.change_flags([Uid(2)], READ, StoreMode.ADD).changed == [2]
    assert set(heard) == {"bob"} and inbox.highest_modseq == before + 1
    assert again.changes_since(before).changed == [2] and again.messages[Uid(2)].modseq == before + 1
    for other in (inbox, carol):
        assert other.changes_since(before).changed == () or other.changes_since(before).changed == []
        assert other.messages[Uid(2)].modseq <= before
    assert bob.change_flags([Uid(2)], READ, StoreMode.ADD).changed == []
    assert bob.change_flags([Uid(1), Uid(2)], READ, StoreMode.REMOVE, before).modified == [2]
    assert carol.change_flags([Uid(2)], READ, StoreMode.ADD, before).modified == []
    assert bob.change_flags([Uid(1), Uid(2)], frozenset({FLAGGED}), StoreMode.REPLACE).changed == [1, 2]
    assert seen_by(bob) == [] and seen_by(carol) == [2] and set(heard) == {"bob", "carol", "owner"}
    assert bob.changes_since(Modseq(0)).changed == [1, 2]  # from state.db's memory
    harness.store.close(inbox)


def test_the_common_seen_passes_by(harness: MaildirHarness) -> None:
    """What the owner reads is no change to who has his own, not even by its modseq; all else is."""
    inbox = harness.store.open("INBOX")
    inbox.append([LETTER, LETTER])
    bob, dave = view(inbox, BOB), view(inbox, Reader("dave", starts_with_common=True))
    dave.change_flags([Uid(1)], READ, StoreMode.ADD)
    before, known = inbox.highest_modseq, [*bob.messages.values()]
    for mode in (StoreMode.ADD, StoreMode.REMOVE, StoreMode.ADD):
        inbox.change_flags([Uid(1), Uid(2)], READ, mode)
    assert bob.changes_since(before).changed == [] and [*bob.messages.values()] == known
    assert bob.changes_since(before).highest_modseq == before + 3
    assert dave.changes_since(before).changed == [2] and seen_by(dave) == [1, 2]
    assert bob.change_flags([Uid(1)], READ, StoreMode.ADD, before).changed == [1]
    inbox.change_flags([Uid(2)], frozenset({FLAGGED}), StoreMode.ADD)
    inbox.change_flags([Uid(1), Uid(2)], READ, StoreMode.REMOVE)
    assert bob.changes_since(before).changed == [1, 2] and seen_by(bob) == [1]
    now = inbox.highest_modseq
    assert [bob.messages[Uid(uid)].modseq for uid in (1, 2)] == [now - 2, now - 1]
    other = MaildirHarness(harness.state_directory.parent)
    with other.store.borrow("INBOX") as theirs:
        theirs.change_flags([Uid(1)], READ, StoreMode.ADD)
    assert bob.refresh() and bob.changes_since(now).changed == []
    other.registry.shut()
    harness.store.close(inbox)


def test_another_process_is_heard(harness: MaildirHarness) -> None:
    """Two session hosts with one namespace: a reader is told what he saw in the other, and nobody else is."""
    with harness.store.borrow("INBOX") as inbox:
        inbox.append([LETTER, LETTER])
    other = MaildirHarness(harness.state_directory.parent)
    ours, theirs = harness.store.open("INBOX"), other.store.open("INBOX")
    bob, carol = view(ours, BOB), view(ours, CAROL)
    heard: list[str] = []
    bob.subscribe(lambda: heard.append("bob"))
    carol.subscribe(lambda: heard.append("carol"))
    before = ours.highest_modseq
    view(theirs, BOB).change_flags([Uid(1)], READ, StoreMode.ADD)
    (uid,) = theirs.seen_by(BOB).append([NewMessage(b"a: b\r\n\r\n", READ)])
    assert bob.refresh() and seen_by(bob) == [1, uid] and seen_by(carol) == []
    assert bob.changes_since(before).changed == [1, uid] and carol.changes_since(before).changed == [uid]
    heard.clear()
    view(theirs, BOB).change_flags([Uid(2)], READ, StoreMode.ADD)
    assert carol.refresh() and heard == ["bob"]
    other.store.close(theirs)
    harness.store.close(ours)
    other.registry.shut()


def rows(directory: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(directory / "state.db")) as db:
        return db.execute(
            "SELECT name, uid FROM reader LEFT JOIN own_seen ON reader=id ORDER BY name, uid"
        ).fetchall()


def test_nothing_is_left_of_what_is_gone(harness: MaildirHarness) -> None:
    """Expunged messages, deleted mailboxes, and those that lost their UIDs; a renamed one keeps all."""
    store = harness.store
    store.create("Team")
    with store.borrow("Team") as team:
        team.append([LETTER, LETTER, NewMessage(b"a: b\r\n\r\n", frozenset({DELETED}))])
        view(team, BOB).change_flags([Uid(1), Uid(2), Uid(3)], READ, StoreMode.ADD)
        view(team, CAROL).change_flags([Uid(2), Uid(3)], READ, StoreMode.ADD)
        team.expunge()
        assert rows(harness.state_path) == [("bob", 1), ("bob", 2), ("carol", 2)]
    store.rename("Team", "Crew")
    assert store.status("Crew", reader=BOB).unseen == 0 and store.status("Crew", reader=CAROL).unseen == 1
    store.delete("Crew")
    assert rows(harness.state_path) == []
    store.create("Crew")
    with store.borrow("Crew") as crew:
        crew.append([LETTER, LETTER])
        assert seen_by(view(crew, BOB)) == []


def test_memory_follows_the_messages(harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that stays for years does not remember what is long gone."""
    monkeypatch.setattr(mailbox_changes, "_FEW_SAID", 10)
    inbox = harness.store.open("INBOX")
    bob = view(inbox, BOB)
    assert isinstance(bob, PrivateSeenMailbox)
    for _ in range(5):
        uids = bob.append([NewMessage(b"a: b\r\n\r\n", READ)] * 10)
        assert len(bob.own.said) <= 10 + 2 * 10
        inbox.remove(uids)
    harness.store.close(inbox)


@pytest.mark.parametrize("moves", [False, True])
def test_who_takes_a_message_along_takes_his_own_seen(harness: MaildirHarness, moves: bool) -> None:
    """COPY and MOVE out of the mailbox, into it, and from one such mailbox into another."""
    store = harness.store
    for name in ("Shared", "Other", "Own"):
        store.create(name)
    with store.borrow("Shared") as shared, store.borrow("Other") as other, store.borrow("Own") as own:
        shared.append([NewMessage(b"a: b\r\n\r\n", READ), LETTER, NewMessage(b"a: b\r\n\r\n", READ)])
        bob = view(shared, BOB)
        bob.change_flags([Uid(2)], READ, StoreMode.ADD)
        take = bob.move if moves else bob.copy
        assert take([Uid(1), Uid(2)], own) == [(1, 1), (2, 2)] and seen_by(own) == [2]
        send = own.move if moves else own.copy
        assert len(send([Uid(1), Uid(2)], other.seen_by(BOB))) == 2
        assert seen_by(other) == [] and seen_by(view(other, BOB)) == [2]
        pairs = view(other, BOB).copy([Uid(2)], shared.seen_by(BOB))
        assert [target for _, target in pairs] == [4]
        assert seen_by(shared)[-1] == 3 and seen_by(bob)[-1] == 4 and seen_by(view(shared, CAROL)) == []


def test_a_crash_leaves_what_was_answered(harness: MaildirHarness) -> None:
    """Durable before the caller knows: the next process finds it, the first never having tidied up."""
    inbox = harness.store.open("INBOX")
    inbox.append([LETTER])
    bob = view(inbox, BOB)
    bob.change_flags([Uid(1)], READ, StoreMode.ADD)
    bob.append([NewMessage(b"a: b\r\n\r\n", READ)])
    first = harness.registry
    again = harness.crash().open("INBOX")
    assert seen_by(view(again, BOB)) == [1, 2] and unseen(harness.store, BOB) == 0
    first.shut()


def test_all_or_nothing(harness: MaildirHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Where \Seen cannot be kept, the common flags of the same STORE are not changed either."""
    inbox = harness.store.open("INBOX")
    inbox.append([LETTER])
    bob = view(inbox, BOB)

    def fail(*arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(inbox._state, "set_seen", fail)  # type: ignore[attr-defined]
        with pytest.raises(StoreFailure):
            bob.change_flags([Uid(1)], frozenset({SEEN, FLAGGED}), StoreMode.ADD)
    assert bob.messages[Uid(1)].flags == inbox.messages[Uid(1)].flags == frozenset()
    bob.change_flags([Uid(1)], frozenset({SEEN, FLAGGED}), StoreMode.ADD)
    assert bob.messages[Uid(1)].flags == {SEEN, FLAGGED}
    harness.store.close(inbox)


def test_an_older_release_in_between(harness: MaildirHarness) -> None:
    """It expunges and deletes without knowing of readers, and nobody has seen too much, or too little."""
    store = harness.store
    store.create("Team")
    for name in ("INBOX", "Team"):
        with store.borrow(name) as box:
            box.append([NewMessage(b"Subject: first\r\n\r\n"), LETTER])
            view(box, BOB).change_flags([Uid(1), Uid(2)], READ, StoreMode.ADD)
    first = harness.file_of(Uid(1))
    harness.registry.shut()
    assert downgrade(str(harness.state_path))
    with closing(sqlite3.connect(harness.state_path / "state.db", isolation_level=None)) as old:
        old.execute("DELETE FROM message WHERE uid=1")
        old.execute("DELETE FROM mailbox WHERE name='Team'")
        (left,) = old.execute("SELECT count(*) FROM own_seen").fetchone()
        assert left == 4
    first.unlink()
    store = harness.restart()
    assert unseen(store, BOB) == 0
    with store.borrow("INBOX") as inbox:
        inbox.append([LETTER])
        assert seen_by(view(inbox, BOB)) == [2] and unseen(store, BOB) == 1
        view(inbox, CAROL).change_flags([Uid(2)], READ, StoreMode.ADD)
    assert ("bob", 2) in rows(harness.state_path) and len(rows(harness.state_path)) == 3  # strays went


# At random, against a model.

READERS = {"bob": BOB, "carol": CAROL, "dave": Reader("dave", starts_with_common=True)}
WHO = st.sampled_from(["", *READERS])
SOME = st.lists(st.integers(0, 7), max_size=5)
_NUMBERS = count()
FLAGS = st.frozensets(st.sampled_from([SEEN, FLAGGED, b"Blue"]))


class Readers(RuleBasedStateMachine):
    """One mailbox, its owner and three readers; `seen` and `common` say what must be.

    A reader keeps up by `changes_since` alone, as a session does, and must know all that he sees, and hear
    of nothing else.
    """

    location = "maildir:~/Maildir"

    def __init__(self) -> None:
        super().__init__()
        self.common: dict[int, set[bytes]] = {}
        self.said: dict[str, dict[int, bool]] = {name: {} for name in READERS}

    @initialize()
    def begin(self) -> None:
        self.harness = FileHarness(self.root / str(next(_NUMBERS)), self.location)
        self._look()
        self.cache: dict[str, dict[Uid, Message]] = {name: {} for name in READERS}
        self.known = {name: Modseq(0) for name in READERS}

    root: Path

    def _look(self) -> None:
        self.inbox = self.harness.store.open("INBOX")
        self.views = {name: view(self.inbox, reader) for name, reader in READERS.items()}

    def _uids(self, places: list[int]) -> list[Uid]:
        uids = sorted(self.common)
        return sorted({Uid(uids[place]) for place in places if place < len(uids)})

    def _flags(self, name: str, uid: int) -> set[bytes]:
        common = self.common[uid]
        if not name:
            return common
        default = SEEN in common and READERS[name].starts_with_common
        is_seen = self.said[name].get(uid, default)
        return (common - {SEEN}) | ({SEEN} if is_seen else set())

    def _set(self, name: str, uid: int, new: set[bytes]) -> None:
        if name:
            if (SEEN in new) != (SEEN in self._flags(name, uid)):
                self.said[name][uid] = SEEN in new
            new = (new - {SEEN}) | (self.common[uid] & {SEEN})
        self.common[uid] = new

    def _mailbox(self, name: str) -> Mailbox:
        return self.views[name] if name else self.inbox

    @rule(name=WHO, flags=FLAGS)
    def append(self, name: str, flags: frozenset[bytes]) -> None:
        (uid,) = self._mailbox(name).append([NewMessage(LETTER.content, flags)])
        self.common[uid] = set(flags)
        if name and SEEN in flags:
            self.common[uid].discard(SEEN)
            self.said[name][uid] = True

    @rule(name=WHO, places=SOME, flags=FLAGS, mode=st.sampled_from(StoreMode))
    def store(self, name: str, places: list[int], flags: frozenset[bytes], mode: StoreMode) -> None:
        uids = self._uids(places)
        changed = []
        for uid in uids:
            old = self._flags(name, uid)
            new = {"+": old | flags, "-": old - flags, "": set(flags)}[mode.value]
            if new != old:
                changed.append(uid)
                self._set(name, uid, new)
        assert self._mailbox(name).change_flags(uids, flags, mode).changed == changed

    @rule(name=WHO, places=SOME)
    def remove(self, name: str, places: list[int]) -> None:
        for uid in self._mailbox(name).remove(self._uids(places)):
            del self.common[uid]
            for said in self.said.values():
                said.pop(uid, None)

    @rule(name=WHO, goal=WHO, places=SOME)
    def copy(self, name: str, goal: str, places: list[int]) -> None:
        uids = self._uids(places)
        before = {uid: set(self._flags(name, uid)) for uid in uids}
        for source, copied in self._mailbox(name).copy(uids, self._mailbox(goal)):
            flags = before[source]
            self.common[copied] = flags - {SEEN} if goal else flags
            if goal and SEEN in flags:
                self.said[goal][copied] = True

    @rule(tidily=st.booleans())
    def restart(self, tidily: bool) -> None:
        old = self.harness.registry
        if tidily:
            self.harness.restart()
        else:
            self.harness.crash()
        self._look()
        if not tidily:
            old.shut()

    @invariant()
    def everybody_sees_what_is_his(self) -> None:
        if not hasattr(self, "harness"):
            return
        assert {uid: each.flags for uid, each in self.inbox.messages.items()} == self.common
        for name, seen in self.views.items():
            expected = {uid: self._flags(name, uid) for uid in self.common}
            assert {uid: each.flags for uid, each in seen.messages.items()} == expected
            unread = sum(SEEN not in flags for flags in expected.values())
            assert self.harness.store.status("INBOX", reader=READERS[name]).unseen == unread
            changes = seen.changes_since(self.known[name])
            cache = self.cache[name]
            for uid in changes.expunged:
                cache.pop(uid, None)
            told = {uid: seen.messages[uid] for uid in changes.changed}
            assert all(uid not in cache or cache[uid].flags != each.flags for uid, each in told.items())
            cache.update(told)
            self.known[name] = changes.highest_modseq
            assert {uid: each.flags for uid, each in cache.items()} == expected
            assert all(each.modseq <= seen.highest_modseq for each in cache.values())

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            self.harness.registry.shut()


@pytest.mark.parametrize("location", ["maildir:~/Maildir", "mbox:~/mail:INBOX=~/inbox"])
def test_at_random(tmp_path: Path, location: str) -> None:
    """Whatever the owner and three readers do, each sees what the model says, and hears of all of it."""
    case = type("Case", (Readers,), {"root": tmp_path, "location": location}).TestCase
    case.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
    case("runTest").runTest()
