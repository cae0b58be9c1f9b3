"""Debian's postgrey behind check_policy_service."""

from __future__ import annotations

import os
import pwd
import smtplib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import DEADLINE, Server, free_ports, wait_for

pytestmark = pytest.mark.needs("postgrey")


@pytest.fixture
def postgrey() -> Iterator[int]:
    """The port of a postgrey that lets mail pass after a second."""
    (port,) = free_ports(1)
    owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    with tempfile.TemporaryDirectory(prefix="postgrey-") as directory:
        os.chown(directory, owner.pw_uid, owner.pw_gid)
        Path(directory).chmod(0o755)
        process = subprocess.Popen(
            ["postgrey", f"--inet=127.0.0.1:{port}", f"--dbdir={directory}", "--delay=1",
             f"--user={owner.pw_name}", f"--group={owner.pw_gid}", "--whitelist-clients=/dev/null"],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield port
        finally:
            process.terminate()
            process.wait(DEADLINE)


def rcpt(server: Server) -> tuple[int, bytes]:
    """What carol's mail to alice hears at RCPT."""
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.ehlo()
        client.mail("carol@example.net")
        return client.rcpt("alice@example.org")


def test_greylisting(tmp_path: Path, postgrey: int) -> None:
    """The first attempt is put off, a later one is let in, and marked."""
    server = Server(tmp_path / "home")
    server.configure(
        f"smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:{postgrey}",
        "mynetworks = 192.0.2.0/24",
        "smtpd_relay_restrictions = reject_unauth_destination",
        "smtpd_policy_service_try_limit = 30",
    )
    server.start()
    try:
        code, text = rcpt(server)
        assert (code, text.partition(b"Recipient address rejected: ")[2][:10]) == (450, b"Greylisted"), text
        wait_for(lambda: rcpt(server)[0] == 250, "postgrey to let carol in")
        server.logged(r"NOQUEUE: reject: RCPT from .*Greylisted")
    finally:
        server.stop()
