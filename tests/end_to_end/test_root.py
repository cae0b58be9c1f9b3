"""System accounts, served by root: mail in over SMTP, out over POP3 and IMAP, from mbox and maildir."""

from __future__ import annotations

import imaplib
import os
import poplib
from collections.abc import Iterator

import pytest

from tests.end_to_end.root_mail import arrived, found, send
from tests.end_to_end.root_server import PASSWORD, USERS, RootServer
from tests.end_to_end.test_exchange import untrusting

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module", params=["mbox", "maildir"])
def server(request: pytest.FixtureRequest) -> Iterator[RootServer]:
    started = RootServer(request.param)
    started.start()
    yield started
    started.remove()


def by_imap(server: RootServer, way: str, name: str) -> list[bytes]:
    """The subjects in INBOX over plain IMAP, STARTTLS or IMAPS."""
    port = server.ports["imaps" if way == "implicit" else "imap"]
    client: imaplib.IMAP4
    if way == "implicit":
        client = imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=untrusting())
    else:
        client = imaplib.IMAP4("127.0.0.1", port)
    if way == "starttls":
        client.starttls(untrusting())
    client.login(name, PASSWORD)
    client.select("INBOX", readonly=True)
    rows = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
    client.logout()
    return [row[1].strip() for row in rows if isinstance(row, tuple)]


def by_pop3(server: RootServer, way: str, name: str) -> list[bytes]:
    """The same over POP3."""
    client: poplib.POP3
    if way == "implicit":
        client = poplib.POP3_SSL("127.0.0.1", server.ports["pop3s"], context=untrusting())
    else:
        client = poplib.POP3("127.0.0.1", server.ports["pop3"])
    if way == "starttls":
        client.stls(untrusting())
    client.user(name)
    client.pass_(PASSWORD)
    lines = [client.retr(number + 1)[1] for number in range(client.stat()[0])]
    client.quit()
    return [line for message in lines for line in message if line.startswith(b"Subject:")]


@pytest.mark.parametrize("way", ["plain", "starttls", "implicit"])
@pytest.mark.parametrize("name", USERS)
def test_mail_for_system_users_is_read_over_imap_and_pop3(server: RootServer, name: str, way: str) -> None:
    """DESIGN 7; ursula's password is a sha512 hash, viktor's a yescrypt one (DESIGN 10)."""
    identifier = f"read-{name}-{way}"
    send(server, identifier, f"{name}@example.org")
    arrived(server, name, identifier)
    assert b"Subject: " + identifier.encode() in by_imap(server, way, name)
    assert b"Subject: " + identifier.encode() in by_pop3(server, way, name)


def test_the_mailbox_is_its_owners_alone(server: RootServer) -> None:
    """ECOSYSTEM §1: made on first delivery, mode 600 or a 700 directory, whose owner is the user."""
    for name, uid in USERS.items():
        send(server, f"own-{name}", f"{name}@example.org")
        arrived(server, name, f"own-{name}")
        mark = (server.spool / name).stat()
        assert mark.st_uid == uid
        assert mark.st_mode & 0o077 in (0, 0o060)  # the spool directory's setgid bit may give group mail


def test_mail_and_folders_of_others_are_adopted(server: RootServer) -> None:
    """Boxes that other programs left: mode 0600 in the spool, folders in ~/mail or in the maildir."""
    content = "From: a@example.net\nSubject: left-behind\nMessage-ID: <left@example.net>\n\nold\n"
    mbox = f"From a@example.net  Mon Nov 23 10:00:00 2026\n{content}\n"
    uid = USERS["viktor"]
    inbox = server.spool / "viktor"
    if (inbox / "cur").is_dir():
        for part in ("new", "cur", "tmp"):
            (inbox / ".old" / part).mkdir(parents=True, mode=0o700)
        (inbox / "new" / "1.left").write_text(content)
        (inbox / ".old" / "new" / "2.left").write_text(content)
        owned = [inbox / "new" / "1.left", inbox / ".old", *(inbox / ".old").rglob("*")]
    else:
        with inbox.open("a") as file:
            file.write(mbox)
        inbox.chmod(0o600)
        folder = server.home("viktor") / "mail" / "old"
        folder.parent.mkdir(exist_ok=True, mode=0o700)
        folder.write_text(mbox)
        folder.chmod(0o600)
        owned = [folder.parent, folder]
    for path in owned:
        os.chown(path, uid, uid)
    assert found(server, "viktor", "left-behind") == 1
    assert found(server, "viktor", "left-behind", "old") == 1
