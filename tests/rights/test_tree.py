"""The tree of roles as root, with real processes: who may do what. RELIABILITY §8, B6, B14, B28."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.accounts.sample import stored

pytestmark = pytest.mark.needs("root")


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Returns when the condition holds; fails after a time that no sound machine needs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Client:
    """A line-wise client of the toy front."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.file = self.socket.makefile("rb")

    def ask(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\r\n")
        return self.read()

    def read(self) -> str:
        return self.file.readline().decode().strip()

    def facts(self) -> dict[str, str]:
        return dict(word.split("=", 1) for word in self.ask("STATUS").split())

    def close(self) -> None:
        self.file.close()
        self.socket.close()


class Tree:
    """A running stage."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rights-"))
        self.directory.chmod(0o711)
        for name, mode in (("accounts", 0o711), ("world", 0o777), ("private", 0o700)):
            (self.directory / name).mkdir()
            (self.directory / name).chmod(mode)
        hashed = stored("right")
        self.write("users", f"alice:{hashed}:64001:64001\nbob:{hashed}:64002:64002\nvirtual:{hashed}\n")
        self.write("key.pem", "the key")
        self.write("other.pem", "another")
        for uid in (64001, 64002):
            self.write(f"mail.{uid}", f"mail of {uid}")
            os.chown(self.directory / f"mail.{uid}", uid, uid)
        self.process = subprocess.Popen([sys.executable, "-m", "tests.rights.stage", str(self.directory)])
        self.clients: list[Client] = []
        wait_for((self.directory / "port").exists)
        wait_for((self.directory / "port").read_text)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        (self.directory / name).chmod(0o600)

    def client(self) -> Client:
        self.clients.append(Client(int((self.directory / "port").read_text())))
        return self.clients[-1]

    def pid(self, role: str) -> int:
        path = self.directory / f"{role}.pid"
        wait_for(path.exists)
        return int(path.read_text())

    def kill(self, role: str) -> int:
        """Kill a role and wait until its successor runs."""
        old = self.pid(role)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: self.pid(role) != old)
        return old

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def end(self) -> None:
        for client in self.clients:
            client.close()
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.directory)


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    running = Tree()
    yield running
    running.end()


def login(tree: Tree, name: str = "alice") -> tuple[Client, int]:
    """A client whose session is at the host, and the host's pid."""
    client = tree.client()
    greeting = client.ask(f"LOGIN {name} right").split()
    assert greeting[:2] == ["hello", name], greeting
    return client, int(greeting[2])


def test_a_front_is_nobody(tree: Tree) -> None:
    """B28: uid ≠ 0, no capability, none to be had; no shadow, no mail, no key, no way back."""
    client = tree.client()
    facts = client.facts()
    assert facts["Uid"] == "64000,64000,64000,64000" and facts["Gid"] == "64000,64000,64000,64000"
    assert facts["Groups"] == "" and facts["NoNewPrivs"] == "1"
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    for path in ("/etc/shadow", tree.directory / "mail.64001", tree.directory / "key.pem"):
        assert client.ask(f"TRY {path}") == "PermissionError"
    for uid in (0, 64001):
        assert client.ask(f"BECOME {uid}") == "PermissionError"
    assert client.ask("ATTACH") == "PermissionError"


def test_a_host_is_its_account_and_nobody_else(tree: Tree) -> None:
    """It reads its own mail, not another's; spool group only where it was given; own state directory."""
    client, _ = login(tree)
    facts = client.facts()
    assert facts["Uid"] == "64001,64001,64001,64001" and facts["Groups"] == "64777"
    assert int(facts["CapEff"], 16) == 0 and facts["NoNewPrivs"] == "1"
    assert client.ask(f"TRY {tree.directory}/mail.64001") == "done b'mail of 64001'"
    for path in (f"{tree.directory}/mail.64002", "/etc/shadow", f"{tree.directory}/users"):
        assert client.ask(f"TRY {path}") == "PermissionError"
    state = (tree.directory / "accounts" / "alice").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (64001, 64001, 0o700)
    other, _ = login(tree, "bob")
    assert other.facts()["Groups"] == ""


def test_a_host_holds_no_channel_of_others(tree: Tree) -> None:
    """Left-over descriptors would be rights: no listener, no other host's channel."""
    _, alice = login(tree)
    _, bob = login(tree, "bob")
    inodes = []
    for pid in (alice, bob, tree.pid("front"), tree.pid("helper"), tree.pid("zygote")):
        links = (os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())
        inodes.append({link for link in links if link.startswith("socket:")})
    for n, mine in enumerate(inodes):
        for other in inodes[n + 1 :]:
            assert not mine & other


def test_sessions_of_an_account_share_a_host(tree: Tree) -> None:
    """Other accounts do not."""
    (first, one), (second, two), (third, three) = login(tree), login(tree), login(tree, "bob")
    assert one == two != three
    for client in (first, second, third):
        assert client.ask("echo") == "echo"


def test_what_was_pipelined_behind_the_login_reaches_the_host_in_order(tree: Tree) -> None:
    """Nothing is lost at the border, however much comes at once."""
    client = tree.client()
    lines = [f"line {n}" for n in range(200)]
    client.socket.sendall("\r\n".join(["LOGIN alice right", *lines, ""]).encode())
    assert client.read().startswith("hello alice")
    assert [client.read() for _ in lines] == lines


def test_a_large_answer_and_the_end_of_a_session_pass_through(tree: Tree) -> None:
    """The client gets every octet that was written before the host closed."""
    client, _ = login(tree)
    client.socket.sendall(b"BIG 5000000\r\nBYE\r\n")
    content = client.file.read()
    assert content == b"x" * 5_000_000 + b"bye\r\n"


def test_an_idle_host_leaves_and_the_next_login_gets_another(tree: Tree) -> None:
    """It lingers, then ends by itself."""
    _, pid = login(tree, "bob")
    for other in tree.clients:
        other.close()
    wait_for(lambda: not is_alive(pid))
    _, successor = login(tree, "bob")
    assert successor != pid


def test_a_killed_host_costs_its_own_sessions_only(tree: Tree) -> None:
    """A crashing session touches no other account."""
    (alice, pid), (bob, _) = login(tree), login(tree, "bob")
    os.kill(pid, signal.SIGKILL)
    assert alice.read() == ""
    assert bob.ask("still here") == "still here"
    _, successor = login(tree)
    assert successor != pid


def test_wrong_and_unknown_are_one(tree: Tree) -> None:
    """B14: the same answer, after the same delay; other places are served meanwhile."""
    wrong, unknown = tree.client(), tree.client()
    wrong.socket.sendall(b"LOGIN alice wrong 198.51.100.1\r\n")
    unknown.socket.sendall(b"LOGIN nobody-here wrong 198.51.100.2\r\n")
    login(tree)
    assert wrong.read() == unknown.read() == "NO temporary=False"


def test_root_and_uidless_hosts_are_not_made(tree: Tree) -> None:
    """A passwd-file cannot make a host for root."""
    users = tree.directory / "users"
    before = users.read_text()
    users.write_text(before + f"toor:{stored('right')}:0:0\n")
    assert tree.client().ask("LOGIN toor right") == "NO temporary=True"
    users.write_text(before)


def test_secrets_are_those_that_were_named(tree: Tree) -> None:
    """A front gets its TLS key from the helper, and nothing else."""
    client = tree.client()
    assert client.ask(f"SECRET {tree.directory}/key.pem") == "done b'the key'"
    for path in (f"{tree.directory}/other.pem", "/etc/shadow", f"{tree.directory}/../key.pem"):
        assert client.ask(f"SECRET {path}") == "PermissionError"


def test_a_front_learns_who_exists_and_no_hash(tree: Tree) -> None:
    """The passwd-file is not a front's to read; where the helper cannot read it, nobody is unknown."""
    client = tree.client()
    assert client.ask(f"TRY {tree.directory}/users") == "PermissionError"
    answer = client.ask("WHO alice")
    assert answer.startswith("Account(name='alice', uid=64001") and "['alice', 'bob', 'virtual']" in answer
    assert "$6$" not in answer
    assert client.ask("WHO nobody-here").startswith("None of")
    users = tree.directory / "users"
    users.rename(tree.directory / "away")
    assert client.ask("WHO nobody-here") == "temporary"
    (tree.directory / "away").rename(users)


@pytest.mark.parametrize(("uid", "becomes"), [(64001, 64001), (0, 65534)])
def test_deliveries_are_done_as_the_recipient(tree: Tree, uid: int, becomes: int) -> None:
    """B6: every id is the owner's, no group, no capability; uid 0 becomes nobody."""
    facts = dict(word.split("=", 1) for word in tree.client().ask(f"DELIVER {uid} deliver hi").split())
    assert facts["Uid"] == ",".join([str(becomes)] * 4) and facts["Groups"] == ""
    assert int(facts["CapEff"], 16) == 0
    written = tree.directory / "world" / str(becomes)
    assert written.read_text() == "hi"
    assert written.stat().st_uid == becomes and written.stat().st_mode & 0o777 == 0o600


def test_a_channel_is_open_to_whom_it_was_given_only(tree: Tree) -> None:
    """Front and queue share a uid: the agents hear the role that holds their channel, not the uid."""
    client = tree.client()
    assert client.ask(f"CONNECT {tree.directory}/private/agents") == "PermissionError"
    assert "Uid=64001" in client.ask("DELIVER 64001 deliver hi")


@pytest.mark.parametrize("verb", ["crash", "hang", "no-such-verb"])
def test_a_delivery_that_dies_or_hangs_is_deferred(tree: Tree, verb: str) -> None:
    """P5, P9: and the agent serves the next."""
    client = tree.client()
    assert client.ask(f"DELIVER 64001 {verb} x").startswith("deferred")
    assert "Uid=64001" in client.ask("DELIVER 64001 deliver next")


def test_a_killed_helper_comes_back_and_attempts_are_temporary_meanwhile(tree: Tree) -> None:
    """P5, P8: nobody learns "wrong password" from our crash; sessions go on."""
    session, _ = login(tree)
    waiting, front = tree.client(), tree.pid("front")
    waiting.socket.sendall(b"LOGIN alice wrong 203.0.113.5\r\n")
    for _ in range(2):  # by then the front has read the line above
        session.ask("echo")
        tree.client().facts()
    tree.kill("helper")
    assert waiting.read() == "NO temporary=True"
    login(tree)
    assert session.ask("on") == "on"
    assert tree.pid("front") == front
    assert "process helper pid" in tree.log()


def test_a_killed_agent_comes_back(tree: Tree) -> None:
    """P8."""
    tree.kill("agent")
    assert "Uid=64001" in tree.client().ask("DELIVER 64001 deliver again")


def test_a_killed_zygote_takes_its_hosts_along_and_comes_back(tree: Tree) -> None:
    """No two hosts of different zygotes for one account."""
    client, host = login(tree)
    tree.kill("zygote")
    wait_for(lambda: not is_alive(host))
    assert client.read() == ""
    login(tree)


def test_a_reload_ends_no_process(tree: Tree) -> None:
    """SIGHUP reaches every role; sessions and roles go on."""
    session, _ = login(tree)
    roles = {name: tree.pid(name) for name in ("front", "helper", "zygote", "agent")}
    tree.process.send_signal(signal.SIGHUP)
    for pid in roles.values():
        os.kill(pid, signal.SIGHUP)
    assert session.ask("on") == "on"
    assert "Uid=64001" in tree.client().ask("DELIVER 64001 deliver hi")
    login(tree, "bob")
    assert {name: tree.pid(name) for name in roles} == roles
    assert all(is_alive(pid) for pid in roles.values())


def test_hostile_packets_to_the_helper_cost_their_sender_only(tree: Tree) -> None:
    """The connection is closed; others go on, and the helper is the same process."""
    helper = tree.pid("helper")
    packets = [
        b"x", b"J", b"J{", b"J[]", b"J{}", b'J{"id":"x"}', b"M", b"\0" * 60_000, b"J" + b"[" * 60_000,
        b"J" + b" " * 70_000,
    ]  # fmt: skip
    for packet in packets:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hostile:
            hostile.settimeout(20)
            hostile.connect(str(tree.directory / "helper"))
            hostile.send(packet)
            assert hostile.recv(100) == b"", packet[:20]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as odd:
        odd.settimeout(20)
        odd.connect(str(tree.directory / "helper"))
        for request in (b'J{"id":1}', b'J{"id":1,"attempt":{"peer":{}}}', b'J{"id":1,"secret":{}}'):
            odd.send(request)
            assert b'"error"' in odd.recv(1000)
    login(tree)
    assert tree.pid("helper") == helper


def test_the_whole_tree_ends_with_its_supervisor() -> None:
    """SIGTERM ends all in order; SIGKILL of the supervisor ends all too."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        tree = Tree()
        _, host = login(tree)
        pids = [host, *(tree.pid(role) for role in ("front", "helper", "zygote", "agent"))]
        tree.process.send_signal(number)
        tree.process.wait(20)
        for pid in pids:
            wait_for(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
        tree.end()
