"""Our SMTP beside a running Dovecot: by LMTP into its hands, or into a maildir that it serves meanwhile."""

from __future__ import annotations

import imaplib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.server import DEADLINE, Server, wait_for
from tests.end_to_end.test_exchange import send
from tests.store.dovecot import PASSWORD, USER, Dovecot, give, owner

pytestmark = pytest.mark.needs("dovecot", "/usr/lib/dovecot/lmtp")


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that Dovecot's users may pass."""
    with tempfile.TemporaryDirectory(prefix="beside-dovecot-") as name:
        os.chmod(name, 0o755)
        (Path(name) / "home").mkdir()
        yield Path(name)


@contextmanager
def beside(server: Server, dovecot: Dovecot) -> Iterator[None]:
    """Both run."""
    with dovecot.running():
        server.start()
        try:
            yield
        finally:
            server.stop()


def subjects(dovecot: Dovecot) -> list[str]:
    """What alice's INBOX holds, as Dovecot shows it."""
    client = imaplib.IMAP4("127.0.0.1", dovecot.imap_port, timeout=DEADLINE)
    client.login(USER, PASSWORD)
    count = int((client.select("INBOX", readonly=True)[1][0] or b"0").decode())
    rows = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1] if count else []
    client.logout()
    return [row[1].decode().strip().removeprefix("Subject: ") for row in rows if isinstance(row, tuple)]


def test_into_dovecots_hands_by_lmtp(root: Path) -> None:
    """mailbox_transport = lmtp:unix:...: Dovecot files the mail, and is logged as the relay."""
    server = Server(root / "ours", "maildir")
    dovecot = Dovecot(root, "maildir:~/Maildir", lmtp=True)
    server.configure(f"mailbox_transport = lmtp:unix:{dovecot.lmtp_socket}")
    with beside(server, dovecot):
        for number in range(3):
            subject = f"by LMTP {number}"
            send(server, f"Subject: {subject}\n\nx\n".encode(), "alice@example.org")
            wait_for(lambda: subject in subjects(dovecot), f"{subject}\n{server.log_text()[-2000:]}")  # noqa: B023
        server.logged(rf"lmtp.*to=<alice@.*relay=[^ ]+\[{dovecot.lmtp_socket}\], .*status=sent \(250 2.0.0")


def test_into_a_maildir_that_dovecot_serves(root: Path) -> None:
    """Without LMTP: we deliver, Dovecot shows the message at once, each in its own process."""
    server = Server(root / "ours", "maildir")
    inbox = server.inbox(USER)
    dovecot = Dovecot(root, f"maildir:{inbox}")
    (root / "ours").chmod(0o755)
    with beside(server, dovecot):
        for number in range(3):
            subject = f"to the maildir {number}"
            send(server, f"Subject: {subject}\n\nx\n".encode(), "alice@example.org")
            server.logged(rf"(?s)(?:status=sent.*){{{number + 1}}}")
            for directory in (inbox.parent.parent, inbox.parent):
                directory.chmod(0o755)
            give(inbox, owner().pw_uid, owner().pw_gid)
            assert subject in subjects(dovecot)
