"""Debian's opendkim as milters: one signs, one verifies, over SMTP and for the sendmail command."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import DEADLINE, Server, free_ports, wait_for
from tests.end_to_end.test_exchange import imap, send

pytestmark = pytest.mark.needs("opendkim", "opendkim-genkey")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@contextlib.contextmanager
def opendkim(directory: Path, name: str, settings: str) -> Iterator[int]:
    """The port of a running one."""
    (port,) = free_ports(1)
    configuration = directory / f"{name}.conf"
    configuration.write_text(
        f"Socket inet:{port}@127.0.0.1\nSyslog no\nBackground no\nRequireSafeKeys no\n"
        f"PidFile {directory}/{name}.pid\n{settings}"
    )
    process = subprocess.Popen(["opendkim", "-f", "-x", str(configuration)], env={"PATH": _PATH})

    def answers() -> bool:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    try:
        wait_for(answers, "opendkim to listen")
        yield port
    finally:
        process.kill()
        process.wait(DEADLINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Mail is signed by the first milter and verified, with the signature in it, by the second."""
    directory = tmp_path_factory.mktemp("dkim")
    subprocess.run(
        ["opendkim-genkey", "-b", "1024", "-s", "test", "-d", "example.org", "-D", str(directory)],
        check=True,
        env={"PATH": _PATH},
    )
    record = "".join(re.findall(r'"([^"]*)"', (directory / "test.txt").read_text()))
    (directory / "keys").write_text(f"test._domainkey.example.org {record}\n")
    signs = f"Mode s\nDomain example.org\nSelector test\nKeyFile {directory}/test.private\n"
    verifies = f"Mode v\nInternalHosts csl:192.0.2.1\nTestPublicKeys {directory}/keys\n"
    made = Server(directory / "home")
    with (
        opendkim(directory, "signer", signs) as signer,
        opendkim(directory, "verifier", verifies) as verifier,
    ):
        made.configure(
            f"smtpd_milters = inet:127.0.0.1:{signer}, {{ inet:localhost:{verifier}, command_timeout=20s }}",
            f"non_smtpd_milters = inet:127.0.0.1:{signer}",
        )
        made.start()
        try:
            yield made
        finally:
            made.stop()


def received(server: Server, subject: str) -> bytes:
    """The header of alice's message with that subject, once it is there."""
    found: list[bytes] = []

    def look() -> bool:
        client = imap(server, "alice")
        client.select("INBOX", readonly=True)
        for number in client.search(None, "SUBJECT", subject)[1][0].split():
            found.append(client.fetch(number.decode(), "(BODY.PEEK[HEADER])")[1][0][1])  # type: ignore
        client.logout()
        return bool(found)

    wait_for(look, f"{subject}\n{server.log_text()[-3000:]}")
    return found[0]


@pytest.mark.parametrize("lines", [1, 20_000])
def test_signed_and_verified(server: Server, lines: int) -> None:
    """The signature fits what is delivered, whether the message was small or on disk already."""
    subject = f"signed-{lines}"
    content = f"From: bob@example.org\nTo: alice@example.org\nSubject: {subject}\n\n" + "a line\n" * lines
    send(server, content.encode(), "alice@example.org", sender="bob@example.org")
    header = received(server, subject)
    assert re.search(rb"^DKIM-Signature: v=1;.* d=example\.org;", header, re.DOTALL | re.MULTILINE)
    assert re.search(rb"^Authentication-Results: .*dkim=pass", header, re.DOTALL | re.MULTILINE), header


def test_mail_of_the_sendmail_command_is_signed(server: Server) -> None:
    """non_smtpd_milters."""
    subprocess.run(
        [Path(sys.executable).with_name("sendmail"), "-f", "bob@example.org", "alice@example.org"],
        input=b"From: bob@example.org\nSubject: dropped-signed\n\nx\n",
        check=True,
        env={**os.environ, "MAIL_CONFIG": str(server.directory)},
        timeout=DEADLINE,
    )
    assert b"DKIM-Signature: v=1;" in received(server, "dropped-signed")
