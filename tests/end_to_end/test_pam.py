"""System accounts whose passwords PAM checks, behind the running server."""

from __future__ import annotations

import imaplib
import itertools
import json
import smtplib
import socket
from collections.abc import Iterator

import pytest

from tests.end_to_end.root_server import PASSWORD, RootServer
from tests.end_to_end.test_exchange import untrusting
from tests.end_to_end.test_scram import log_in_plainly

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module")
def server() -> Iterator[RootServer]:
    """Everybody but viktor may log in, and only those whom pam_unix admits."""
    made = RootServer()
    (made.directory / "denied").write_text("viktor\n")
    denied = f"account required pam_listfile.so item=user sense=deny file={made.directory}/denied onerr=fail"
    made.pam_service("mail", "auth required pam_unix.so", denied, "account required pam_unix.so")
    made.configure("account_sources = pam", "pam_service = mail")
    made.start()
    yield made
    made.remove()


class Client(imaplib.IMAP4_SSL):
    """A client from a loopback address of its own: penalties are its own too."""

    _addresses = itertools.count(2)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        address = (f"127.0.0.{next(self._addresses)}", 0)
        connected = socket.create_connection((self.host, self.port), 60, address)
        return untrusting().wrap_socket(connected)


def is_refused(server: RootServer, name: str, password: str) -> bool:
    """Whether IMAP says that the login is wrong."""
    client = Client("127.0.0.1", server.ports["imaps"])
    with pytest.raises(imaplib.IMAP4.error) as caught:
        client.login(name, password)
    client.logout()
    return "AUTHENTICATIONFAILED" in str(caught.value)


def test_pam_decides(server: RootServer) -> None:
    """A right password opens a mailbox; a wrong one, a listed user, an unknown one and root are refused."""
    log_in_plainly(server.ports["imaps"], "ursula", PASSWORD)
    port = server.ports["submissions"]
    with smtplib.SMTP_SSL("127.0.0.1", port, context=untrusting(), timeout=60) as client:
        assert client.login("ursula", PASSWORD)[0] == 235
    assert is_refused(server, "ursula", "wrong")
    for name in ("viktor", "nobody-here", "root"):
        assert is_refused(server, name, PASSWORD), name


def test_app_passwords_ask_for_the_account(server: RootServer) -> None:
    """PAM's account phase closes a device as it closes the password."""
    made = {
        name: json.loads(server.command("app-password", "add", name, "phone", "--json"))["password"]
        for name in ("ursula", "viktor")
    }
    log_in_plainly(server.ports["imaps"], "ursula", made["ursula"])
    assert is_refused(server, "viktor", made["viktor"])
