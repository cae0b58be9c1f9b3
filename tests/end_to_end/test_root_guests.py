"""Users of the system share mailboxes with each other: the owner's session host serves the guest."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import zlib
from collections.abc import Iterator

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import IMAPClientError

from tests.end_to_end.root_server import PASSWORD, RootServer, interpreter, status
from tests.end_to_end.server import DEADLINE, wait_for

pytestmark = pytest.mark.needs("root")

URSULA, VIKTOR = 64101, 64102


@pytest.fixture(scope="module", params=["maildir", "mbox"])
def server(request: pytest.FixtureRequest) -> Iterator[RootServer]:
    started = RootServer(request.param)
    started.start()
    with log_in(started, "ursula") as ursula:
        ursula.create_folder("Team")
        ursula.create_folder("Private")
        ursula.append("Private", message("secret"))
    yield started
    started.remove()


def log_in(server: RootServer, name: str) -> IMAPClient:
    client = IMAPClient("127.0.0.1", server.ports["imap"], ssl=False, timeout=DEADLINE)
    client.login(name, PASSWORD)
    return client


def message(subject: str) -> bytes:
    return f"Subject: {subject}\r\n\r\n{subject}\r\n".encode()


def names(client: IMAPClient) -> set[str]:
    return {name for _, _, name in client.list_folders()}


def fresh(server: RootServer, name: str, rights: str) -> str:
    """A mailbox of Ursula's with those rights for Viktor; its name for him."""
    with log_in(server, "ursula") as ursula:
        ursula.create_folder(name)
        ursula.setacl(name, "viktor", rights)
    return f"shared/ursula/{name}"


def test_the_command_is_enough(server: RootServer) -> None:
    """`mailserver acl set`, by root or by the owner, and the other user sees the mailbox and nothing else."""
    with log_in(server, "viktor") as viktor:
        assert viktor.namespace().other == (("shared/", "/"),)
        assert not [name for name in names(viktor) if name.startswith("shared")]
        server.command("acl", "set", "-u", "ursula", "Team", "user=viktor", "lrs")
        assert {name for name in names(viktor) if name.startswith("shared")} == {
            "shared", "shared/ursula", "shared/ursula/Team",
        }  # fmt: skip
        assert server.command("acl", "rights", "-u", "viktor", "shared/ursula/Team").split() == [
            "lookup", "read", "write-seen",
        ]  # fmt: skip
        with log_in(server, "ursula") as ursula:
            ursula.append("Team", message("one"))
        assert viktor.select_folder("shared/ursula/Team")[b"EXISTS"] == 1
        assert viktor.fetch([1], ["BODY[TEXT]", "ENVELOPE"])[1][b"BODY[TEXT]"] == b"one\r\n"
        with pytest.raises(IMAPClientError, match="no such mailbox"):
            viktor.select_folder("shared/ursula/Private")
        done, text = server.command_of("ursula", "acl", "delete", "-u", "ursula", "Team", "user=viktor")
        assert done == 0, text
        assert not [name for name in names(viktor) if name.startswith("shared")]


def test_both_at_once(server: RootServer) -> None:
    """EXISTS, FETCH and EXPUNGE of one side are heard at the other, in IDLE too."""
    name = fresh(server, "Both", "lrswite")
    with log_in(server, "ursula") as ursula, log_in(server, "viktor") as viktor:
        mine, theirs = ursula.select_folder("Both"), viktor.select_folder(name)
        assert mine[b"UIDVALIDITY"] == theirs[b"UIDVALIDITY"] and theirs[b"READ-WRITE"]
        viktor.idle()
        ursula.append("Both", message("one"))
        assert (1, b"EXISTS") in told(viktor)
        viktor.idle_done()
        ursula.noop()
        ursula.idle()
        viktor.add_flags([1], [b"\\Flagged", b"Blue"])
        assert any(each[0] == 1 and b"Blue" in str(each).encode() for each in told(ursula))
        ursula.idle_done()
        viktor.append(name, message("two"))
        viktor.delete_messages([1])
        viktor.expunge()
        ursula.noop()
        assert ursula.search() == viktor.search() == [2]
        ursula.setacl("Both", "viktor", "lrs")
        with pytest.raises(IMAPClientError, match="Permission denied"):
            viktor.append(name, message("three"))


def told(client: IMAPClient) -> list[tuple[object, ...]]:
    """What the client is told, waiting for the first of it."""
    return list(client.idle_check(timeout=DEADLINE))


@pytest.mark.parametrize("moves", [False, True])
def test_copies_both_ways(server: RootServer, moves: bool) -> None:
    """Content, flags, keywords and date go along; a mailbox's files stay their owner's."""
    name = fresh(server, f"Copies{moves}", "lrswite")
    with log_in(server, "viktor") as viktor:
        if not viktor.folder_exists("Mine"):
            viktor.create_folder("Mine")
        act = viktor.move if moves else viktor.copy
        viktor.append("Mine", message("mine"), [b"\\Flagged", b"Blue"])
        there = viktor.select_folder("Mine")[b"EXISTS"]
        act([viktor.search()[-1]], name)
        assert viktor.folder_status("Mine", ["MESSAGES"])[b"MESSAGES"] == there - moves
        viktor.select_folder(name)
        assert {b"\\Flagged", b"Blue"} <= set(viktor.get_flags([1])[1])
        assert viktor.fetch([1], ["BODY[TEXT]"])[1][b"BODY[TEXT]"] == b"mine\r\n"
        act([1], "Mine")
        assert viktor.folder_status(name, ["MESSAGES"])[b"MESSAGES"] == (not moves)
        viktor.select_folder("Mine")
        last = viktor.search()[-1]
        assert {b"\\Flagged", b"Blue"} <= set(viktor.get_flags([last])[last])
    for directory, uid in ((server.spool / "ursula", URSULA), (server.home("viktor"), VIKTOR)):
        assert all(path.stat().st_uid == uid for path in directory.rglob("*"))


def test_the_kernel_keeps_the_hosts_apart(server: RootServer) -> None:
    """Viktor's host has no group of Ursula's, and her files no mode that lets it in."""
    name = fresh(server, "Apart", "lrs")
    with log_in(server, "viktor") as viktor:
        viktor.select_folder(name)
        hosts = server.hosts()
        assert {URSULA, VIKTOR} <= set(hosts)
        groups = {*status(hosts[VIKTOR])["Groups"].split()}
        assert str(URSULA) not in groups
        state = server.directory / "state" / "accounts" / "ursula"
        assert state.stat().st_mode & 0o077 == 0 and state.stat().st_uid == URSULA


@pytest.mark.parametrize("side", [URSULA, VIKTOR])
def test_a_host_that_dies(server: RootServer, side: int) -> None:
    """The owner's: BYE, and the mailbox can be selected again. The guest's: his connection ends."""
    name = fresh(server, f"Dies{side}", "lrswite")
    with log_in(server, "ursula") as ursula:
        ursula.append(f"Dies{side}", message("one"))
    viktor = log_in(server, "viktor")
    viktor.select_folder(name)
    os.kill(server.hosts()[side], signal.SIGKILL)
    with pytest.raises((IMAPClientError, OSError)):
        viktor.noop()
        viktor.noop()
    with log_in(server, "viktor") as again:
        wait_for(lambda: _selects(again, name), "the mailbox to be served again")
        assert again.search() == [1]


def _selects(client: IMAPClient, name: str) -> bool:
    try:
        return bool(client.select_folder(name)[b"EXISTS"] == 1)
    except IMAPClientError:
        return False


ASK = """
import socket, sys
sys.path[:0] = {path!r}
from mailserver.rights import messages
for question in {questions!r}:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.settimeout({deadline})
        channel.connect({channel!r})
        messages.send(channel, question)
        answer, streams = messages.receive(channel)
        print(answer.get("error") or sorted(answer), len(streams))
"""


def test_what_a_hostile_user_may_ask(server: RootServer) -> None:
    """Nobody pretends: the kernel says who asks, and only owners who share with him are told or reached."""
    fresh(server, "Hostile", "lr")
    mark = zlib.crc32(str(server.directory / "queue").encode())
    channel = f"/run/mailserver-{mark:08x}/guests"
    questions = [
        {"ask": "visit", "owner": "ursula"},
        {"ask": "visit", "owner": "viktor"},
        {"ask": "visit", "owner": "viktor", "name": "ursula", "uid": 0, "guest": {"name": "viktor"}},
        {"ask": "visit", "owner": "root"},
        {"ask": "visit", "owner": "nobody-there"},
        {"ask": "visit", "owner": "../ursula"},
        {"ask": "visit"},
        {"ask": "owners"},
        {},
    ]
    visited = [
        "nothing 0",
        "nothing 0",
        "nothing 0",
        "nothing 0",
        "nothing 0",
        INTERNAL,
        "['owners'] 0",
        INTERNAL,
    ]
    assert ask(server, "viktor", channel, questions) == ["['attached'] 1", *visited]
    assert set(ask(server, "mailserver-t", channel, questions)) == {"nothing 0"}


INTERNAL = "internal error: the log has more 0"


def ask(server: RootServer, user: str, channel: str, questions: list[dict[str, object]]) -> list[str]:
    program, environment = interpreter()
    path = environment["PYTHONPATH"].split(":")
    script = ASK.format(path=path, questions=questions, deadline=DEADLINE, channel=channel)
    wrapper = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    done = subprocess.run(
        server.in_namespace(shlex.join([*wrapper, program, "-c", script])),
        capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()
