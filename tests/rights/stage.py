"""A whole tree of roles with a toy protocol, as a program: `python -m tests.rights.stage DIRECTORY`.

The toy front answers lines before login; after it the session is the host's. Uids are
numbers without passwd entries; accounts come from a passwd-file in the directory.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.protocols.basic import LineReceiver

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.codec import account_from
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.helper import Helper
from mailserver.accounts.helper_client import HelperDirectory, read_secret
from mailserver.accounts.helper_logins import HelperLogins
from mailserver.accounts.login import Attempt, Granted, Peer
from mailserver.accounts.passwd_file import MailOwner, PasswdFile
from mailserver.accounts.throttle import Throttle
from mailserver.accounts.verdict import Judge
from mailserver.maillog import FileLog
from mailserver.rights.agents import Agent, AgentClient, AgentFailure
from mailserver.rights.as_user import Identity, become_confined
from mailserver.rights.generation import Generation, Role
from mailserver.rights.handover import Handover
from mailserver.rights.listeners import connect_channel, held_channel, listen_channel, listen_tcp
from mailserver.rights.messages import Message
from mailserver.rights.service import ChannelService
from mailserver.rights.session_host import SessionHost
from mailserver.rights.supervisor import Supervisor
from mailserver.rights.zygote import Zygote, attach

FRONT = Identity("front", 64000, 64000)
SPOOL_GID = 64777


def status() -> str:
    """Who this process is, by the kernel's word."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    wanted = ("Pid", "Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs")
    return " ".join(f"{name}={','.join(lines[name].split())}" for name in wanted)


def attempted(function: Callable[[], Any]) -> str:
    """What came of trying something."""
    try:
        return f"done {function()!r}"
    except OSError as error:
        return type(error).__name__


class ToyFront(LineReceiver):
    """LOGIN name password · STATUS · TRY path · BECOME uid · SECRET path · DELIVER uid verb text."""

    def __init__(self, reactor: Any, directory: str) -> None:
        self._reactor, self._directory = reactor, directory
        self._logins: HelperLogins = reactor.toy_logins

    def lineReceived(self, line: bytes) -> None:
        verb, *words = line.decode().split()
        getattr(self, f"do_{verb}")(*words)

    def say(self, text: object) -> None:
        self.sendLine(str(text).encode())

    def do_STATUS(self) -> None:
        self.say(status())

    def do_TRY(self, path: str) -> None:
        self.say(attempted(lambda: Path(path).read_bytes()[:20]))

    def do_BECOME(self, uid: str) -> None:
        self.say(attempted(lambda: os.setuid(int(uid))))

    def do_SECRET(self, path: str) -> None:
        deferToThread(lambda: attempted(lambda: read_secret(f"{self._directory}/helper", path))).addCallback(
            self.say
        )

    def do_WHO(self, name: str) -> None:
        directory = HelperDirectory(f"{self._directory}/helper")

        def ask() -> str:
            try:
                return f"{directory.lookup(name)} of {sorted(directory.names())}"
            except TemporaryAccountFailure:
                return "temporary"

        deferToThread(ask).addCallback(self.say)

    def do_CONNECT(self, path: str) -> None:
        self.say(attempted(lambda: connect_channel(path).close()))

    def do_ATTACH(self) -> None:
        self.say(attempted(lambda: attach(f"{self._directory}/zygote", {"name": "alice"}, 0)))

    def do_DELIVER(self, uid: str, verb: str, text: str) -> None:
        def ask() -> str:
            owner = {"name": "someone", "uid": int(uid), "gid": int(uid)}
            try:
                return str(AgentClient(self._reactor.toy_agents, 20).ask(verb, owner, {"text": text})["text"])
            except AgentFailure as failure:
                return f"deferred: {failure}"

        deferToThread(ask).addCallback(self.say)

    def do_LOGIN(self, name: str, password: str, address: str = "192.0.2.1") -> None:
        self.pauseProducing()
        peer = Peer(address, 1, "192.0.2.9", 143, True, True)
        attempt = Attempt("imap", "PLAIN", name, password.encode(), peer, "s")
        self._logins.login(attempt).addCallback(self.answer)

    def answer(self, answer: Any) -> None:
        if not isinstance(answer, Granted):
            self.say(f"NO temporary={answer.temporary}")
            self.resumeProducing()
            return
        pending = self.clearLineBuffer()
        Handover(self._reactor, "toy")(self, answer, {"greeting": "hello"}, pending)

    def rawDataReceived(self, data: bytes) -> None:
        raise AssertionError("never in raw mode")


class ToySession(LineReceiver):
    """STATUS · TRY path · BIG octets · BYE, else an echo."""

    def __init__(self, account: Message, preamble: Mapping[str, Any]) -> None:
        self._account, self._preamble = account_from(account), preamble

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # as the real protocols do
        self.sendLine(f"{self._preamble['greeting']} {self._account.name} {os.getpid()}".encode())

    def lineReceived(self, line: bytes) -> None:
        verb, _, rest = line.decode().partition(" ")
        if verb == "BYE":
            self.sendLine(b"bye")
            self.transport.loseConnection()
        elif verb == "BIG":
            self.transport.write(b"x" * int(rest))
        else:
            found = {"STATUS": status, "TRY": lambda: attempted(lambda: Path(rest).read_bytes()[:20])}
            self.sendLine(str(found.get(verb, lambda: line.decode())()).encode())

    def rawDataReceived(self, data: bytes) -> None:
        raise AssertionError("never in raw mode")


class Stage:
    """The roles."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.log = FileLog(f"{directory}/log")
        self.listeners: dict[str, socket.socket] = {
            "helper": listen_channel(f"{directory}/helper", 0o660, 0, FRONT.gid),
            "zygote": listen_channel(f"{directory}/zygote"),
            "agents": listen_channel(f"{directory}/private/agents", 0o660, 0, FRONT.gid),
            "front": listen_tcp("127.0.0.1", 0),
        }

    def note_pid(self, name: str) -> None:
        # Whole or not there: a reader would find a file that is being written empty.
        new = Path(f"{self.directory}/{name}.new")
        new.write_text(str(os.getpid()))
        new.rename(f"{self.directory}/{name}.pid")

    def front(self) -> None:
        self.note_pid("front")
        agents = held_channel(f"{self.directory}/private/agents")
        become_confined(FRONT)
        from twisted.internet import reactor

        toy: Any = reactor
        toy.toy_agents = agents
        toy.toy_logins = HelperLogins(reactor, f"{self.directory}/helper")

        class ToyFactory(Factory):
            def buildProtocol(factory, addr: Any) -> ToyFront:
                return ToyFront(reactor, self.directory)

        listener = self.listeners["front"]
        toy.adoptStreamPort(listener.fileno(), socket.AF_INET, ToyFactory())
        toy.run()

    def helper(self) -> None:
        self.note_pid("helper")
        source = PasswdFile(f"{self.directory}/users", MailOwner(FRONT.uid, FRONT.gid))
        accounts = SourceDirectory([source])
        judge = Judge(SourcePasswordCheck(accounts), Throttle(time.monotonic), self.log)
        helper = Helper(
            judge,
            accounts,
            lambda account, stream: attach(f"{self.directory}/zygote", account, stream),
            self.log,
            [f"{self.directory}/key.pem"],
        )
        ChannelService(self.listeners["helper"], helper.handle, {0, FRONT.uid}, self.log, 4).run_as_role()

    def zygote(self) -> None:
        self.note_pid("zygote")
        Zygote(
            self.listeners["zygote"],
            self.host,
            f"{self.directory}/accounts",
            self.log,
            lambda account: (SPOOL_GID,) if account["name"] == "alice" else (),
        ).run()

    def host(self, account: Message, control: socket.socket) -> None:
        from twisted.internet import reactor

        running: Any = reactor
        SessionHost(
            reactor,
            control,
            lambda account, service, preamble: ToySession(account, preamble),
            self.log,
            lambda: running.callWhenRunning(running.stop),
            0.3,
        )
        running.run()

    def agent(self) -> None:
        self.note_pid("agent")

        def deliver(message: Message, descriptors: list[int]) -> Message:
            Path(f"{self.directory}/world/{os.getuid()}").write_text(message["text"])
            return {"text": status()}

        def crash(message: Message, descriptors: list[int]) -> Message:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        def hang(message: Message, descriptors: list[int]) -> Message:
            time.sleep(60)
            return {}

        handlers = {"deliver": deliver, "crash": crash, "hang": hang}
        Agent(self.listeners["agents"], handlers, {FRONT.uid}, self.log, time_limit=1.0).run()

    def run(self) -> None:
        port = self.listeners["front"].getsockname()[1]
        roles = [
            Role("front", self.front, frozenset({"front"})),
            Role("helper", self.helper, frozenset({"helper"})),
            Role("zygote", self.zygote, frozenset({"zygote"})),
            Role("agent", self.agent, frozenset({"agents"}), signal.SIGTERM),
        ]
        Path(f"{self.directory}/port").write_text(str(port))
        Supervisor(Generation(roles, self.listeners, self.log), stop_seconds=10).run()


if __name__ == "__main__":
    Stage(sys.argv[1]).run()
