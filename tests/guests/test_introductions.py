"""Who may visit whom: the kernel's word, and the indexes of owners."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mailserver.accounts.account import Account
from mailserver.guests import introductions, sharers
from mailserver.guests.introductions import Introducer, Introductions
from mailserver.guests.sharers import Sharers
from mailserver.maillog import ListLog
from mailserver.rights.listeners import listen_channel
from mailserver.rights.messages import Message
from mailserver.rights.user_service import UserService
from mailserver.store.acl import Person, parse_acl
from mailserver.store.contract import NoSuchMailbox, StoreFailure
from mailserver.store.shared_boxes import OWN_INDEX, SharedBoxes

BOB = 4242


class Accounts:
    """Bob, whose uid is BOB, and owners who are nobody of this system."""

    def __init__(self) -> None:
        self.known = {
            "bob": Account("bob", BOB, BOB, "/"),
            "alice": Account("alice", 4243, 4243, "/"),
            "shut": Account("shut", 4244, 4244, "/", may_login=False),
            "root": Account("root", 0, 0, "/"),
        }

    def lookup(self, name: str) -> Account | None:
        return self.known.get(name.lower())

    def names(self) -> Iterator[str]:
        return iter(self.known)


def share(directory: Path, owner: str, acl: str, of_any_right: bool = True) -> Path:
    """The owner's index says what that ACL of a mailbox means."""
    path = directory / owner / OWN_INDEX
    SharedBoxes(str(path), of_any_right=of_any_right).set(owner, [parse_acl(acl)])
    return path


class Fixture:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, anybody_may: bool = False) -> None:
        self.directory = directory
        self.accounts = Accounts()
        self.attached: list[tuple[Message, Message]] = []
        self.now = 0.0
        self.log = ListLog()
        names = {BOB: "bob", 0: "root", 99: "proxy"}
        monkeypatch.setattr(introductions.pwd, "getpwuid", lambda uid: _Named(names[uid]))
        self.introductions = Introductions(
            self.accounts, lambda account: frozenset({"staff"}), Sharers(str(directory)), self.attach,
            {99}, self.log, anybody_may, lambda: self.now,
        )  # fmt: skip

    def attach(self, owner: Message, stream: int, guest: Message) -> None:
        self.attached.append((owner, guest))
        os.write(stream, b"here")

    def ask(self, uid: int = BOB, **question: object) -> Message:
        answer = self.introductions.handle(uid, question)
        for descriptor in answer.descriptors:
            assert os.read(descriptor, 4) == b"here"
            os.close(descriptor)
        return answer.message


class _Named:
    def __init__(self, name: str) -> None:
        self.pw_name = name


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(tmp_path, monkeypatch)


def test_who_asks_is_the_kernels_word(fixture: Fixture) -> None:
    """The owner's host hears of the name and groups of the uid, whatever the question says."""
    share(fixture.directory, "alice", "user=bob lr\n")
    assert fixture.ask(ask="owners") == {"owners": ["alice"]}
    said = {"name": "alice", "guest": {"name": "root"}, "groups": ["wheel"]}
    assert fixture.ask(ask="visit", owner="alice", **said) == {"attached": True}
    ((owner, guest),) = fixture.attached
    assert owner["name"] == "alice" and guest == {"name": "bob", "groups": ["staff"]}


@pytest.mark.parametrize("uid", [0, 99])
def test_nobodys(fixture: Fixture, uid: int) -> None:
    """Root and the server's own user are nobody's guests."""
    share(fixture.directory, "alice", "anyone lr\n")
    fixture.accounts.known["proxy"] = Account("proxy", 99, 99, "/")
    for question in ({"ask": "owners"}, {"ask": "visit", "owner": "alice"}):
        assert fixture.ask(uid, **question) == {"error": "nothing"}


@pytest.mark.parametrize("owner", ["alice", "nobody", "bob", "shut", "root", "ALICE", "../alice", ""])
def test_where_nothing_is_shared(fixture: Fixture, owner: str) -> None:
    """The same answer for accounts that share nothing, for the asker's own, and for what is no account."""
    for name in ("nobody", "bob", "shut", "root"):
        share(fixture.directory, name, "user=bob lr\n")
    share(fixture.directory, "alice", "user=carol lr\n")
    assert fixture.ask(ask="visit", owner=owner) == {"error": "nothing"} and not fixture.attached


@pytest.mark.parametrize("acl", ["anyone lr\n", "authenticated l\n", "group=staff r\n", "user=bob p\n"])
def test_any_right_of_any_kind(fixture: Fixture, acl: str) -> None:
    """Who may only post to a mailbox is brought there too."""
    share(fixture.directory, "alice", acl)
    assert fixture.ask(ask="visit", owner="alice") == {"attached": True}


def test_an_account_of_another_name_is_not_the_users(fixture: Fixture) -> None:
    """One with the uid and another name, with the name and another uid, or a closed one: none is his."""
    share(fixture.directory, "alice", "user=bob lr\n")
    for account in (
        None,
        Account("bob", 4250, 4250, "/"),
        Account("robert", BOB, BOB, "/"),
        Account("bob", BOB, BOB, "/", may_login=False),
    ):
        fixture.accounts.known.pop("bob", None)
        if account is not None:
            fixture.accounts.known["bob"] = account
        assert fixture.ask(ask="visit", owner="alice") == {"error": "nothing"}


@pytest.mark.parametrize("question", [{}, {"ask": "visit"}, {"ask": 3}, {"ask": "visit", "owner": ["alice"]}])
def test_what_is_no_question(fixture: Fixture, question: dict[str, Any]) -> None:
    """It is refused, and nobody is reached."""
    with pytest.raises(ValueError, match=r"owner|question"):
        fixture.ask(**question)


def test_floods(fixture: Fixture) -> None:
    """So many visits a minute, and no more until it is over."""
    share(fixture.directory, "alice", "user=bob lr\n")
    for _ in range(introductions.MOST_VISITS):
        assert "attached" in fixture.ask(ask="visit", owner="alice")
    assert fixture.ask(ask="visit", owner="alice") == {"error": "now"}
    fixture.now = 61.0
    assert "attached" in fixture.ask(ask="visit", owner="alice")


def test_global_acls_may_share_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the administrator has ACLs of his own, any account may be asked, but none that is closed."""
    fixture = Fixture(tmp_path, monkeypatch, anybody_may=True)
    assert "attached" in fixture.ask(ask="visit", owner="alice")
    assert fixture.ask(ask="visit", owner="shut") == {"error": "nothing"}


def _link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to(path.with_name("aside"))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _large(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(2 * 1024 * 1024)


@pytest.mark.parametrize("change", [_link, _fifo, _directory, _large])
def test_an_index_that_is_no_plain_file(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """It shares nothing, and nobody waits for it."""
    path = share(tmp_path, "alice", "user=bob lr\n")
    share(tmp_path, "carol", "user=bob lr\n")
    change(path)
    assert Sharers(str(tmp_path)).owners_for(Person("bob")) == ["carol"]


def test_an_index_of_another_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in a directory of somebody else's does not count: a hard link shows nobody another's file."""
    share(tmp_path, "alice", "user=bob lr\n")
    known = Sharers(str(tmp_path))
    monkeypatch.setattr(sharers, "_owner_of", lambda directory: os.geteuid() + 1)
    assert known.owners_for(Person("bob")) == []


def test_an_owner_speaks_for_himself_alone(tmp_path: Path) -> None:
    """Entries about other owners are passed over; the index is read again when it changes."""
    known = Sharers(str(tmp_path))
    SharedBoxes(str(tmp_path / "alice" / OWN_INDEX)).set("carol", [parse_acl("user=bob lr\n")])
    assert known.owners_for(Person("bob")) == []
    share(tmp_path, "alice", "user=bob lr\n")
    assert known.owners_for(Person("bob")) == ["alice"]
    share(tmp_path, "alice", "user=bobby lr\n")
    assert known.owners_for(Person("bob")) == []


def test_over_the_channel(tmp_path: Path) -> None:
    """What the asker's side makes of the answers: a stream, nothing, or a fault that passes."""
    ours, theirs = socket.socketpair()
    answers: list[Any] = []
    service = UserService(
        listen_channel(str(tmp_path / "guests"), 0o666), lambda uid, question: answers.pop(0), ListLog()
    )
    service.start()
    introducer = Introducer(str(tmp_path / "guests"))
    answers.append(introductions.Answer({"attached": True}, (os.dup(theirs.fileno()),)))
    with introducer.visit("alice") as stream:
        ours.send(b"hello")
        assert stream.recv(5) == b"hello"
    answers.append({"error": "nothing"})
    with pytest.raises(NoSuchMailbox):
        introducer.visit("alice")
    answers += [{"error": "now"}, {"attached": True}, {"error": "internal"}]
    for _ in range(3):
        with pytest.raises(StoreFailure):
            introducer.visit("alice")
    answers.append({"owners": ["alice", "../x", 3, "a\nb"]})
    assert introducer.owners() == ["alice"]
    service.stop()
    with pytest.raises(StoreFailure):
        Introducer(str(tmp_path / "nowhere")).owners()
    ours.close()
    theirs.close()


def test_where_the_helper_has_no_time(tmp_path: Path) -> None:
    """Many threads of a host ask at once, more than a user may: each has its answer, sooner or later."""
    service = UserService(
        listen_channel(str(tmp_path / "guests"), 0o666), lambda uid, question: {"owners": ["alice"]},
        ListLog(), most_of_a_user=1, most_connections=1,
    )  # fmt: skip
    service.start()
    introducer = Introducer(str(tmp_path / "guests"))
    with ThreadPoolExecutor(6) as pool:
        assert [*pool.map(lambda _: introducer.owners(), range(12))] == [["alice"]] * 12
    service.stop()
