"""The gate before the stores: the contract holds through it, and what it adds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mailserver.store.acl import Person, parse_acl
from mailserver.store.acl_files import AclFiles
from mailserver.store.contract import (
    DELETED,
    SEEN,
    AccessDenied,
    AccountStore,
    BadMailboxName,
    Mailbox,
    NewMessage,
    NoSuchMailbox,
    StoreMode,
)
from mailserver.store.guarded import GuardedMailbox
from mailserver.store.namespaces import NamespaceRules, checked_prefix, checked_shared_prefix
from mailserver.store.registry import layout_of
from mailserver.store.shared_boxes import SharedBoxes
from mailserver.store.sharing import SharingRegistry, SharingStore
from tests.imapd.sharing import SharingServer
from tests.store.contract_suite import AccountStoreContract, MailboxContract, NamesContract
from tests.store.harness import MaildirHarness


class SharedHarness(MaildirHarness):
    """Alice's maildir behind the gate, INBOX with an ACL of its own."""

    def _behind(self) -> SharingStore:
        acls = AclFiles(partial(layout_of, layout_for=lambda account: self.layout), lambda text: None)
        boxes = SharedBoxes(str(self.state_directory / "shared-mailboxes"))
        rules = NamespaceRules("shared/%u/")
        acls.update(self.account, "INBOX", lambda acl: parse_acl("user=bob lr\n"))
        registry = SharingRegistry(
            self.registry, acls, boxes, lambda name: None, lambda a: frozenset(), rules
        )
        store = registry.open(self.account)
        assert isinstance(store, SharingStore)
        return store

    def _open(self) -> AccountStore:  # type: ignore[override]
        return self._behind()

    def restart(self) -> AccountStore:  # type: ignore[override]
        self.registry.shut()
        self.registry = self._make_registry()
        self.store = self._behind()  # type: ignore[assignment]
        return self.store


class TestGuarded(MailboxContract, AccountStoreContract, NamesContract):
    """Whoever has all rights finds the contract whole."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[SharedHarness]:
        harness = SharedHarness(tmp_path)
        inbox = harness.store.open("INBOX")
        assert isinstance(inbox, GuardedMailbox)
        harness.store.close(inbox)
        yield harness
        harness.registry.shut()


@pytest.mark.parametrize(("contract", "gate"), [(Mailbox, GuardedMailbox), (AccountStore, SharingStore)])
def test_nothing_passes_by(contract: type, gate: type) -> None:
    """Whatever the contract gets, the gate decides about: no default of the contract stands in for it."""
    public = {name for name in vars(contract) if not name.startswith("_")}
    decided = {name for each in gate.__mro__[: gate.__mro__.index(contract)] for name in vars(each)}
    assert public - {"namespace"} - decided <= {"is_own"}  # which asks `home`


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SharingServer]:
    server = SharingServer(tmp_path)
    yield server
    server.close()


def stores(server: SharingServer, *names: str) -> list[AccountStore]:
    return [server.sharing.open(server.people[name]) for name in names]


def give(server: SharingServer, name: str, text: str) -> None:
    server.acls.update(server.people["alice"], name, lambda acl: parse_acl(text))


def test_own_mailboxes_are_given_as_they_are(server: SharingServer) -> None:
    """Where no ACL is, nothing stands between a session and its mail."""
    (alice,) = stores(server, "alice")
    inbox = alice.open("INBOX")
    assert not isinstance(inbox, GuardedMailbox) and not inbox.is_guarded
    alice.close(inbox)


def test_one_mailbox_for_all(server: SharingServer) -> None:
    """Two users of a mailbox have the same UIDs, and one hears what the other does."""
    alice, bob = stores(server, "alice", "bob")
    give(server, "INBOX", "user=bob lrswite\n")
    own, shared = alice.open("INBOX"), bob.open("shared/alice/INBOX")
    heard: list[str] = []
    own.subscribe(lambda: heard.append("own"))
    shared.subscribe(lambda: heard.append("shared"))
    (uid,) = shared.append([NewMessage(b"Subject: x\r\n\r\n")])
    assert own.uids == shared.uids == [uid]
    assert own.uidvalidity == shared.uidvalidity and {"own", "shared"} <= set(heard)
    bob.close(shared)
    alice.close(own)


def test_copies_keep_the_flags_that_may_be_set(server: SharingServer) -> None:
    """COPY and MOVE out of an own mailbox into another's: RFC 4314 §4's example."""
    alice, bob = stores(server, "alice", "bob")
    alice.create("Target")
    give(server, "Target", "user=bob rwis\n")
    flags = frozenset({SEEN, DELETED, b"$Forwarded"})
    inbox = bob.open("INBOX")
    uids = inbox.append([NewMessage(b"a: b\r\n\r\n", flags), NewMessage(b"c: d\r\n\r\n", flags)])
    with bob.borrow("shared/alice/Target") as target:
        assert len(inbox.copy(uids[:1], target)) == 1
        assert len(inbox.move(uids[1:], target)) == 1
    assert inbox.uids == uids[:1]
    with alice.borrow("Target") as target:
        assert [message.flags for message in target.messages.values()] == [{SEEN, b"$Forwarded"}] * 2
    give(server, "Target", "user=bob l\n")
    with pytest.raises(AccessDenied), bob.borrow("shared/alice/Target") as target:
        inbox.copy(uids[:1], target)
    bob.close(inbox)


def test_store_replaces_what_may_be_changed(server: SharingServer) -> None:
    """STORE FLAGS leaves alone the flags that the user may not change."""
    alice, bob = stores(server, "alice", "bob")
    give(server, "INBOX", "user=bob lrs\n")
    with alice.borrow("INBOX") as own:
        (uid,) = own.append([NewMessage(b"a: b\r\n\r\n", frozenset({DELETED, SEEN, b"Blue"}))])
        with bob.borrow("shared/alice/INBOX") as shared:
            done = shared.change_flags([uid], frozenset(), StoreMode.REPLACE)
            assert done.changed == [uid] and own.messages[uid].flags == {DELETED, b"Blue"}
            shared.change_flags([uid], frozenset({SEEN, b"Red"}), StoreMode.REPLACE)
            assert own.messages[uid].flags == {DELETED, b"Blue", SEEN}
            stale = shared.change_flags([uid], frozenset(), StoreMode.REPLACE, own.messages[uid].modseq)
            assert stale.changed == [uid]
            with pytest.raises(AccessDenied):
                shared.change_flags([uid], frozenset({b"Red"}), StoreMode.ADD)


def test_an_own_mailbox_with_a_shared_name(server: SharingServer) -> None:
    """A mailbox from before there were namespaces stays its owner's, and stays in the list."""
    store = server.files.open(server.people["bob"])
    store.create("shared/alice/INBOX")
    (bob,) = stores(server, "bob")
    give(server, "INBOX", "user=bob lr\n")
    give(server, "Drafts", "user=bob lr\n")
    with bob.borrow("shared/alice/INBOX") as mine:
        mine.append([NewMessage(b"a: b\r\n\r\n")])
    assert bob.my_rights("shared/alice/INBOX") >= {"x", "a"}
    names = [folder.name for folder in bob.folders()]
    assert names.count("shared/alice/INBOX") == 1
    server.files.close(store)


def test_acl_of_a_deleted_mailbox(server: SharingServer) -> None:
    """An ACL goes with its mailbox: who makes the mailbox again begins anew. RFC 4314 §4."""
    alice, bob = stores(server, "alice", "bob")
    alice.create("Team/Sub")
    alice.create("Team")
    alice.change_acl("Team", lambda acl: parse_acl("user=bob lr\n"))
    assert bob.my_rights("shared/alice/Team") == {"l", "r"}
    alice.delete("Team")
    alice.create("Team")
    with pytest.raises(NoSuchMailbox):
        bob.my_rights("shared/alice/Team")
    assert not server.sharing.boxes.owners_for(Person("bob"))


def test_where_accounts_cannot_share(server: SharingServer) -> None:
    """With system accounts a right for another user is refused: it would come to nothing."""
    server.sharing.rules = NamespaceRules("", server.rules.public)
    (alice,) = stores(server, "alice")
    with pytest.raises(AccessDenied, match="cannot share"):
        alice.change_acl("INBOX", lambda acl: parse_acl("user=bob lr\n"))
    alice.change_acl("INBOX", lambda acl: parse_acl("owner lra\n"))
    alice.change_acl("Public", lambda acl: parse_acl("user=alice lra\nuser=bob lr\n"))
    assert alice.namespaces().other_users == []


@pytest.mark.parametrize(
    "prefix", ["shared/", "shared", "shared/%u", "%u/", "INBOX/%u/", "a//%u/", "~/%u/", "s/%n/"]
)
def test_prefixes(prefix: str) -> None:
    """A prefix that no mailbox's name could begin with is refused."""
    with pytest.raises(ValueError, match="prefix"):
        checked_shared_prefix(prefix)


def test_good_prefixes() -> None:
    """Dovecot's %%u is read, too."""
    assert checked_shared_prefix("user/%%u/") == "user/%u/"
    assert checked_shared_prefix("") == ""
    assert checked_prefix("Team mail/") == "Team mail/"


def test_what_cannot_be_read_gives_no_rights(server: SharingServer) -> None:
    """A damaged ACL does not fall back to the namespace's: it may have withheld what that grants."""
    (alice,) = stores(server, "alice")
    alice.create("Public/Box")
    path = server.public_root / ".Box" / "dovecot-acl"
    path.write_text("user=dave l\n")
    for damaged in (path, server.public_root / "dovecot-acl"):
        whole = damaged.read_bytes()
        damaged.write_text("user=alice lr?\n")
        with pytest.raises(NoSuchMailbox):
            alice.open("Public/Box")
        assert "Public/Box" not in [folder.name for folder in alice.folders()]
        damaged.write_bytes(whole)
    alice.close(alice.open("Public/Box"))
    give(server, "INBOX", "owner lra\n")
    Path(server.people["alice"].home, "Maildir", "dovecot-acl").write_text("user=alice\tl?\n")
    alice.close(alice.open("INBOX"))


def test_own_mailboxes_are_listed_whatever_becomes_of_others(server: SharingServer) -> None:
    """An account whose mail cannot be read, or a lost index, hides what it shares and nothing else."""
    alice, bob = stores(server, "alice", "bob")
    alice.change_acl("INBOX", lambda acl: parse_acl("user=bob lr\n"))
    assert "shared/alice/INBOX" in [folder.name for folder in bob.folders()]
    maildir = Path(server.people["alice"].home, "Maildir")
    maildir.rename(maildir.with_name("aside"))
    maildir.write_text("")
    assert next(folder.name for folder in bob.folders() if folder.is_personal) == "INBOX"
    assert "not in the list of bob" in server.warnings[-1]
    maildir.unlink()
    maildir.with_name("aside").rename(maildir)
    index = server.public_root.parent / "shared-mailboxes"
    index.unlink()
    index.mkdir()
    assert next(folder.name for folder in bob.folders()) == "INBOX"
    assert "does not see what others share" in server.warnings[-1]


def test_into_another_namespace(server: SharingServer) -> None:
    """A mailbox stays in its namespace."""
    (alice,) = stores(server, "alice")
    alice.create("Work")
    with pytest.raises(BadMailboxName, match="namespace"):
        alice.rename("Work", "Public/Work")
