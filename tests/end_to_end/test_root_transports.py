"""Milters, policy servers and LMTP on a host with system accounts: the roles that ask reach them."""

from __future__ import annotations

import socketserver
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.root_mail import logged, send
from tests.end_to_end.root_server import RootServer
from tests.end_to_end.server import wait_for
from tests.end_to_end.test_opendkim import opendkim

pytestmark = pytest.mark.needs("root", "opendkim", "opendkim-genkey")


class Lmtp(socketserver.StreamRequestHandler):
    """Takes every message."""

    server: Any

    def handle(self) -> None:
        say = self.wfile.write
        say(b"220 lmtp\r\n")
        recipients = 0
        for line in self.rfile:
            verb = line[:4].upper()
            recipients = 0 if verb == b"MAIL" else recipients + (verb == b"RCPT")
            if verb != b"DATA":
                say(b"250 2.0.0 Ok\r\n")
                continue
            say(b"354 go\r\n")
            content = b"".join(iter(self.rfile.readline, b".\r\n"))
            self.server.taken.append(content)
            say(b"250 2.0.0 Saved\r\n" * recipients)


class Policy(socketserver.StreamRequestHandler):
    """Marks every message."""

    def handle(self) -> None:
        for line in self.rfile:
            if line == b"\n":
                self.wfile.write(b"action=PREPEND X-Policy: asked\n\n")


def test_all_of_them_together(tmp_path: Path) -> None:
    """The front asks the policy server and the milters, the queue hands over by LMTP, each as mail_owner."""
    server = RootServer()
    subprocess.run(
        ["opendkim-genkey", "-b", "1024", "-s", "test", "-d", "example.net", "-D", str(tmp_path)], check=True
    )
    signs = f"Mode s\nDomain example.net\nSelector test\nKeyFile {tmp_path}/test.private\n"
    sockets = server.directory / "sockets"
    sockets.mkdir()
    sockets.chmod(0o755)
    with (
        socketserver.ThreadingUnixStreamServer(str(sockets / "lmtp"), Lmtp) as lmtp,
        socketserver.ThreadingUnixStreamServer(str(sockets / "policy"), Policy) as policy,
        opendkim(tmp_path, "signer", signs) as signer,
    ):
        lmtp.taken = []  # type: ignore[attr-defined]
        for each, name in ((lmtp, "lmtp"), (policy, "policy")):
            each.daemon_threads = True
            (sockets / name).chmod(0o666)
            threading.Thread(target=each.serve_forever, daemon=True).start()
        server.configure(
            f"smtpd_milters = inet:127.0.0.1:{signer}",
            f"smtpd_recipient_restrictions = check_policy_service unix:{sockets}/policy",
            f"mailbox_transport = lmtp:unix:{sockets}/lmtp",
        )
        server.start()
        try:
            send(server, "through-all", "ursula@example.org")
            logged(server, f"[{sockets}/lmtp], ")
            wait_for(lambda: lmtp.taken, server.log_text()[-2000:])  # type: ignore[attr-defined]
            (content,) = lmtp.taken  # type: ignore[attr-defined]
            assert b"DKIM-Signature: v=1;" in content and b"X-Policy: asked\r\n" in content
        finally:
            server.remove()
            lmtp.shutdown()
            policy.shutdown()
