"""Logins for other programs: the dialogue of Dovecot's auth protocol, in memory."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mailserver.accounts.account import Account
from mailserver.accounts.login import Attempt, Granted, Refused
from mailserver.accounts.scram import Challenge
from mailserver.authd.protocol import MOST_PENDING, PATIENCE, AuthServer, Services
from mailserver.maillog import ListLog

ALICE = Account("alice", 1000, 1000, "/home/alice")


class Logins:
    """The password is `secret`; `held` keeps answers back."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.answer: Granted | Refused | None = None
        self.held: Deferred[None] | None = None

    def login(self, attempt: Attempt) -> Deferred[Granted | Refused]:
        self.attempts.append(attempt)
        is_right = attempt.name == "alice" and attempt.password == b"secret"
        answer = self.answer or (Granted(ALICE) if is_right else Refused(reason="wrong"))
        return self.held.addCallback(lambda _: answer) if self.held is not None else succeed(answer)

    def challenge(self, name: str) -> Deferred[Challenge | Refused]:
        return succeed(Refused(temporary=True))


class Scene:
    """A connection that has been greeted."""

    def __init__(self, *mechanisms: str) -> None:
        self.logins, self.log, self.clock = Logins(), ListLog(), Clock()
        services = Services(self.logins, mechanisms or ("PLAIN", "LOGIN"), self.log, self.clock)
        self.server, self.transport = AuthServer(services, 7), StringTransport()
        self.server.makeConnection(self.transport)
        self.greeting = self.read()
        self.say(b"VERSION\t1\t1\nCPID\t123")

    def read(self) -> list[bytes]:
        said = self.transport.value().split(b"\n")[:-1]
        self.transport.clear()
        return said

    def say(self, line: bytes) -> list[bytes]:
        self.server.dataReceived(line + b"\n")
        return self.read()

    @property
    def is_open(self) -> bool:
        return not self.transport.disconnecting


@pytest.fixture
def scene() -> Scene:
    return Scene()


def b64(octets: bytes) -> bytes:
    return base64.b64encode(octets)


def test_the_greeting_is_dovecots(scene: Scene) -> None:
    """VERSION, MECH, SPID, CUID, COOKIE (32 hexadecimal digits), DONE."""
    assert scene.greeting[:3] == [b"VERSION\t1\t2", b"MECH\tPLAIN\tplaintext", b"MECH\tLOGIN\tplaintext"]
    assert [line.split(b"\t")[0] for line in scene.greeting[3:]] == [b"SPID", b"CUID", b"COOKIE", b"DONE"]
    assert scene.greeting[4] == b"CUID\t7" and len(bytes.fromhex(scene.greeting[5][7:].decode())) == 16
    assert b"MECH\tSCRAM-SHA-256\tmutual-auth" in Scene("SCRAM-SHA-256").greeting


def test_plain(scene: Scene) -> None:
    """With the response at once, or asked for; the address is the client's, the service smtp."""
    answer = scene.say(
        b"AUTH\t1\tPLAIN\tservice=imap\tnologin\tlip=192.0.2.1\trip=192.0.2.7\tsecured\tresp="
        + b64(b"\0alice\0secret")
    )
    assert answer == [b"OK\t1\tuser=alice"]
    (attempt,) = scene.logins.attempts
    assert (attempt.service, attempt.mechanism, attempt.name) == ("smtp", "PLAIN", "alice")
    assert (attempt.peer.address, attempt.peer.local_address, attempt.peer.is_tls) == (
        "192.0.2.7",
        "192.0.2.1",
        True,
    )
    assert scene.say(b"AUTH\t2\tplain\tservice=smtp") == [b"CONT\t2\t"]
    assert scene.say(b"CONT\t2\t" + b64(b"\0alice\0wrong")) == [b"FAIL\t2\tuser=alice"]
    assert [text.split("session=")[0] for _, text in scene.log.lines] == [
        "Login: user=<alice>, service=imap, method=PLAIN, rip=192.0.2.7, ",
        "Login refused: user=<alice>, service=smtp, method=PLAIN, rip=local, ",
    ]
    assert "secret" not in str(scene.log.lines) and "wrong" not in str(scene.log.lines)


def test_login_and_many_at_once(scene: Scene) -> None:
    """Requests do not wait for each other."""
    assert scene.say(b"AUTH\t1\tLOGIN\tservice=smtp") == [b"CONT\t1\t" + b64(b"Username:")]
    assert scene.say(b"AUTH\t2\tLOGIN\tservice=smtp\tresp=" + b64(b"alice")) == [
        b"CONT\t2\t" + b64(b"Password:")
    ]
    assert scene.say(b"CONT\t1\t" + b64(b"alice")) == [b"CONT\t1\t" + b64(b"Password:")]
    assert scene.say(b"CONT\t2\t" + b64(b"secret")) == [b"OK\t2\tuser=alice"]
    assert scene.say(b"CONT\t1\t" + b64(b"secret")) == [b"OK\t1\tuser=alice"]


def test_the_accounts_name_is_the_answer(scene: Scene) -> None:
    """Not what the client wrote: smtpd_sender_login_maps compares it."""
    scene.logins.answer = Granted(ALICE)
    assert scene.say(b"AUTH\t1\tPLAIN\tresp=" + b64(b"\0ALICE@example.org\0x")) == [b"OK\t1\tuser=alice"]


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        (b"AUTH\t1\tPLAIN\tresp=!!!", b"FAIL\t1\treason=Invalid base64 data in response"),
        (b"AUTH\t1\tPLAIN\tresp=" + b64(b"alice"), b"FAIL\t1\treason=Invalid PLAIN response."),
        (
            b"AUTH\t1\tPLAIN\tresp=" + b64(b"bob\0alice\0secret"),
            b"FAIL\t1\treason=Logging in as somebody else is not supported.",
        ),
        (b"AUTH\t1\tNTLM\tservice=smtp", b"FAIL\t1\treason=Unsupported authentication mechanism"),
        (b"AUTH\t1\tPLAIN\tresp=" + b64(b"\0a\tb\n\0x"), b"FAIL\t1\tuser=a\x01tb\x01n"),
    ],
)
def test_what_cannot_succeed(scene: Scene, request_line: bytes, answer: bytes) -> None:
    """FAIL, and the connection goes on."""
    assert scene.say(request_line) == [answer]
    assert scene.say(b"AUTH\t2\tPLAIN\tresp=" + b64(b"\0alice\0secret")) == [b"OK\t2\tuser=alice"]


def test_a_fault_of_ours_is_temporary(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: Postfix answers 454 then, not 535."""
    scene.logins.answer = Refused(temporary=True, reason="the helper was restarted")
    assert scene.say(b"AUTH\t1\tPLAIN\tresp=" + b64(b"\0alice\0secret")) == [b"FAIL\t1\tuser=alice\ttemp"]

    def broken(attempt: Attempt) -> Any:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(scene.logins, "login", broken)
    assert scene.say(b"AUTH\t1\tPLAIN\tresp=" + b64(b"\0alice\0secret")) == [b"FAIL\t1\ttemp"]
    assert "internal error: oops" in scene.log.lines[-1][1]


@pytest.mark.parametrize(
    "line",
    [
        b"VERSION\t2\t0",
        b"AUTH\t1",
        b"AUTH\tx\tPLAIN",
        b"AUTH\t5\tLOGIN\nAUTH\t5\tLOGIN",
        b"\n".join(b"AUTH\t%d\tLOGIN" % number for number in range(MOST_PENDING + 1)),
        b"x" * 20_000,
    ],
)
def test_a_program_that_does_not_speak_the_protocol_is_disconnected(scene: Scene, line: bytes) -> None:
    """Bounded, in time and memory."""
    scene.say(line)
    assert not scene.is_open


def test_version_comes_first() -> None:
    """A line of anything else ends the connection: an HTTP client, say."""
    services = Services(Logins(), ("PLAIN",), ListLog(), Clock())
    server, transport = AuthServer(services, 1), StringTransport()
    server.makeConnection(transport)
    server.dataReceived(b"GET / HTTP/1.1\r\n")
    assert transport.disconnecting


def test_a_client_that_does_not_respond(scene: Scene) -> None:
    """The request fails after a while; CANCEL and the end of the connection end it silently."""
    scene.say(b"AUTH\t1\tLOGIN")
    scene.clock.advance(PATIENCE + 1)
    assert scene.read() == [b"FAIL\t1\treason=Timeout"]
    assert scene.say(b"CONT\t1\t" + b64(b"alice")) == []
    scene.say(b"AUTH\t2\tLOGIN")
    assert scene.say(b"CANCEL\t2") == []
    scene.logins.held = Deferred()
    scene.say(b"AUTH\t3\tPLAIN\tresp=" + b64(b"\0alice\0secret"))
    scene.say(b"AUTH\t4\tLOGIN")
    scene.server.connectionLost()
    scene.logins.held.callback(None)
    assert scene.read()[1:] == [] and scene.clock.getDelayedCalls() == []
