"""A mailbox behind its owner's host keeps the contract of all mailboxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailserver.guests.mailbox import GuestMailbox
from mailserver.guests.visiting import VisitingStore
from mailserver.store.acl import parse_acl
from mailserver.store.contract import AccountStore, Mailbox, Uid
from mailserver.store.maildir import deposit
from tests.guests.harness import NeighbourServer
from tests.store.contract_suite import MailboxContract

_PREFIX = "shared/alice/"


class Renaming:
    """Alice's mailboxes by their names there, as Bob has them; new ones she makes herself."""

    def __init__(self, server: NeighbourServer) -> None:
        self.server = server
        self.alice = server.hosts.open(server.people["alice"])
        self.bob = server.hosts.open(server.people["bob"])

    def give(self, name: str) -> None:
        self.alice.change_acl(name, lambda acl: parse_acl("user=bob lrswipkxtea\n"))

    def open(self, name: str) -> Mailbox:
        return self.bob.open(_PREFIX + name)

    def close(self, mailbox: Mailbox) -> None:
        self.bob.close(mailbox)

    def create(self, name: str, special_use: bytes = b"") -> None:
        self.alice.create(name, special_use)
        self.give(name)

    def delete(self, name: str) -> None:
        self.bob.delete(_PREFIX + name)

    def rename(self, old: str, new: str) -> None:
        self.bob.rename(_PREFIX + old, _PREFIX + new)

    def status(self, name: str, *arguments: Any) -> Any:
        return self.bob.status(_PREFIX + name, *arguments)


class GuestHarness:
    """Alice's maildir."""

    def __init__(self, root: Path) -> None:
        self.server = NeighbourServer(root)
        self.store: Any = Renaming(self.server)
        self.store.give("INBOX")

    @property
    def inbox(self) -> Path:
        return Path(self.server.people["alice"].home, "Maildir")

    def deliver(self, content: bytes) -> None:
        deposit(str(self.inbox), [content.replace(b"\r\n", b"\n")], "host.example")

    def vanish(self, uid: Uid) -> None:
        found = [path for name in ("new", "cur") for path in (self.inbox / name).iterdir()]
        sorted(found, key=lambda path: path.name)[0].unlink()


class TestGuest(MailboxContract):
    """Whoever has all rights finds the contract whole."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[GuestHarness]:
        harness = GuestHarness(tmp_path)
        inbox = harness.store.open("INBOX")
        assert isinstance(inbox, GuestMailbox)
        harness.store.close(inbox)
        yield harness
        assert not harness.server.hosts.log.lines
        harness.server.close()


@pytest.mark.parametrize(("contract", "ours"), [(Mailbox, GuestMailbox), (AccountStore, VisitingStore)])
def test_nothing_passes_by(contract: type, ours: type) -> None:
    """Whatever the contract gets is asked of the owner's host, but for what is said here."""
    public = {name for name in vars(contract) if not name.startswith("_")}
    made_here = {"is_own", "namespace", "sleeping", "wake", "seen_by", "is_current", "file_names", "texts"}
    assert public - made_here - set(vars(ours)) <= {"uidvalidity", "mailbox_id", "name"}
