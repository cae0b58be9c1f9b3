"""A message that is uploaded once: kept by IMAP, and sent from there by BURL. RFC 4468, RFC 4467."""

from __future__ import annotations

import re
import smtplib
import ssl
from pathlib import Path

from tests.end_to_end.plain_client import PlainClient
from tests.end_to_end.server import DEADLINE, Server, running, wait_for

DRAFT = "From: alice@localhost\r\nTo: bob@localhost\r\nSubject: once\r\n\r\nonly once\r\n"


def submission(server: Server, name: str) -> smtplib.SMTP:
    """A connection to the submission service, logged in."""
    client = smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=DEADLINE)
    client.starttls(context=ssl._create_unverified_context())
    client.login(name, server.passwords[name])
    client.ehlo()
    return client


def sent(client: smtplib.SMTP, url: str) -> int:
    """The reply code to a message for bob that lies where the URL says."""
    assert client.docmd("MAIL FROM:<alice@localhost>")[0] == 250
    assert client.docmd("RCPT TO:<bob@localhost>")[0] == 250
    return client.docmd(f"BURL {url} LAST")[0]


def test_uploaded_once(tmp_path: Path) -> None:
    """Alice keeps her message in Sent and has it sent from there; bob, who saw the URL, cannot use it."""
    lines = ("imap_urlauth_host = mail.example", "smtpd_burl_enable = yes")
    with running(tmp_path / "home", "maildir", *lines) as server:
        alice = PlainClient(server.ports["imap"], "alice", server.passwords["alice"])
        bob = PlainClient(server.ports["imap"], "bob", server.passwords["bob"])
        assert b"URLAUTH URLAUTH=BINARY" in alice.ask("a CAPABILITY")
        uid = re.search(rb"APPENDUID \d+ (\d+)", alice.ask(f"b APPEND Sent {{{len(DRAFT)}+}}\r\n{DRAFT}"))
        assert uid is not None
        rump = f"imap://alice@mail.example/Sent/;UID={uid[1].decode()};URLAUTH=submit+alice"
        full = re.search(rb'\* GENURLAUTH "([^"]+)"', alice.ask(f'c GENURLAUTH "{rump}" INTERNAL'))
        assert full is not None
        url = full[1].decode("ascii")
        assert b" NIL\r\n" in bob.ask(f'd URLFETCH "{url}"')

        client = submission(server, "alice")
        assert client.esmtp_features["burl"] == "imap imap://mail.example"
        assert sent(client, url) == 250
        wait_for(lambda: b"* 1 EXISTS" in bob.ask("e SELECT INBOX"), "the message")
        said = bob.ask("f FETCH 1 BODY[]")
        assert b"\r\nSubject: once\r\n" in said and b"\r\n\r\nonly once\r\n" in said

        thief = submission(server, "bob")
        assert sent(thief, url) == 554
        assert b"g OK [URLMECH INTERNAL]" in alice.ask("g RESETKEY Sent")
        assert sent(client, url) == 554
        client.quit()
        thief.quit()
