"""COPY and MOVE between accounts, with the owner's host gone between any two steps: nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from mailserver.guests import served_mailbox
from mailserver.guests.frames import BadFrame, Header
from mailserver.guests.served_mailbox import ServedMailbox
from mailserver.store.acl import parse_acl
from mailserver.store.contract import (
    AccessDenied,
    AccountStore,
    Mailbox,
    MessageGone,
    NewMessage,
    StoreError,
    Uid,
)
from tests.guests.harness import NeighbourServer

CONTENTS = [b"Subject: %d\r\n\r\n%d\r\n" % (n, n) for n in range(3)]
KEPT = frozenset({b"\\Flagged", b"Blue", b"\\Seen"})
PLACES = [("alice", "Team"), ("alice", "Other"), ("carol", "Box"), ("alice", "Public/Box"), ("bob", "Mine")]
DIRECTIONS = {
    "out": ("shared/alice/Team", "Mine"),
    "in": ("Mine", "shared/alice/Team"),
    "across": ("shared/alice/Team", "shared/carol/Box"),
    "within": ("shared/alice/Team", "shared/alice/Other"),
    "public": ("shared/alice/Team", "Public/Box"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeighbourServer]:
    """Team and Other of Alice's, Box of Carol's, Public/Box; Mine is Bob's."""
    server = NeighbourServer(tmp_path_factory.mktemp("copies"))
    stores = {name: server.hosts.open(server.people[name]) for name in ("alice", "bob", "carol")}
    for owner, name in PLACES:
        stores[owner].create(name)
    yield server
    server.close()


@pytest.fixture
def server(made: NeighbourServer) -> NeighbourServer:
    """Bob may do all with them, and they are empty."""
    for owner, name in PLACES:
        store = made.hosts.open(made.people[owner])
        store.change_acl(name, lambda acl: parse_acl("user=bob lrswite\nuser=alice lrswitea\n"))
        with store.borrow(name) as mailbox:
            mailbox.remove(list(mailbox.uids))
    return made


def bob(server: NeighbourServer) -> AccountStore:
    return server.hosts.open(server.people["bob"])


def contents(mailbox: Mailbox) -> list[bytes]:
    return [mailbox.read(uid) for uid in mailbox.uids]


def where(server: NeighbourServer, name: str) -> list[bytes]:
    """What lies there, looked at anew."""
    with bob(server).borrow(name) as mailbox:
        return contents(mailbox)


def filled(server: NeighbourServer, name: str) -> Mailbox:
    mailbox = bob(server).open(name)
    mailbox.append([NewMessage(content, KEPT, 1_600_000_000 + n) for n, content in enumerate(CONTENTS)])
    return mailbox


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op", ["copy", "move"])
def test_what_goes_along(server: NeighbourServer, direction: str, op: str) -> None:
    """Content, flags, keywords and internal date, in order; with MOVE the sources go, and only those."""
    source, target = DIRECTIONS[direction]
    mailbox = filled(server, source)
    with bob(server).borrow(target) as other:
        (before,) = other.append([NewMessage(b"Subject: x\r\n\r\n")])
        first, _, last = mailbox.uids
        pairs = getattr(mailbox, op)([first, last, Uid(last + 9)], other)
        assert list(pairs) == [(first, before + 1), (last, before + 2)]
    with bob(server).borrow(target) as other:
        assert contents(other)[1:] == [CONTENTS[0], CONTENTS[2]]
        kept = [other.messages[copy][1::2] for _, copy in pairs]
        assert kept == [(KEPT, 1_600_000_000), (KEPT, 1_600_000_002)]
    assert where(server, source) == (CONTENTS if op == "copy" else [CONTENTS[1]])
    bob(server).close(mailbox)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("rights", "op"), [("lrswte", "copy"), ("lrswte", "move"), ("l", "copy")])
def test_without_the_right(server: NeighbourServer, direction: str, rights: str, op: str) -> None:
    """A target takes `i`: else nothing is read or changed. RFC 4314 §4."""
    source, target = DIRECTIONS[direction]
    if not target.startswith("shared"):
        return
    mailbox = filled(server, source)
    _, owner, name = target.split("/")
    with bob(server).borrow(target) as other:
        account = server.people[owner]
        server.hosts.own[owner].acls.update(account, name, lambda acl: parse_acl(f"user=bob {rights}\n"))
        with pytest.raises(AccessDenied):
            getattr(mailbox, op)(list(mailbox.uids), other)
    server.hosts.own[owner].acls.update(account, name, lambda acl: parse_acl("user=bob lr\n"))
    assert where(server, source) == CONTENTS and where(server, target) == []


def test_move_takes_what_expunge_takes(server: NeighbourServer) -> None:
    """Out of a mailbox without `t` and `e` nothing is moved, and nothing copied. RFC 6851 §3.2."""
    mailbox = filled(server, "shared/alice/Team")
    account = server.people["alice"]
    server.hosts.own["alice"].acls.update(account, "Team", lambda acl: parse_acl("user=bob lrswi\n"))
    with bob(server).borrow("Mine") as mine, pytest.raises(AccessDenied):
        mailbox.move(list(mailbox.uids), mine)
    assert where(server, "Mine") == []


STEPS = [
    ("out", "copy", "read_batch"),
    ("out", "move", "read_batch"),
    ("out", "move", "check_rights"),
    ("out", "move", "remove"),
    ("in", "copy", "append"),
    ("in", "move", "check_rights"),
    ("in", "move", "append"),
    ("across", "copy", "read_batch"),
    ("across", "copy", "append"),
    ("across", "move", "append"),
    ("across", "move", "remove"),
    ("within", "copy", "copy"),
    ("within", "move", "move"),
    ("public", "move", "remove"),
]


@pytest.mark.parametrize(("direction", "op", "step"), STEPS)
@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
def test_kills(
    server: NeighbourServer,
    monkeypatch: pytest.MonkeyPatch,
    direction: str,
    op: str,
    step: str,
    is_done: bool,
) -> None:
    """The owner's host goes before or after any step: all messages are somewhere, and success is true."""
    source, target = DIRECTIONS[direction]
    mailbox = filled(server, source)
    was_reached = _kill_at(server, monkeypatch, step, is_done)
    try:
        with bob(server).borrow(target) as other:
            pairs = getattr(mailbox, op)(list(mailbox.uids), other)
    except StoreError:
        pairs = []
    assert was_reached
    monkeypatch.undo()
    server.hosts.kill()
    left, came = where(server, source), where(server, target)
    assert set(left) | set(came) == set(CONTENTS)
    assert came in ([], CONTENTS) and left in ([], CONTENTS)  # all or none
    if op == "copy":
        assert left == CONTENTS
    if pairs:
        assert came == CONTENTS and (op == "copy") == bool(left)


def _kill_at(
    server: NeighbourServer, monkeypatch: pytest.MonkeyPatch, step: str, is_done: bool
) -> list[bool]:
    """The connections end at that step; true in the list once they did."""
    reached: list[bool] = []

    def end() -> None:
        reached.append(True)
        for service in server.hosts.services:
            service.close()

    if step in ("move", "copy"):
        transfer = ServedMailbox._transfer

        def transferred(self: ServedMailbox, op: str, pieces: Sequence[bytes], goal: Mailbox) -> object:
            result = transfer(self, op, pieces, goal) if is_done else None
            end()
            if result is None:
                raise BadFrame("killed")
            return result

        monkeypatch.setattr(ServedMailbox, "_transfer", transferred)
        return reached
    act = served_mailbox._OPS[step]

    def acted(served: ServedMailbox, header: Header, pieces: Sequence[bytes]) -> object:
        result = act(served, header, pieces) if is_done else None
        end()
        if result is None:
            raise BadFrame("killed")
        return result

    monkeypatch.setitem(served_mailbox._OPS, step, acted)  # type: ignore[arg-type]
    return reached


def test_both_ways_at_once(server: NeighbourServer) -> None:
    """Two users who move messages to each other all the time wait for each other and lose nothing."""
    alice, carol = (server.hosts.open(server.people[name]) for name in ("alice", "carol"))
    for store, name, guest in ((alice, "Team", "carol"), (carol, "Box", "alice")):
        store.change_acl(name, lambda acl, guest=guest: parse_acl(f"user={guest} lrswite\n"))  # type: ignore[misc]
        with store.borrow(name) as mailbox:
            mailbox.append([NewMessage(name.encode() + content) for content in CONTENTS])

    def move_all(store: AccountStore, source: str, target: str) -> None:
        for _ in range(8):
            with suppress(MessageGone), store.borrow(source) as mailbox, store.borrow(target) as other:
                mailbox.move(list(mailbox.uids), other)  # unless the other user has it already

    with ThreadPoolExecutor(4) as pool:
        moving = [
            pool.submit(move_all, *each)
            for each in (
                (alice, "Team", "shared/carol/Box"),
                (carol, "Box", "shared/alice/Team"),
                (alice, "shared/carol/Box", "Team"),
                (carol, "shared/alice/Team", "Box"),
            )
        ]
        for each in moving:
            each.result(120)
    found = []
    for store, name in ((alice, "Team"), (carol, "Box")):
        with store.borrow(name) as mailbox:
            found += contents(mailbox)
    assert set(found) == {name + content for name in (b"Team", b"Box") for content in CONTENTS}
