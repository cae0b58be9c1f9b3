"""Who may do what where root serves system accounts: logins, .forward files, commands, files."""

from __future__ import annotations

import base64
import os
import smtplib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.end_to_end.root_mail import arrived, forwarding, found, logged, send
from tests.end_to_end.root_server import MAIL_OWNER, PASSWORD, SHUT_OUT, SYSTEM_USER, USERS, RootServer
from tests.end_to_end.server import wait_for
from tests.end_to_end.test_exchange import untrusting

pytestmark = pytest.mark.needs("root")

NOBODY = 65534


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    started = RootServer("mbox")
    public = started.directory / "public"
    public.mkdir()
    public.chmod(0o1777)
    with (started.directory / "config" / "aliases").open("a") as aliases:
        program = script(started, "as-nobody", public / "report")
        aliases.write(f'\nprogram: "|{program}"\nfile: {started.directory}/roots-own\n')
    started.start()
    yield started
    started.remove()


def test_a_login_to_send_needs_the_password(server: RootServer) -> None:
    """Submission asks the helper as well."""
    with smtplib.SMTP_SSL("127.0.0.1", server.ports["submissions"], context=untrusting()) as client:
        client.login("viktor", PASSWORD)
        client.sendmail("viktor@example.org", ["ursula@example.org"], b"Subject: sub-root\r\n\r\nhi\r\n")
    assert "sasl_method=PLAIN, sasl_username=viktor" in server.log_text()
    arrived(server, "ursula", "sub-root")
    with smtplib.SMTP_SSL("127.0.0.1", server.ports["submissions"], context=untrusting()) as client:
        client.ehlo()
        wrong = base64.b64encode(b"\0ursula\0wrong horse").decode()
        assert client.docmd("AUTH", f"PLAIN {wrong}")[0] == 535


def test_who_may_not_log_in_gets_the_same_answer_as_a_wrong_password(server: RootServer) -> None:
    """Locked, empty, expired, root and system accounts: mail, but no network login. B14: one text for all."""
    names = [*SHUT_OUT, "root", SYSTEM_USER[0], MAIL_OWNER[0], "nosuch", "ursula"]
    passwords = dict.fromkeys(names, PASSWORD) | {"empty": "", "ursula": "wrong horse"}
    answers = refusals(server, passwords)
    assert set(answers.values()) == {"NO [AUTHENTICATIONFAILED] Authentication failed."}


def refusals(server: RootServer, passwords: Mapping[str, str]) -> Mapping[str, str]:
    """What IMAP answers to each name's login, asked at once and each from a place of its own."""
    clients = {}
    for number, (name, password) in enumerate(passwords.items()):
        where = ("127.0.0.1", server.ports["imap"])
        client = socket.create_connection(where, 30, source_address=(f"127.0.1.{number + 1}", 0))
        client.sendall(f'a LOGIN {name} "{password}"\r\n'.encode())
        clients[name] = client
    return {name: tagged(client) for name, client in clients.items()}


def tagged(client: socket.socket) -> str:
    """The rest of the line that answers command `a`; the connection is closed."""
    with client, client.makefile("rb") as lines:
        return next(line for line in lines if line.startswith(b"a "))[2:].decode().strip()


def test_shut_out_accounts_still_get_mail(server: RootServer) -> None:
    """A locked or system account is an address all the same."""
    for name in ("locked", SYSTEM_USER[0]):
        send(server, f"for-{name}", f"{name}@example.org")
        logged(server, f"to=<{name}@example.org>, relay=local")
    assert (server.spool / "locked").exists()


def test_a_forward_file_of_mode_644_is_followed(server: RootServer) -> None:
    """The project's rule for .forward, ECOSYSTEM §5."""
    with forwarding(server, "ursula", "viktor\n"):
        send(server, "fwd-644", "ursula@example.org")
        arrived(server, "viktor", "fwd-644")
    assert found(server, "ursula", "fwd-644") == 0


def test_a_forward_file_of_mode_600_is_not_and_the_warning_says_why(server: RootServer) -> None:
    """Any other mode: ignored, delivered to the mailbox, and the fix is named."""
    with forwarding(server, "ursula", "viktor\n", 0o600):
        send(server, "fwd-600", "ursula@example.org")
        arrived(server, "ursula", "fwd-600")
        assert "has mode 0600, must be 0644" in server.log_text()
    assert found(server, "viktor", "fwd-600") == 0


def test_a_forward_file_of_somebody_else_is_not_followed(server: RootServer) -> None:
    """A file that another user put there has no say."""
    with forwarding(server, "ursula", "viktor\n"):
        os.chown(server.home("ursula") / ".forward", USERS["viktor"], USERS["viktor"])
        send(server, "fwd-owner", "ursula@example.org")
        arrived(server, "ursula", "fwd-owner")
        assert f"has bad owner uid {USERS['viktor']}" in server.log_text()


REPORT = "id; echo fds: $(ls /proc/self/fd | tr '\\n' ' '); grep -E 'CapEff|CapPrm' /proc/self/status; env"


def script(server: RootServer, name: str, output: Path) -> str:
    """A program that everybody may run; it writes down what rights and surroundings it has."""
    path = server.directory / name
    path.write_text(
        f"#!/bin/sh\ncat > /dev/null\numask 022\n({REPORT}) > {output}.part\nmv {output}.part {output}\n"
    )
    path.chmod(0o755)
    return str(path)


def report(output: Path) -> str:
    """What such a program wrote, once it has."""
    wait_for(output.exists, f"the command's report {output}")
    return output.read_text()


def assert_harmless(text: str) -> None:
    """No capability, no descriptor above the pipes (3 is that of ls itself), no foreign environment."""
    assert "CapEff:\t0000000000000000" in text
    assert "CapPrm:\t0000000000000000" in text
    assert "fds: 0 1 2 3\n" in text
    assert "PATH=/usr/bin:/bin\n" in text
    assert "PYTHONPATH" not in text


def test_a_command_of_a_forward_file_runs_as_its_user(server: RootServer) -> None:
    """B6: uid, gid and no group besides; nothing left over from the server."""
    output = server.home("ursula") / "report"
    with forwarding(server, "ursula", f'"|{script(server, "as-user", output)}"\n'):
        send(server, "command-user", "ursula@example.org", sender='"$(touch`x`)"@example.net')
        text = report(output)
    uid = USERS["ursula"]
    assert f"uid={uid}(ursula) gid={uid}(ursula) groups={uid}(ursula)\n" in text
    assert_harmless(text)
    assert "SENDER=___touch_x___@example.net\n" in text
    assert f"HOME={server.home('ursula')}\n" in text
    output.unlink()


def test_a_command_of_an_alias_runs_as_nobody(server: RootServer) -> None:
    """B6: default_privs, whoever the alias file belongs to."""
    output = server.directory / "public" / "report"
    send(server, "command-alias", "program@example.org")
    text = report(output)
    assert f"uid={NOBODY}(nobody) gid={NOBODY}(nogroup) groups={NOBODY}(nogroup)\n" in text
    assert_harmless(text)
    output.unlink()


def test_a_file_of_an_alias_is_written_as_nobody(server: RootServer) -> None:
    """An alias cannot make root append to a file."""
    target = server.directory / "roots-own"
    target.write_text("kept\n")
    target.chmod(0o600)
    send(server, "file-alias", "file@example.org")
    logged(server, f"cannot append message to file {target}")
    assert target.read_text() == "kept\n"


def test_a_symlink_in_the_spool_changes_nothing_behind_it(server: RootServer) -> None:
    """B7: deferred, and the target keeps every octet."""
    secret = server.directory / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o666)
    (server.spool / "expired").symlink_to(secret)
    send(server, "symlink", "expired@example.org")
    logged(server, "to=<expired@example.org>, relay=local")
    assert "status=sent" not in server.log_text().partition("to=<expired@example.org>")[2].partition("\n")[0]
    assert secret.read_text() == "secret\n"


def test_slow_commands_of_some_hold_up_nobody_else(server: RootServer) -> None:
    """B30, P9: two users whose commands never end, with as much mail as they can take, and a third."""
    with (
        forwarding(server, "ursula", '"|sleep 1000"\n'),
        forwarding(server, "viktor", '"|sleep 1000"\n'),
    ):
        for number in range(5):
            send(server, f"slow-{number}", "ursula@example.org", "viktor@example.org")
        wait_for(lambda: len(commands(server)) == 4, "two commands of each")
        send(server, "quick", f"{SYSTEM_USER[0]}@example.org")
        wait_for(lambda: b"quick" in mailbox(server, SYSTEM_USER[0]), "the third user's mail")
    server.stop()
    assert not commands(server)
    assert not server.processes()
    server.start()


def commands(server: RootServer) -> list[int]:
    """The pids of the users' `sleep 1000`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x001000\x00" and path.stat().st_uid in USERS.values():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def mailbox(server: RootServer, name: str) -> bytes:
    """The content of the account's spool file."""
    path = server.spool / name
    return path.read_bytes() if path.exists() else b""


def test_mail_for_root_reaches_roots_mailbox(server: RootServer) -> None:
    """Without an alias for root (and postmaster is one for root) its mail is delivered like anybody's."""
    send(server, "for-root", "postmaster@example.org")
    logged(server, "orig_to=<postmaster@example.org>, relay=local")
    wait_for((server.spool / "root").exists, "root's mailbox")
    wait_for(lambda: b"for-root" in (server.spool / "root").read_bytes(), "the message")
    assert (server.spool / "root").stat().st_uid == 0
