"""The processes of a server that root started: what each may do, and what happens when one is killed."""

from __future__ import annotations

import imaplib
import os
import signal
import smtplib
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.config.read import read_config
from mailserver.roles.instance import app_password_channel, guest_channel, runtime_directory
from tests.end_to_end.root_mail import arrived, found, imap, logged, send
from tests.end_to_end.root_server import MAIL_OWNER, PASSWORD, USERS, RootServer, interpreter, status
from tests.end_to_end.server import wait_for

pytestmark = pytest.mark.needs("root")

UNPRIVILEGED = ("front", "queue")
MAIL_GROUP = 8


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    started = RootServer("mbox")
    started.wrapper = "sh -c 'umask 077; exec \"$@\"' sh"  # a careful root's, who starts it from a shell
    started.start()
    for name in USERS:
        send(started, f"first-{name}", f"{name}@example.org")
        arrived(started, name, f"first-{name}")
    yield started
    started.remove()


def can_read(path: Path, uid: int, *groups: int) -> bool:
    """Whether a process with that uid, its own gid and those groups can open the file."""
    done = subprocess.run(
        ["cat", str(path)], user=uid, group=uid, extra_groups=groups, capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.mark.parametrize("role", UNPRIVILEGED)
def test_a_role_that_hears_the_network_has_no_rights(server: RootServer, role: str) -> None:
    """B28: not root, no capability, none to be gained, no group besides."""
    found = status(server.roles()[role])
    assert found["Uid"].split() == [str(MAIL_OWNER[1])] * 4
    assert found["Gid"].split() == [str(MAIL_OWNER[1])] * 4
    assert set(found["Groups"].split()) <= {str(MAIL_OWNER[1])}
    assert {found[name] for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"


def test_what_the_front_may_not_read(server: RootServer) -> None:
    """B28: shadow, anybody's mail, and the key of TLS are out of its reach."""
    secrets = [
        server.etc / "shadow",
        server.directory / "config" / "tls" / "key.pem",
        *(server.spool / name for name in USERS),
        *(server.directory / "state" / "accounts" / name / "state.db" for name in USERS),
    ]
    for secret in secrets:
        assert secret.exists()
        assert not can_read(secret, MAIL_OWNER[1]), secret
    assert can_read(server.directory / "config" / "main.cf", MAIL_OWNER[1])


@pytest.mark.parametrize("role", UNPRIVILEGED)
def test_a_role_holds_no_descriptor_it_should_not(server: RootServer, role: str) -> None:
    """What root opened for others is closed: no mailbox, no key, no shadow."""
    directory = Path(f"/proc/{server.roles()[role]}/fd")
    open_files = [os.readlink(directory / number) for number in os.listdir(directory)]
    for path in open_files:
        assert not path.startswith((f"{server.spool}/", f"{server.etc}/", "/etc/shadow")), open_files
        assert "key.pem" not in path, open_files


def test_a_session_host_is_its_account_and_sees_no_other(server: RootServer) -> None:
    """B28: uid of the account, group mail only since INBOX lies in the spool."""
    sessions = [imap(server, name) for name in USERS]
    hosts = server.hosts()
    for name, uid in USERS.items():
        facts = status(hosts[uid])
        assert facts["Uid"].split() == [str(uid)] * 4
        assert facts["CapEff"] == "0" * 16 and facts["NoNewPrivs"] == "1"
        assert set(facts["Groups"].split()) <= {str(uid), str(MAIL_GROUP)}
        other = next(each for each in USERS if each != name)
        assert not can_read(server.spool / other, uid, MAIL_GROUP)
        assert not can_read(server.directory / "state" / "accounts" / other / "state.db", uid, MAIL_GROUP)
    for session in sessions:
        session.logout()


def command(server: RootServer, *words: str) -> str:
    """What a `mailserver` subcommand prints, typed by root."""
    program, environment = interpreter()
    assert server.process is not None
    done = subprocess.run(
        [
            "nsenter",
            "--mount",
            f"--target={server.process.pid}",
            program,
            "-m",
            "mailserver.commands.main",
            "-c",
            f"{server.directory}/config",
            *words,
        ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_who_and_kick_reach_the_session_hosts(server: RootServer) -> None:
    """The front knows who is logged in; the pid is that of the host, which takes leave of the client."""
    sessions = [imap(server, "ursula"), imap(server, "ursula")]
    host = server.hosts()[USERS["ursula"]]
    shown = command(server, "who").splitlines()
    assert shown[1].split() == ["ursula", "2", "imap", f"({host})", "(127.0.0.1)"], shown
    logged(server, f"user=<ursula>, method=PLAIN, rip=127.0.0.1, lip=127.0.0.1, mpid={host},")
    assert command(server, "kick", "ursula").split()[-1] == "ursula"
    for session in sessions:
        assert session.readline() == b"* BYE Kicked by an administrator.\r\n"
        session.shutdown()
    wait_for(lambda: len(command(server, "who").splitlines()) == 1, "nobody to be logged in")
    with pytest.raises(imaplib.IMAP4.error):
        imap(server, "viktor", "wrong")
    assert "127.0.0.1 1" in command(server, "penalty")
    assert command(server, "penalty", "--clear", "127.0.0.1") == "cleared 127.0.0.1\n"
    assert len(command(server, "penalty").splitlines()) == 1


def test_a_transcript_is_the_accounts(server: RootServer) -> None:
    """`mailserver rawlog`, typed by root, touches the account's directory as the account does."""
    assert "transcripts of new sessions" in command(server, "rawlog", "ursula", "--start")
    imap(server, "ursula").logout()
    kept = server.directory / "state" / "accounts" / "ursula" / "rawlog"
    assert {path.stat().st_uid for path in (kept, *kept.iterdir())} == {USERS["ursula"]}
    shown = command(server, "rawlog", "ursula", "--show")
    assert "C: " in shown and "LOGOUT" in shown and PASSWORD not in shown
    command(server, "rawlog", "ursula", "--stop")
    assert not kept.exists()


def kill(server: RootServer, role: str) -> int:
    """The role's process is killed, and another one there; its pid."""
    old = server.roles()[role]
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: server.roles().get(role, old) != old, f"another {role}")
    return server.roles()[role]


@pytest.mark.parametrize("role", ["front", "queue", "helper", "agent-0", "zygote"])
def test_a_killed_role_comes_back_and_loses_nothing(server: RootServer, role: str) -> None:
    """P2, P8: what was acknowledged before, while and after a role is killed arrives, at most twice."""
    sent: list[str] = []
    stop = threading.Event()

    def keep_sending() -> None:
        while not stop.wait(0.02):
            identifier = f"kill-{role}-{len(sent)}"
            try:
                send(server, identifier, "ursula@example.org")
            except (OSError, smtplib.SMTPException):
                continue
            sent.append(identifier)

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        wait_for(lambda: len(sent) >= 5, "some messages")
        kill(server, role)
        at_return = len(sent)
        wait_for(lambda: len(sent) >= at_return + 5, "more messages")
    finally:
        stop.set()
        sender.join()
    wait_for(lambda: can_log_in(server, "ursula"), "a login")
    wait_for(lambda: set(sent) <= set(subjects(server, "ursula")), "every acknowledged message")
    copies = Counter(subjects(server, "ursula"))
    assert max(copies[identifier] for identifier in sent) <= 2


def subjects(server: RootServer, name: str) -> list[str]:
    """The subjects in the account's INBOX."""
    client = imap(server, name)
    client.select("INBOX", readonly=True)
    rows = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
    client.logout()
    return [row[1].decode().split()[1] for row in rows if isinstance(row, tuple)]


def can_log_in(server: RootServer, name: str) -> bool:
    """Whether a login succeeds now."""
    try:
        imap(server, name).logout()
    except (OSError, imaplib.IMAP4.error):
        return False
    return True


def test_a_killed_session_host_costs_its_own_user_only(server: RootServer) -> None:
    """P9: others' sessions go on, and the next login gets another host."""
    mine, others = imap(server, "ursula"), imap(server, "viktor")
    os.kill(server.hosts()[USERS["ursula"]], signal.SIGKILL)
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        mine.noop()
    assert others.noop()[0] == "OK"
    again = imap(server, "ursula")
    assert again.select("INBOX")[0] == "OK"
    again.logout()
    others.logout()


def test_strangers_cannot_speak_to_the_roles(server: RootServer) -> None:
    """The channels are the mail owner's and root's: another user gets no answer, let alone a secret.

    But for those that answer every user, about the user's own app passwords and what others share.
    """
    config = read_config(str(server.directory / "config"), {})
    channels = {path for path in Path(runtime_directory(config)).rglob("*") if path.is_socket()}
    assert len(channels) >= 5
    channels -= {Path(app_password_channel(config)), Path(guest_channel(config))}
    for path in channels:
        program = f"from socket import *; socket(AF_UNIX, SOCK_SEQPACKET).connect({str(path)!r})"
        done = subprocess.run(
            ["/usr/bin/python3", "-c", program],
            user=USERS["ursula"],
            group=USERS["ursula"],
            extra_groups=(),
            capture_output=True,
            check=False,
        )
        assert b"PermissionError" in done.stderr, (path, done.stderr)


def test_a_rotated_log_is_followed_by_every_role(server: RootServer) -> None:
    """F55: after SIGHUP front, queue, helper and session hosts write into the new file; sessions live on."""
    session = imap(server, "ursula")
    rotated = server.log.rename(server.directory / "mail.log.1")
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    wait_for(server.log.exists, "a new log")
    send(server, "rotated", "ursula@example.org")
    arrived(server, "ursula", "rotated")
    assert session.noop()[0] == "OK"
    session.logout()  # the host says so in the log
    for words in ("postfix/smtpd", "postfix/local", "imap-login: Login", "imap(ursula)"):
        logged(server, words)
    assert "Disconnected: Logged out" not in rotated.read_text().splitlines()[-1]
    server.log.rename(server.directory / "mail.log.2")
    (server.directory / "mail.log.2").rename(server.log)  # `start` counts its lines
    with server.log.open("a") as log:
        log.write(rotated.read_text())


def test_a_stop_lets_clients_go_and_leaves_no_process(server: RootServer) -> None:
    """F09, F11: BYE and 421, a clean end within the 30 s, and a start that has everything."""
    session = imap(server, "viktor")
    session.select("INBOX")
    inside = smtplib.SMTP("127.0.0.1", server.ports["smtp"])
    inside.ehlo()
    before = server.processes()
    assert len(before) > 8
    server.stop()
    assert not server.processes()
    assert b"BYE" in session.readline()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        for _ in range(2):  # the 421, then the end
            inside.noop()
    server.start()
    assert found(server, "viktor", "first-viktor") == 1


def test_the_death_of_the_supervisor_is_the_end_of_all(server: RootServer) -> None:
    """No orphan keeps a port: the next start succeeds at once."""
    assert server.process is not None
    session = imap(server, "viktor")
    server.process.kill()
    server.process.wait()
    wait_for(lambda: not server.processes(), "the roles to end")
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        session.noop()
        session.noop()
    server.start()
    send(server, "after-death", "viktor@example.org")
    arrived(server, "viktor", "after-death")
