"""content_filter and FILTER: mail goes through a filter and comes back. FILTER_README, both of its ways."""

from __future__ import annotations

import contextlib
import os
import pwd
import smtplib
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.server import DEADLINE, Server, free_ports, wait_for
from tests.end_to_end.test_exchange import imap

# The simple filter: it takes a message on standard input and hands it to the second listener.
SIMPLE = """\
import smtplib, sys
port, sender, *recipients = sys.argv[1:]
content = sys.stdin.buffer.read()
if b"Subject: eicar" in content:
    print("5.7.1 a virus")
    sys.exit(69)
with smtplib.SMTP("127.0.0.1", int(port), timeout=60) as client:
    client.sendmail(sender, recipients, b"X-Filtered: simply\\r\\n" + content)
"""


class Advanced(socketserver.StreamRequestHandler):
    """The advanced filter: it answers the end of data with what the second listener said."""

    server: Any

    def handle(self) -> None:
        say, sender = self.wfile.write, ""
        lines: list[bytes] = []
        recipients: list[str] = []
        say(b"220 filter\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"DATA":
                say(b"354 go\r\n")
                for each in self.rfile:
                    if each == b".\r\n":
                        break
                    lines.append(each.removeprefix(b"."))
                with smtplib.SMTP("127.0.0.1", self.server.back, timeout=DEADLINE) as client:
                    client.sendmail(sender, recipients, b"X-Filtered: well\r\n" + b"".join(lines))
            elif verb == b"MAIL":
                sender = line.split(b"<")[1].split(b">")[0].decode()
            elif verb == b"RCPT":
                recipients.append(line.split(b"<")[1].split(b">")[0].decode())
            if verb == b"QUIT":
                say(b"221 bye\r\n")
                return
            say(b"250 2.0.0 Ok\r\n")


@contextlib.contextmanager
def filtering(back: int) -> Iterator[int]:
    """The port of an advanced filter that hands mail back to that port."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Advanced) as listener:
        listener.daemon_threads = True
        listener.back = back  # type: ignore[attr-defined]
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield listener.server_address[1]
        listener.shutdown()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Port 25's mail goes through the simple filter; some of it, by FILTER, through the advanced one."""
    made = Server(tmp_path_factory.mktemp("filter") / "home")
    (back,) = free_ports(1)
    script = made.directory / "filter.py"
    script.write_text(SIMPLE)
    with filtering(back) as advanced:
        rows = (made.directory / "master.cf").read_text().splitlines()
        port = made.ports["smtp"]
        at = next(number for number, row in enumerate(rows) if row.startswith(f"127.0.0.1:{port} "))
        rows[at] += "\n    -o content_filter=simple:dummy -o receive_override_options=no_address_mappings"
        me = pwd.getpwuid(os.geteuid()).pw_name
        rows += [
            f"simple unix - n n - 10 pipe flags=Rq user={me} null_sender=",
            f"    argv={sys.executable} {script} {back} ${{sender}} ${{recipient}}",
            f"127.0.0.1:{back} inet n - n - 10 smtpd -o content_filter=",
            "    -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks",
            "    -o smtpd_client_restrictions= -o smtpd_sender_restrictions= -o mynetworks=127.0.0.0/8",
        ]
        (made.directory / "master.cf").write_text("\n".join(rows) + "\n")
        (made.directory / "checks").write_text(f"/^Subject: well/ FILTER smtp:[127.0.0.1]:{advanced}\n")
        made.configure(
            "header_checks = regexp:$config_directory/checks",
            "always_bcc = bob@example.org",
            "virtual_alias_maps = inline:{ info@example.org=alice@example.org }",
        )
        made.start()
        try:
            yield made
        finally:
            made.stop()


def send(server: Server, subject: str, to: str) -> None:
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.sendmail("bob@example.org", [to], f"Subject: {subject}\r\n\r\nx\r\n")


def received(server: Server, name: str, subject: str) -> list[bytes]:
    """The messages with that subject, once there is one."""
    found: list[bytes] = []

    def look() -> bool:
        client = imap(server, name)
        client.select("INBOX", readonly=True)
        numbers = client.search(None, "SUBJECT", subject)[1][0].split()
        found[:] = [client.fetch(each.decode(), "(BODY.PEEK[])")[1][0][1] for each in numbers]  # type: ignore
        client.logout()
        return bool(found)

    wait_for(look, f"{subject}\n{server.log_text()[-3000:]}")
    return found


def test_mail_goes_through_the_filter_once(server: Server) -> None:
    """content_filter=, pipe(8), a second listener; aliases and copies count once, behind the filter."""
    send(server, "simply-one", "info@example.org")
    (message,) = received(server, "alice", "simply-one")
    assert message.count(b"X-Filtered: simply") == 1
    assert message.count(b"\nReceived:") == 2
    (copy,) = received(server, "bob", "simply-one")
    assert b"X-Filtered: simply" in copy
    server.logged(r"pipe.*to=<info@example.org>, relay=simple, .*status=sent \(delivered via simple service")
    server.logged(r"to=<alice@example.org>.*relay=local, .*status=sent")


def test_filter_by_header_checks_overrides(server: Server) -> None:
    """The FILTER action: to the advanced filter, over SMTP, and not to the simple one."""
    send(server, "well-one", "alice@example.org")
    (message,) = received(server, "alice", "well-one")
    assert b"X-Filtered: well" in message and b"X-Filtered: simply" not in message
    server.logged(r"filter: header Subject: well-one from .*: smtp:\[127.0.0.1\]:")


def test_what_the_filter_refuses_goes_back(server: Server) -> None:
    """The sender hears of it, with the filter's own words."""
    send(server, "eicar", "alice@example.org")
    server.logged(r"relay=simple, .*dsn=5.7.1, status=bounced \(a virus\)")
    (report,) = received(server, "bob", "Undelivered")
    assert b"a virus" in report


def test_explain_names_the_filter(server: Server) -> None:
    """The listener's own setting, with its line."""
    told = server.command("explain", "alice@example.org")
    assert "first through the filter simple:dummy  (content_filter, " in told


def test_sendmail_is_not_filtered_unless_it_is_told(server: Server) -> None:
    """The listener's -o is the listener's: pickup has main.cf's content_filter, which is empty."""
    drop = Path(sys.executable).with_name("sendmail")
    subprocess.run(
        [drop, "-C", str(server.directory), "-f", "bob@example.org", "alice@example.org"],
        input=b"Subject: dropped-in\n\nx\n",
        check=True,
        env={"MAIL_CONFIG": str(server.directory), "PATH": "/usr/bin:/bin"},
        timeout=DEADLINE,
    )
    (message,) = received(server, "alice", "dropped-in")
    assert b"X-Filtered" not in message
