"""smtpd_proxy_filter: mail passes through a before-queue filter, as it does with Debian's Postfix beside us.

Both servers have the same rows: one with the filter, one with `speed_adjust`, and one for what comes back.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.end_to_end.before_queue import OFFERED, BeforeQueue, filtering
from tests.end_to_end.server import DEADLINE, Server, free_ports, wait_for
from tests.end_to_end.test_exchange import imap
from tests.postfix_services import SERVICES

_SETTINGS = """\
myhostname = mx.example.org
mydestination = example.org
mynetworks = 127.0.0.0/8
message_size_limit = 200000
smtpd_authorized_xforward_hosts = 127.0.0.0/8
smtpd_sender_restrictions =
    check_sender_access inline:{ {hold@x.test = HOLD}, {note@x.test = PREPEND X-Note: 1} }
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_end_of_data_restrictions = check_sender_access inline:{ {end@x.test = REJECT no} }
"""
_POSTFIX = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
inet_protocols = ipv4
maillog_file_prefixes = /var, /dev/stdout, {home}
maillog_file = {home}/mail.log
local_transport = discard:
local_recipient_maps =
alias_maps =
"""
PLAIN, SPEED = "plain", "speed"


class Mailer(Protocol):
    """A server with those rows."""

    filter: BeforeQueue
    ports: Mapping[str, int]

    def log_text(self) -> str:
        """Its log so far."""


def rows(ports: Mapping[str, int], filter_port: int) -> str:
    """The rows of master.cf for both servers."""
    proxied = f"smtpd -o smtpd_proxy_filter=127.0.0.1:{filter_port} -o smtpd_proxy_timeout=60s"
    return (
        f"127.0.0.1:{ports[PLAIN]} inet n - n - - {proxied}\n"
        f"127.0.0.1:{ports[SPEED]} inet n - n - - {proxied} -o smtpd_proxy_options=speed_adjust\n"
        f"127.0.0.1:{ports['back']} inet n - n - - smtpd -o smtpd_sender_restrictions=\n"
    )


@contextmanager
def ours(home: Path) -> Iterator[Mailer]:
    """This program's."""
    server = Server(home / "ours")
    plain, speed, back = free_ports(3)
    server.ports |= {PLAIN: plain, SPEED: speed, "back": back}
    with filtering(back) as before_queue, (server.directory / "master.cf").open("a") as file:
        file.write(rows(server.ports, before_queue.port))
        file.close()
        server.configure(*_SETTINGS.splitlines())
        server.filter = before_queue  # type: ignore[attr-defined]
        server.start()
        try:
            yield server  # type: ignore[misc]
        finally:
            server.stop()


class Postfix:
    """Debian's, in a directory of its own."""

    def __init__(self, home: Path, before_queue: BeforeQueue, ports: Mapping[str, int]) -> None:
        self.home, self.filter, self.ports = home, before_queue, ports
        for name in ("config", "queue", "data"):
            (home / name).mkdir()
        owner = pwd.getpwnam("postfix")
        os.chown(home / "data", owner.pw_uid, owner.pw_gid)
        (home / "config" / "main.cf").write_text(_POSTFIX.format(home=home) + _SETTINGS)
        (home / "config" / "master.cf").write_text(rows(ports, before_queue.port) + SERVICES)
        with (home / "output").open("wb") as file:
            command = ["postfix", "-c", str(home / "config"), "start"]
            done = subprocess.run(command, stdout=file, stderr=file, timeout=DEADLINE, check=False)
        assert done.returncode == 0, (home / "output").read_text()

    def log_text(self) -> str:
        """See `Mailer`."""
        path = self.home / "mail.log"
        return path.read_text() if path.exists() else ""

    def stop(self) -> None:
        """The master is gone, and takes its children with it."""
        pid = int((self.home / "queue" / "pid" / "master.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "Postfix to end")


@contextmanager
def debians() -> Iterator[Mailer]:
    """Debian's Postfix."""
    home = Path(tempfile.mkdtemp(prefix="mailserver-postfix-"))
    home.chmod(0o755)
    ports = dict(zip((PLAIN, SPEED, "back"), free_ports(3), strict=True))
    with filtering(ports["back"]) as before_queue:
        postfix = Postfix(home, before_queue, ports)
        try:
            yield postfix
        finally:
            postfix.stop()
            shutil.rmtree(home)


@pytest.fixture(scope="module")
def mailer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailer]:
    """Our server."""
    with ours(tmp_path_factory.mktemp("proxy")) as server:
        yield server


@pytest.fixture(scope="module")
def postfix() -> Iterator[Mailer]:
    """Debian's server."""
    with debians() as server:
        yield server


Said = tuple[list[str], list[str], list[bytes], list[str]]


def talk(mailer: Mailer, way: str, deeds: Mapping[str, str], commands: Sequence[bytes]) -> Said:
    """The client's replies, what the filter was told, the content it got, and the log's lines about it.

    Each command is sent when the one before is answered; an empty one ends the connection at once.
    """
    mailer.filter.begin({name: text for name, text in deeds.items() if name != "offered"})
    mailer.filter.offered = tuple(deeds["offered"].split(",")) if "offered" in deeds else OFFERED
    start, replies = len(mailer.log_text()), []
    with (
        socket.create_connection(("127.0.0.1", mailer.ports[way]), timeout=DEADLINE) as client,
        client.makefile("rb") as answers,
    ):
        replies.append(_reply(answers))
        for command in commands:
            if not command:
                break
            client.sendall(command if b"\n" in command else command + b"\r\n")
            replies.append(_reply(answers))
            if not replies[-1]:
                break
    before_queue = mailer.filter
    wait_for(lambda: before_queue.running == 0, f"the filter to end: {before_queue.told}")

    def is_told() -> bool:
        text = mailer.log_text()
        return "]: connect from" in text[start:] and text.count("]: connect from") == text.count(
            "disconnect from"
        )

    wait_for(is_told, "the log")
    lines = re.findall(
        r"(?:warning: .*prox|proxy-|NOQUEUE: client|.*action HOLD).*", mailer.log_text()[start:]
    )
    told = [_usual(line) for line in before_queue.told]
    contents = [re.sub(rb"\w+, \d+ \w+ \d+ [\d:]+ .*?\)", b"DATE", each) for each in before_queue.contents]
    return [_usual(each) for each in replies], told, contents, [_usual(line) for line in lines]


def _reply(answers: Any) -> str:
    while (line := answers.readline())[3:4] == b"-":
        pass
    return str(line.decode().strip())


def _usual(text: str) -> str:
    """Without what differs from run to run."""
    text = re.sub(r"queued as \w+", "queued as ID", text)
    text = re.sub(r"PORT=\d+", "PORT=N", text)
    text = re.sub(r"^250 (XFORWARD|CHUNKING).*", "250 EXTENSIONS", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "FILTER", text)
    return re.sub(r"(lost connection with proxy FILTER) while .*", r"\1", text)


HELLO = (b"EHLO client.test", b"MAIL FROM:<a@x.test> BODY=8BITMIME", b"RCPT TO:<alice@example.org>")
BODY = b"Subject: hello\r\n\r\nbody\r\n..dot\r\n.\r\n"
MESSAGE = (*HELLO, b"DATA", BODY, b"QUIT")
VIRUS = (*HELLO, b"RCPT TO:<bob@example.org>", b"DATA", b"Subject: eicar\r\n\r\n.\r\n", b"QUIT")
BIG = b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * 4000 + b".\r\n"
# A name, what the filter does, and what the client says.
CASES: Sequence[tuple[str, Mapping[str, str], Sequence[bytes]]] = (
    ("a message", {}, MESSAGE),
    ("two messages", {}, (*MESSAGE[:-1], *HELLO[1:], b"DATA", BODY, b"QUIT")),
    ("a virus", {}, VIRUS),
    ("chunks", {}, (*HELLO, b"BDAT 17\r\nSubject: x\r\n\r\nabc", b"BDAT 5 LAST\r\nabc\r\n", b"QUIT")),
    ("a virus in chunks", {}, (*HELLO, b"BDAT 18 LAST\r\nSubject: eicar\r\n\r\n", b"QUIT")),
    ("too big", {}, (*HELLO, b"DATA", BIG, b"NOOP", b"QUIT")),
    ("reset", {}, (*HELLO, b"RSET", b"QUIT")),
    ("quit", {}, (*HELLO, b"QUIT")),
    ("no recipient", {}, (HELLO[0], HELLO[1], b"RCPT TO:<carol@elsewhere.test", b"QUIT")),
    ("an access rule's field", {}, (HELLO[0], b"MAIL FROM:<note@x.test>", HELLO[2], b"DATA", BODY, b"QUIT")),
    ("the end refused", {}, (HELLO[0], b"MAIL FROM:<end@x.test>", HELLO[2], b"DATA", BODY, b"QUIT")),
    ("forwarded", {}, (HELLO[0], b"XFORWARD NAME=spike.test ADDR=192.0.2.9 HELO=there", *MESSAGE[1:])),
    ("a filter without XFORWARD", {"offered": "8BITMIME"}, MESSAGE),
    ("a filter with some of XFORWARD", {"offered": "XFORWARD ADDR HELO"}, MESSAGE),
    ("busy", {"greeting": "421 no"}, (*HELLO, b"QUIT")),
    ("no greeting", {"greeting": ""}, (*HELLO, b"QUIT")),
    ("bad sender", {"MAIL": "550 5.1.0 bad sender"}, (*HELLO, b"QUIT")),
    ("nonsense for MAIL", {"MAIL": "354 what"}, (*HELLO, b"QUIT")),
    ("XFORWARD refused", {"XFORWARD": "501 no"}, (*HELLO, b"QUIT")),
    (
        "one recipient refused",
        {"TO:<bob@example.org>": "450 4.2.0 later"},
        (*HELLO, b"RCPT TO:<bob@example.org>", b"DATA", BODY, b"QUIT"),
    ),
    ("gone at RCPT", {"RCPT": ""}, (*HELLO, b"DATA", b"QUIT")),
    ("DATA refused", {"DATA": "451 4.3.0 not now"}, (*HELLO, b"DATA", b"QUIT")),
    ("nonsense for DATA", {"DATA": "250 ok"}, (*HELLO, b"DATA", b"QUIT")),
    ("refused without a code", {".": "554 no thanks"}, MESSAGE),
    ("gone at the end", {".": ""}, MESSAGE),
)


@pytest.mark.needs("root", "postfix")
@pytest.mark.parametrize("way", [PLAIN, SPEED])
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_the_same_as_postfix(
    mailer: Mailer, postfix: Mailer, way: str, case: tuple[str, Mapping[str, str], Sequence[bytes]]
) -> None:
    """What client and filter hear, and what the log has. SMTPD_PROXY_README, XFORWARD_README."""
    name, deeds, commands = case
    if way == SPEED and deeds and BODY not in commands:
        commands = MESSAGE  # the filter does nothing before its end
    told, expected = (talk(each, way, deeds, commands) for each in (mailer, postfix))
    if name == "too big":  # there Postfix's log has the filter's last reply, which was to something else
        told[-1].pop()
        expected[-1].pop()
    assert told == expected


def received(mailer: Mailer, name: str, subject: str) -> bytes:
    """The message with that subject, once it is there."""
    found: list[bytes] = []

    def look() -> bool:
        client = imap(mailer, name)  # type: ignore[arg-type]
        client.select("INBOX", readonly=True)
        for number in client.search(None, "SUBJECT", subject)[1][0].split():
            found.append(client.fetch(number.decode(), "(BODY.PEEK[])")[1][0][1])  # type: ignore
        client.logout()
        return bool(found)

    wait_for(look, f"{subject}\n{mailer.log_text()[-3000:]}")
    return found[0]


@pytest.mark.parametrize("way", [PLAIN, SPEED])
def test_the_message_comes_back_through_the_second_listener(mailer: Mailer, way: str) -> None:
    """Octet for octet, also what does not fit into memory; who sent it is in the second listener's log."""
    mailer.filter.begin({})
    lines = "".join(f".{number} {'x' * 60}\r\n" for number in range(2500))
    with smtplib.SMTP("127.0.0.1", mailer.ports[way]) as client:
        client.sendmail("bob@x.test", ["alice@example.org"], f"Subject: whole-{way}\r\n\r\n{lines}")
    message = received(mailer, "alice", f"whole-{way}")
    assert message.count(b"X-Filtered: well") == 1 and message.count(b"\nReceived:") == 2
    assert message.endswith(lines.encode())
    assert mailer.filter.contents[0].count(b"\r\n..") == 2500


def test_commands_may_come_all_at_once(mailer: Mailer) -> None:
    """PIPELINING: replies in order, and the filter hears one command at a time."""
    mailer.filter.begin({"TO:<bob@example.org>": "450 4.2.0 later"})
    with socket.create_connection(("127.0.0.1", mailer.ports[PLAIN]), timeout=DEADLINE) as client:
        answers = client.makefile("rb")
        client.sendall(HELLO[0] + b"\r\n")
        assert [_reply(answers)[:3] for _ in range(2)] == ["220", "250"]
        client.sendall(b"\r\n".join((*HELLO[1:], b"RCPT TO:<bob@example.org>", b"DATA", b"")))
        assert [_reply(answers)[:3] for _ in range(4)] == ["250", "250", "450", "354"]
        client.sendall(BODY + b"QUIT\r\n")
        assert _reply(answers).startswith("250 2.0.0 Ok: queued as ")
        answers.close()


def test_a_client_that_leaves_leaves_nothing(mailer: Mailer) -> None:
    """Content that was cut off is no message: the filter hears no final dot."""
    mailer.filter.begin({})
    with socket.create_connection(("127.0.0.1", mailer.ports[PLAIN]), timeout=DEADLINE) as client:
        answers = client.makefile("rb")
        for command in ("", *HELLO, b"DATA"):
            client.sendall(command + b"\r\n" if command else b"")
            _reply(answers)
        client.sendall(b"Subject: half\r\n")
        answers.close()
    wait_for(lambda: mailer.filter.told[-1:] == ["cut off"], f"the end: {mailer.filter.told}")
    assert mailer.filter.contents == []


def test_what_the_queue_alone_can_do_is_not_done(mailer: Mailer) -> None:
    """HOLD and its like: the log says that they are unavailable, as Postfix's does."""
    commands = (HELLO[0], b"MAIL FROM:<hold@x.test>", HELLO[2], b"DATA", BODY, b"QUIT")
    replies, *_, lines = talk(mailer, PLAIN, {}, commands)
    assert replies[-2] == "250 2.0.0 Ok: queued as ID"
    assert any("with smtpd_proxy_filter specified, action HOLD is unavailable" in line for line in lines)


@pytest.mark.parametrize("way", [PLAIN, SPEED])
def test_a_filter_that_is_not_there(tmp_path: Path, way: str) -> None:
    """451, and the log says why: nothing passes unfiltered. A socket below queue_directory, by the way."""
    server = Server(tmp_path / "home")
    server.configure(
        "smtpd_proxy_filter = unix:private/filter",
        f"smtpd_proxy_options = {'speed_adjust' if way == SPEED else ''}",
        "message_size_limit = 1000000",
    )
    server.start()
    try:
        with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
            with pytest.raises((smtplib.SMTPDataError, smtplib.SMTPRecipientsRefused)) as refused:
                client.sendmail("bob@x.test", ["alice@example.org"], "Subject: x\r\n\r\n" + "x\r\n" * 50_000)
            assert "451" in str(refused.value) and "queue file write error" in str(refused.value)
        server.logged(r"warning: connect to proxy filter unix:private/filter: ")
    finally:
        server.stop()


def test_explain_names_the_filter(mailer: Any) -> None:
    """The listener's own setting, with its line."""
    told = mailer.command("explain", "--port", str(mailer.ports[PLAIN]), "alice@example.org")
    assert f"first through the proxy filter 127.0.0.1:{mailer.filter.port}  (smtpd_proxy_filter, " in told
