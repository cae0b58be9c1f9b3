"""reject_unverified_recipient at a backup exchanger: what the next host would refuse is not taken."""

from __future__ import annotations

import smtplib
import socketserver
import threading
from pathlib import Path
from typing import Any

from tests.end_to_end.server import Server


class Exchanger(socketserver.StreamRequestHandler):
    """Knows alice, and remembers what it heard."""

    server: Any

    def handle(self) -> None:
        self.wfile.write(b"220 first.test\r\n")
        for line in self.rfile:
            self.server.heard.append(line.strip())
            unknown = line.upper().startswith(b"RCPT") and b"alice" not in line
            self.wfile.write(b"550 5.1.1 who?\r\n" if unknown else b"250 2.0.0 Ok\r\n")
            if line.upper().startswith(b"QUIT"):
                return


def rcpt(server: Server, address: str) -> tuple[int, bytes]:
    """What a stranger hears at RCPT."""
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.ehlo()
        client.mail("carol@example.net")
        return client.rcpt(address)


def test_a_backup_exchanger_asks_the_first_one(tmp_path: Path) -> None:
    """The probe ends at RCPT: no message comes into being anywhere; what is known is not asked again."""
    backup = Server(tmp_path / "backup")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Exchanger) as first:
        first.daemon_threads = True
        first.heard = []  # type: ignore[attr-defined]
        threading.Thread(target=first.serve_forever, daemon=True).start()
        backup.configure(
            "mydestination = backup.test",
            "relay_domains = example.org",
            f"transport_maps = inline:{{ example.org=smtp:[127.0.0.1]:{first.server_address[1]} }}",
            "smtpd_recipient_restrictions = reject_unverified_recipient",
            "unverified_recipient_reject_code = 550",
            "address_verify_sender = <>",
            "address_verify_poll_delay = 20s",
        )
        backup.start()
        try:
            assert rcpt(backup, "alice@example.org")[0] == 250
            code, text = rcpt(backup, "eve@example.org")
            assert code == 550 and b"unverified address: host 127.0.0.1[127.0.0.1] said: 550 5.1.1" in text
            assert rcpt(backup, "Alice@example.org")[0] == 250
            backup.logged(r"verify.*to=<alice@example.org>, relay=127.0.0.1.*status=deliverable")
        finally:
            backup.stop()
            first.shutdown()
    heard = [line for line in first.heard if not line.startswith((b"EHLO", b"QUIT"))]  # type: ignore[attr-defined]
    mail, reset = b"MAIL FROM:<>", b"RSET"
    assert heard == [
        mail, b"RCPT TO:<alice@example.org>", reset, mail, b"RCPT TO:<eve@example.org>", reset,
    ]  # fmt: skip
