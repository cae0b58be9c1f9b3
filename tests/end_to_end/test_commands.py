"""The administrator's commands against a running server."""

from __future__ import annotations

import imaplib
import json
from collections.abc import Iterator

import pytest

from tests.end_to_end.server import Server, running
from tests.end_to_end.test_exchange import received, send


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    nowhere = "relayhost = [127.0.0.1]:1"  # nobody listens there
    with running(tmp_path_factory.mktemp("commands") / "home", "mbox", nowhere) as server:
        yield server


def test_explain_shows_the_way_with_file_and_line(server: Server) -> None:
    """`mailserver explain` prints each step and sends nothing."""
    text = server.command("explain", "staff@example.org")
    assert "aliases:" in text and "alice" in text and "bob" in text
    assert str(server.inbox("alice")) in text
    assert json.loads(server.command("explain", "--json", "alice+x@example.org"))


def test_a_new_user_can_log_in_and_out_again(server: Server) -> None:
    """add, passwd, list and delete take effect at once, without a restart."""
    server.command("user", "add", "carol", "--password-stdin", text="first secret\n")
    assert "carol" in server.command("user", "list")

    def may_login(password: str) -> bool:
        client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
        try:
            client.login("carol", password)
        except imaplib.IMAP4.error:
            return False
        finally:
            client.logout()
        return True

    assert may_login("first secret")
    server.command("user", "passwd", "carol", "--password-stdin", text="second secret\n")
    assert may_login("second secret")
    assert not may_login("first secret")
    send(server, b"Message-ID: <hello@carol>\nSubject: hello\n\nx\n", "carol@example.org")
    received_by_carol = Server.inbox(server, "carol")
    server.logged(r"to=<carol@example.org>.*status=sent")
    assert received_by_carol.exists()
    server.command("user", "delete", "carol")
    assert not may_login("second secret")


def test_an_alias_reaches_everyone_on_it(server: Server) -> None:
    """aliases(5): staff is alice and bob; each gets one copy."""
    send(server, b"Message-ID: <all@staff>\nSubject: all\n\nx\n", "staff@example.org")
    for name in ("alice", "bob"):
        assert b"X-Original-To: staff@example.org" in received(server, name, "<all@staff>")


def test_a_forward_file_is_followed(server: Server) -> None:
    """.forward of mode 644: the copy goes on, and an own name keeps one."""
    forward = server.directory / "home" / "bob" / ".forward"
    forward.write_text("\\bob\nalice\n")
    forward.chmod(0o644)
    try:
        send(server, b"Message-ID: <both@forward>\nSubject: both\n\nx\n", "bob@example.org")
        for name in ("alice", "bob"):
            assert received(server, name, "<both@forward>")
        forward.chmod(0o600)
        send(server, b"Message-ID: <only@forward>\nSubject: only\n\nx\n", "bob@example.org")
        received(server, "bob", "<only@forward>")
        server.logged(r"warning: file .*/\.forward has mode 0600, must be 0644")
    finally:
        forward.unlink()


def test_what_cannot_be_delivered_bounces(server: Server) -> None:
    """RFC 3464: a failing command in .forward gives the sender a report from <>."""
    forward = server.directory / "home" / "bob" / ".forward"
    forward.write_text('"|exit 67"\n')
    forward.chmod(0o644)
    try:
        send(
            server,
            b"Message-ID: <dead@forward>\nSubject: dead\n\nx\n",
            "bob@example.org",
            sender="alice@example.org",
        )
        server.logged(r"to=<bob@example.org>.*dsn=5\.1\.1, status=bounced")
        server.logged(r"sender non-delivery notification: [0-9A-Z]+")
        client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
        client.login("alice", server.passwords["alice"])
        client.select("INBOX")
        while not (found := client.search(None, "FROM", "MAILER-DAEMON")[1][0].split()):
            client.noop()
        row = client.fetch(found[-1].decode(), "(BODY.PEEK[])")[1][0]
        assert isinstance(row, tuple)
        report = row[1]
        assert b"Status: 5.1.1" in report and b"Content-Type: message/delivery-status" in report
        assert report.startswith(b"Return-Path: <>")
        client.logout()
    finally:
        forward.unlink()


def test_what_must_be_relayed_is_kept(server: Server) -> None:
    """A remote address from a trusted client is queued and stays deferred, with its reason in the log."""
    send(server, b"Subject: away\n\nx\n", "dave@example.net")
    server.logged(
        r"to=<dave@example.net>, relay=none, .*dsn=4\.4\.1, "
        r"status=deferred \(connect to 127\.0\.0\.1\[127\.0\.0\.1\]:1: Connection refused\)"
    )
