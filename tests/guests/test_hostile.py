"""A guest's host that sends what it may not, and an owner's that answers what it may not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from mailserver.guests import connection, frames
from mailserver.guests.connection import Connection
from mailserver.guests.frames import Header, receive_frame, send_frame
from mailserver.guests.owners import OwnersMailboxes
from mailserver.guests.server import MOST_OPEN
from mailserver.guests.values import pack_uids
from mailserver.store.acl import parse_acl
from mailserver.store.contract import Mailbox, MailboxReplaced, NewMessage, StoreError, StoreMode, Uid
from tests.guests.harness import NeighbourServer

TEAM = "shared/alice/Team"
DEADLINE = 30.0


class Hostile:
    """Bob's end of a stream to Alice's host."""

    def __init__(self, server: NeighbourServer) -> None:
        self.server = server
        self.socket, theirs = socket.socketpair()
        server.hosts.serve(theirs, "bob", "alice", may_name_all=False)
        self.socket.settimeout(DEADLINE)
        self.number = 0

    def ask(self, op: object, pieces: Sequence[bytes] = (), **arguments: object) -> Header | None:
        """The answer; None where the connection has ended."""
        self.number += 1
        try:
            send_frame(self.socket, {**arguments, "id": self.number, "op": op}, pieces)
            while (found := receive_frame(self.socket)) is not None:
                if found[0].get("id") == self.number:
                    return found[0]
        except ConnectionError:
            pass
        return None

    def open(self, op: str = "open") -> int:
        answer = self.ask(op, name=TEAM)
        assert answer is not None
        return int(answer["done"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeighbourServer]:
    """Alice has Team and Private."""
    server = NeighbourServer(tmp_path_factory.mktemp("hostile"))
    alice = server.hosts.open(server.people["alice"])
    for name in ("Team", "Private"):
        alice.create(name)
        with alice.borrow(name) as mailbox:
            mailbox.append([NewMessage(b"Subject: secret\r\n\r\nsecret\r\n")])
    yield server
    server.close()


@pytest.fixture
def server(shared: NeighbourServer) -> Iterator[NeighbourServer]:
    """She shares Team with Bob."""
    alice = shared.hosts.open(shared.people["alice"])
    alice.change_acl("Team", lambda acl: parse_acl("user=bob lrswite\n"))
    yield shared
    shared.hosts.kill()
    shared.hosts.log.lines.clear()


def state(server: NeighbourServer) -> list[object]:
    found: list[object] = []
    store = server.files.open(server.people["alice"])
    for folder in store.folders():
        with store.borrow(folder.name) as mailbox:
            found.append((folder, mailbox.highest_modseq, dict(mailbox.messages), [*mailbox.keywords]))
        found += [store.annotations(folder.name), server.acls.read(server.people["alice"], folder.name)]
    server.files.close(store)
    return found


NAMES = [
    "INBOX", "Private", "Team", "shared/alice/", "shared/alice", "shared/bob/INBOX",
    "shared/alice/../Private", "shared/alice//Private", "shared/alice/./Private",
    "shared/alice/Private\0", "Public/Hidden", "", None, 7,
    ["shared/alice/Team"], "shared/alice/" + "x" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: str(name)[:30])
def test_names_that_are_none_there(server: NeighbourServer, name: object) -> None:
    """Names outside of what the owner shares are no request: the connection ends, for every operation."""
    before = state(server)
    for op in (
        "open", "borrow", "exists", "status", "create", "delete", "annotations", "my_rights", "acl",
        "stored_acl", "rename", "set_acl", "annotate",
    ):  # fmt: skip
        arguments: dict[str, object] = {
            "name": name, "old": name, "new": TEAM, "with_size": True, "has_use": False, "before": "",
            "after": "", "entries": [], "removed": [],
        }  # fmt: skip
        answer = Hostile(server).ask(op, **arguments)
        assert answer is None, (op, answer)
    assert state(server) == before


def test_what_the_gate_denies(server: NeighbourServer) -> None:
    """A mailbox that is not shared is one that does not exist, whatever is asked about it."""
    before, private = state(server), "shared/alice/Private"
    asked = Hostile(server)
    for op, more in (
        ("open", {}), ("borrow", {}), ("status", {"with_size": True}), ("delete", {}), ("annotations", {}),
        ("my_rights", {}), ("acl", {}), ("stored_acl", {}),
        ("set_acl", {"before": "", "after": "user=bob lr\n"}),
        ("rename", {"old": private, "new": TEAM + "2"}),
    ):  # fmt: skip
        answer = asked.ask(op, name=private, **more)
        assert answer is not None and answer["error"] == "NoSuchMailbox", op
    assert asked.ask("exists", name=private) == {"id": asked.number, "done": False, "lengths": []}
    for op in ("stored_acl", "acl"):
        answer = asked.ask(op, name=TEAM)
        assert answer is not None and answer["error"] == "AccessDenied"
    found = asked.ask("folders")
    assert found is not None and [each[0] for each in found["done"]] == [TEAM]
    assert state(server) == before


ONE = pack_uids([1])
REQUESTS: list[tuple[str, list[bytes], dict[str, object]]] = [
    ("change_flags", [ONE], {"flags": ["\\Seen\r\n* BYE"], "mode": "+", "unchanged_since": None}),
    ("change_flags", [ONE], {"flags": ["\\Recent"], "mode": "+", "unchanged_since": None}),
    ("change_flags", [ONE], {"flags": ["a b"], "mode": "+", "unchanged_since": None}),
    ("change_flags", [ONE], {"flags": "x", "mode": "+", "unchanged_since": None}),
    ("change_flags", [ONE], {"flags": [], "mode": "*", "unchanged_since": None}),
    ("change_flags", [ONE], {"flags": [], "mode": "+", "unchanged_since": -1}),
    ("change_flags", [ONE[:3]], {"flags": [], "mode": "+", "unchanged_since": None}),
    ("change_flags", [], {"flags": [], "mode": "+", "unchanged_since": None}),
    ("append", [b"a: b\n\nx\n"], {"messages": [[[], None]]}),
    ("append", [b"a: \0\r\n\r\n"], {"messages": [[[], None]]}),
    ("append", [b""], {"messages": [[[], None]]}),
    ("append", [b"a: b\r\n\r\n"], {"messages": []}),
    ("append", [b"a: b\r\n\r\n"], {"messages": [[["x\ny"], None]]}),
    ("append", [b"a: b\r\n\r\n"], {"messages": [[[], 2**60]]}),
    ("read_batch", [ONE], {"most": 0}),
    ("read_batch", [ONE], {"most": "x"}),
    ("copy", [ONE], {"target": 77}),
    ("move", [ONE], {"target": None}),
    ("search_text", [ONE], {"needle": 3, "with_header": True}),
    ("may_hold", [ONE], {"groups": [[3]], "with_header": True}),
    ("__init__", [ONE], {}),
    ("leave", [], {}),
    ("perform", [], {}),
]


@pytest.mark.parametrize(("op", "pieces", "arguments"), REQUESTS)
def test_requests_that_are_none(
    server: NeighbourServer, op: str, pieces: list[bytes], arguments: dict[str, object]
) -> None:
    """The connection ends, it is told, and the mailbox is as it was."""
    before = state(server)
    asked = Hostile(server)
    handle = asked.open()
    assert asked.ask(op, pieces, mailbox=handle, **arguments) is None
    assert state(server) == before
    for thread in server.hosts.threads:
        thread.join(DEADLINE)
    assert any(text.startswith("Warning: guest bob") for _, text in server.hosts.log.lines)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        struct.pack(">II", 2**32 - 1, 0),
        struct.pack(">II", 10, 2**32 - 1) + b"0123456789",
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 4, 0) + b"\xff\xfe{}",
        struct.pack(">II", 100_000, 0) + b"[" * 100_000,
        struct.pack(">II", 14, 0) + b'{"lengths": 1}',
        struct.pack(">II", 17, 1) + b'{"lengths": [-1]}',
        struct.pack(">II", 17, 1) + b'{"lengths": [99]}',
        struct.pack(">II", 100, 0) + b"{",
    ],
)
def test_garbage(server: NeighbourServer, data: bytes) -> None:
    """What is no frame ends the connection; nothing is read that was only announced."""
    asked = Hostile(server)
    asked.socket.sendall(data)
    asked.socket.shutdown(socket.SHUT_WR)
    try:
        assert asked.socket.recv(1) == b""
    except ConnectionError:
        return


def test_so_many_mailboxes(server: NeighbourServer) -> None:
    """No more are open at once; others can still be closed."""
    asked = Hostile(server)
    handles = [asked.open("borrow") for _ in range(MOST_OPEN)]
    answer = asked.ask("open", name=TEAM)
    assert answer is not None and answer["error"] == "MailboxBusy"
    asked.ask("close", mailbox=handles[0])
    asked.open()


def test_rights_for_everybody_are_the_administrators(server: NeighbourServer) -> None:
    """`acl_anyone` binds a guest who may administer the mailbox as it binds the owner's own sessions."""
    alice = server.hosts.open(server.people["alice"])
    alice.change_acl("Team", lambda acl: parse_acl("user=bob lra\n"))
    asked = Hostile(server)
    before = asked.ask("stored_acl", name=TEAM)
    assert before is not None
    for after in ("user=bob lra\nanyone lr\n", "user=bob lra\nauthenticated lr\n"):
        answer = asked.ask("set_acl", name=TEAM, before=before["done"], after=after)
        assert answer is not None and answer["error"] == "AccessDenied"
    answer = asked.ask("set_acl", name=TEAM, before="another", after="user=bob lra\n")
    assert answer is not None and answer["done"] is False
    answer = asked.ask("set_acl", name=TEAM, before=before["done"], after="user=bob lra\nuser=carol lr\n")
    assert answer is not None and answer["done"] is True


# An owner's host that lies.


class Liar:
    """Alice's end, which answers as the test says."""

    def __init__(
        self, answers: Callable[[Header], tuple[dict[str, Any], list[bytes]] | bytes | None]
    ) -> None:
        ours, self.socket = socket.socketpair()
        self.answers = answers
        self.mailboxes = OwnersMailboxes(Connection(ours, patience=DEADLINE), "shared/alice/")
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while (found := receive_frame(self.socket)) is not None:
                answer = self.answers(found[0])
                if answer is None:
                    self.socket.shutdown(socket.SHUT_RDWR)
                elif isinstance(answer, bytes):
                    self.socket.sendall(answer)
                else:
                    send_frame(self.socket, {"id": found[0]["id"], **answer[0]}, answer[1])
        except OSError:
            return


STATE: dict[str, Any] = {
    "name": TEAM, "uidvalidity": 1, "mailbox_id": "M1", "rights": "lrswite", "uidnext": 3, "modseq": 9,
    "recent": 3, "keywords": ["Blue"], "flags": [["Blue"], []],
}  # fmt: skip
RECORDS = struct.pack("<IQqI", 1, 5, 100, 0) + struct.pack("<IQqI", 2, 6, 100, 1)


def opened(**changes: Any) -> Mailbox:
    pieces = changes.pop("pieces", [RECORDS, b""])
    answer = {"done": 1, "state": {**STATE, **changes}}
    return Liar(lambda header: (answer, pieces)).mailboxes.open(TEAM, is_selected=True)


def test_an_honest_state() -> None:
    """What the next test takes as its start is in order."""
    mailbox = opened()
    assert list(mailbox.uids) == [1, 2] and mailbox.messages[Uid(1)].flags == {b"Blue"}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "INBOX"},
        {"name": "shared/carol/Team"},
        {"name": "shared/alice/x\r\n* BYE"},
        {"uidvalidity": 0},
        {"uidvalidity": "1"},
        {"mailbox_id": "x)\r\n"},
        {"rights": "lr\r\n"},
        {"keywords": ["a\r\nb"]},
        {"keywords": ["\u20ac"]},
        {"flags": [["x y"], []]},
        {"flags": [[]]},
        {"modseq": 2**64},
        {"uidnext": -1},
        {"pieces": [RECORDS[24:] + RECORDS[:24], b""]},
        {"pieces": [RECORDS[:-1], b""]},
        {"pieces": [RECORDS]},
        {"pieces": [RECORDS, b"x"]},
    ],
    ids=str,
)
def test_a_state_that_is_none(changes: dict[str, Any]) -> None:
    """Nothing of it reaches a client: the mailbox cannot be opened for now."""
    with pytest.raises(StoreError):
        opened(**changes)


def test_answers_that_are_none() -> None:
    """Folders outside the owner's names are left out; other nonsense is a fault that passes."""
    use = ["shared/alice/A", True, False, "\\Sent"]
    bad = [["INBOX", True, False, ""], ["shared/alice/x\n", True, False, ""], ["shared/alice/B", 1, 2, ""]]
    found = Liar(lambda header: ({"done": [use, *bad, 3]}, [])).mailboxes.folders()
    assert [folder.name for folder in found] == ["shared/alice/A"]
    for answer in (3, None, ["x"], {"a": 1}):
        for ask in ("status", "acl", "my_rights"):
            mailboxes = Liar(lambda header, answer=answer: ({"done": answer}, [])).mailboxes  # type: ignore[misc]
            with pytest.raises(StoreError):
                mailboxes.status(TEAM, True) if ask == "status" else getattr(mailboxes, ask)(TEAM)


@pytest.mark.parametrize("answer", [None, b"x" * 100, b"\0" * 7])
def test_an_owner_who_goes(answer: bytes | None) -> None:
    """Whoever waits is told at once, and an open mailbox counts as replaced."""
    calls = []

    def answers(header: Header) -> Any:
        calls.append(header)
        return ({"done": 1, "state": STATE}, [RECORDS, b""]) if len(calls) == 1 else answer

    liar = Liar(answers)
    mailbox = liar.mailboxes.open(TEAM, is_selected=True)
    if answer == b"\0" * 7:
        threading.Timer(0.1, liar.socket.shutdown, [socket.SHUT_RDWR]).start()
    with pytest.raises(MailboxReplaced):
        mailbox.change_flags([Uid(1)], frozenset(), StoreMode.ADD)
    with pytest.raises(MailboxReplaced):
        mailbox.refresh()
    assert not liar.mailboxes.connection.is_open


def test_an_owner_who_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """He is waited for so long, then the connection is no more."""
    monkeypatch.setattr(connection, "SHORT_PATIENCE", 0.05)
    ours, theirs = socket.socketpair()
    silent = Connection(ours, patience=0.05)
    with pytest.raises(connection.Lost):
        silent.ask("exists")
    with pytest.raises(connection.Lost):
        silent.ask("exists")
    theirs.close()


def test_frames_that_are_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is too large for a frame fails by itself: the connection goes on."""
    monkeypatch.setattr(frames, "LARGEST_PAYLOAD", 1000)
    liar = Liar(lambda header: ({"done": True}, []))
    with pytest.raises(StoreError, match="fewer messages"):
        liar.mailboxes.connection.ask("append", pieces=[b"x" * 2000])
    assert liar.mailboxes.exists(TEAM)
