"""Mail in over SMTP, out over POP3 and IMAP, the same octets in both formats.

RFC 5321 §3.3, RFC 1939 §5, RFC 3501 §6.4.5.
"""

from __future__ import annotations

import imaplib
import poplib
import smtplib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.server import Server, running, wait_for

poplib._MAXLINE = 1 << 20  # type: ignore[attr-defined]  # its own limit of 2048 octets is not the protocol's
MESSAGES = sorted((Path(__file__).parent.parent / "data" / "messages").glob("*.eml"))


@pytest.fixture(scope="module", params=["mbox", "maildir"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp(request.param) / "home"
    with running(directory, request.param) as server:
        yield server


def untrusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def crlf(content: bytes) -> bytes:
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def imap(server: Server, name: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4("127.0.0.1", server.ports["imap"])
    client.login(name, server.passwords[name])
    return client


def pop3(server: Server, name: str) -> poplib.POP3:
    client = poplib.POP3("127.0.0.1", server.ports["pop3"])
    client.user(name)
    client.pass_(server.passwords[name])
    return client


def send(server: Server, content: bytes, *recipients: str, sender: str = "carol@example.net") -> None:
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        assert client.sendmail(sender, recipients, crlf(content), ["BODY=8BITMIME"]) == {}


def received(server: Server, name: str, message_id: str) -> bytes:
    """The message with that Message-ID, over IMAP, once it is there."""
    client = imap(server, name)
    client.select("INBOX")
    found: list[bytes] = []

    def there() -> bool:
        client.noop()
        found[:] = client.search(None, "HEADER", "Message-ID", message_id)[1][0].split()
        return bool(found)

    wait_for(there, f"{message_id} in {name}'s INBOX\n{server.log_text()[-2000:]}")
    body = client.fetch(found[-1].decode(), "(BODY.PEEK[])")[1][0]
    client.logout()
    assert isinstance(body, tuple)
    return bytes(body[1])


def after_trace(content: bytes) -> bytes:
    """The message without the trace fields that delivery put before it."""
    for mark in (b"Return-Path:", b"X-Original-To:", b"Delivered-To:", b"Received: from "):
        assert content.startswith(mark), content[:300]
        end = content.index(b"\r\n") + 2
        while content[end : end + 1] in (b" ", b"\t"):
            end = content.index(b"\r\n", end) + 2
        content = content[end:]
    return content


def without_fields(content: bytes, *names: bytes) -> bytes:
    """The message without header fields that a format keeps for itself."""
    head, blank, body = content.partition(b"\r\n\r\n")
    return b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(names)) + blank + body


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_content_comes_back_byte_for_byte(server: Server, path: Path) -> None:
    """What was sent is what both protocols give, but for trace fields and mbox's `>From ` quoting."""
    content = path.read_bytes()
    message_id = next(line for line in content.split(b"\n") if line.startswith(b"Message-ID:"))[12:].decode()
    send(server, content, "bob@example.org")
    expected = crlf(content)
    if b"\r\n\r\n" not in expected:
        expected += b"\r\n"  # a header without a body ends with its blank line
    expected = without_fields(expected, b"Content-Length:")  # message_drop_headers
    if server.mail_format == "mbox":
        expected = without_fields(expected.replace(b"\r\nFrom ", b"\r\n>From "), b"Status:", b"X-Status:")
    by_imap = received(server, "bob", message_id)
    assert after_trace(by_imap) == expected
    client = pop3(server, "bob")
    by_pop3 = [b"\r\n".join(client.retr(n + 1)[1]) + b"\r\n" for n in range(client.stat()[0])]
    client.quit()
    assert by_imap in by_pop3


def test_sizes_agree_everywhere(server: Server) -> None:
    """STAT, LIST, RFC822.SIZE and the octets sent are the same figures. RFC 3501 §2.3.4."""
    client = imap(server, "alice")
    client.select("INBOX", readonly=True)
    rows = client.fetch("1:*", "(RFC822.SIZE BODY.PEEK[])")[1]
    sizes = []
    for row in rows:
        if isinstance(row, tuple):
            size = int(row[0].split(b"RFC822.SIZE ")[1].split()[0])
            assert size == len(row[1])
            sizes.append(size)
    client.logout()
    other = pop3(server, "alice")
    assert [int(line.split()[1]) for line in other.list()[1]] == sizes
    assert other.stat() == (len(sizes), sum(sizes))
    other.quit()


def test_tls_ports_and_starttls(server: Server) -> None:
    """Every protocol can be used under TLS, from the start and by command. RFC 3207 §4, RFC 2595 §4."""
    password = server.passwords["alice"]
    for make in (
        lambda: imaplib.IMAP4_SSL("127.0.0.1", server.ports["imaps"], ssl_context=untrusting()),
        lambda: imaplib.IMAP4("127.0.0.1", server.ports["imap"]),
    ):
        client = make()
        if not isinstance(client, imaplib.IMAP4_SSL):
            client.starttls(untrusting())
        client.login("alice", password)
        assert client.select("INBOX")[0] == "OK"
        client.logout()
    over = poplib.POP3_SSL("127.0.0.1", server.ports["pop3s"], context=untrusting())
    over.user("alice")
    over.pass_(password)
    over.quit()
    upgraded = poplib.POP3("127.0.0.1", server.ports["pop3"])
    upgraded.stls(untrusting())
    upgraded.user("alice")
    upgraded.pass_(password)
    upgraded.quit()
    with smtplib.SMTP("127.0.0.1", server.ports["submission"]) as client:
        client.starttls(context=untrusting())
        client.login("alice", password)
        client.sendmail("alice@example.org", ["bob@example.org"], b"Subject: tls\r\n\r\nx\r\n")
    with smtplib.SMTP_SSL("127.0.0.1", server.ports["submissions"], context=untrusting()) as client:
        client.login("alice", password)
        client.sendmail("alice@example.org", ["bob@example.org"], b"Subject: tls\r\n\r\nx\r\n")


def test_an_unknown_user_is_refused_at_rcpt(server: Server) -> None:
    """550 5.1.1, before any content is taken. RFC 5321 §4.1.1.3, RFC 3463 §3.2."""
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client.ehlo()
        client.mail("carol@example.net")
        code, text = client.rcpt("nobody@example.org")
        assert code == 550
        assert text.startswith(b"5.1.1 <nobody@example.org>: Recipient address rejected: User unknown")


def test_idle_hears_of_new_mail(server: Server) -> None:
    """A connection in IDLE is told EXISTS without asking. RFC 2177."""
    client = imap(server, "alice")
    before = int(client.select("INBOX")[1][0])
    client.send(b"i IDLE\r\n")
    assert client.readline().startswith(b"+ ")
    send(server, b"Subject: wake\n\nup\n", "alice@example.org")
    client.sock.settimeout(30)
    assert client.readline() == b"* %d EXISTS\r\n" % (before + 1)
    client.send(b"DONE\r\n")
    while not client.readline().startswith(b"i OK"):
        pass
    client.logout()


def test_many_senders_and_readers_at_once(server: Server) -> None:
    """20 senders and 20 readers: every acknowledged message arrives exactly once. RFC 5321 §6.1."""
    failures: list[BaseException] = []

    def sender(number: int) -> None:
        try:
            with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
                for count in range(5):
                    text = f"Message-ID: <crowd.{number}.{count}@example.net>\r\nSubject: crowd\r\n\r\nx\r\n"
                    client.sendmail("carol@example.net", ["alice@example.org"], text)
        except BaseException as error:
            failures.append(error)

    def reader() -> None:
        try:
            client = imap(server, "alice")
            client.select("INBOX")
            for _ in range(5):
                client.noop()
                client.fetch("1:*", "(FLAGS RFC822.SIZE ENVELOPE)")
            client.logout()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=sender, args=(n,)) for n in range(20)]
    threads += [threading.Thread(target=reader) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    client = imap(server, "alice")
    client.select("INBOX")

    def count() -> int:
        client.noop()
        return len(client.search(None, "SUBJECT", "crowd")[1][0].split())

    wait_for(lambda: count() >= 100, "100 messages of the crowd")
    assert count() == 100
    client.logout()
