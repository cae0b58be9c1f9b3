"""Input made to cost more than it should: RELIABILITY B16, B17, B33, T12; §10."""

from __future__ import annotations

import pytest

from tests.end_to_end.server import Server, wait_for
from tests.hostile.attacker import Attacker, logged_in


def goes_on(server: Server) -> None:
    """Everybody else is served."""
    for service in ("smtp", "pop3", "imap"):
        with Attacker(server, service, "127.0.0.1") as client:
            assert client.greeting


def traceback_free(server: Server) -> None:
    """Nothing of ours broke."""
    assert "Traceback" not in server.log_text()


@pytest.mark.parametrize(
    "line",
    [
        b"a LOGIN " + b"(" * 5000,
        b"a SEARCH " + b"(" * 5000,
        b"a " + b"x" * 100_000,
        b"(" * 9000,
        b"a AUTHENTICATE PLAIN " + b"A" * 20_000,
        b"\0" * 4000,
        b"a ID (" + b'"k" "v" ' * 4000 + b")",
    ],
    ids=lambda line: repr(line[:14]),
)
def test_imap_before_the_login_takes_little(server: Server, line: bytes) -> None:
    """An error or the end, at once; CVE-2026-27857 was this."""
    with Attacker(server, "imap") as client:
        client.send(line + b"\r\n")
        assert client.line().startswith((b"a BAD", b"a NO", b"* BYE", b"* BAD", b""))
    goes_on(server)
    traceback_free(server)


@pytest.mark.parametrize(
    "command",
    [
        b"SEARCH " + b"(" * 1000 + b"ALL" + b")" * 1000,
        b"SEARCH " + b"NOT " * 2000 + b"ALL",
        b"SEARCH " + b"OR ALL " * 2000 + b"ALL",
        b"FETCH 1:4294967295 (FLAGS)",
        b"UID FETCH " + b"1:4294967295," * 3000 + b"1 (UID)",
        b"FETCH " + b",".join(b"%d" % n for n in range(1, 12_000)) + b" (UID)",
        b'LIST "" "' + b"*a" * 100 + b'b"',
        b'LIST "" "' + b"%" * 1000 + b'"',
        b"FETCH 1 (" + b"BODY[" * 500 + b"]" * 500 + b")",
        b"FETCH 1 BODY[" + b"1." * 1000 + b"1]",
        b"STORE 1 FLAGS (" + b"k " * 5000 + b"k)",
    ],
    ids=lambda command: repr(command[:16]),
)
def test_imap_after_the_login_answers_in_its_turn(server: Server, command: bytes) -> None:
    """A tagged answer for each, and others are served meanwhile."""
    with logged_in(server) as client:
        assert client.tagged(b"SELECT INBOX").startswith(b"t OK")
        assert client.tagged(command).startswith((b"t OK", b"t NO", b"t BAD"))
        assert client.tagged(b"NOOP").startswith(b"t OK")
    goes_on(server)
    traceback_free(server)


@pytest.mark.parametrize("size", [b"999999999999", b"4294967296", b"5000", b"-5", b"999999999999+", b"5000+"])
def test_a_refused_literal_runs_no_command(server: Server, size: bytes) -> None:
    """B33: what would have been its octets is never obeyed, before the login."""
    with Attacker(server, "imap") as client:
        client.send(b"a LOGIN {" + size + b"}\r\nb NOOP\r\nc CAPABILITY\r\n")
        seen = b""
        while line := client.line():
            seen += line + b"\n"
            if line.startswith((b"* BYE", b"c ")):
                break
    if size.endswith(b"+"):
        assert b"b OK" not in seen and b"c OK" not in seen
    assert not seen.startswith(b"+")


def test_a_literal_too_large_is_refused_after_the_login_too(server: Server) -> None:
    """APPEND of 999,999,999,999 octets takes no disk and says so."""
    with logged_in(server) as client:
        assert client.tagged(b"APPEND INBOX {999999999999}").startswith((b"t NO", b"t BAD"))
        assert client.tagged(b"NOOP").startswith(b"t OK")


def nested(depth: int) -> bytes:
    """A message of so many multiparts, one in the other."""
    head = [b"MIME-Version: 1.0\r\n"]
    for n in range(depth):
        head.append(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n))
    return b"".join(head) + b"Content-Type: text/plain\r\n\r\nhi\r\n"


BOMBS = {
    "nested": nested(3000),
    "wide": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 60_000 + b"--b--\r\n",
    "parameters": b"Content-Type: text/plain;"
    + b"".join(b"\r\n a*%d=x;" % n for n in range(9_000))
    + b"\r\n",
    "addresses": b"To: " + b"a@b.test,\r\n " * 8_000 + b"a@b.test\r\n",
    "comments": b"From: " + b"(" * 50_000 + b"\r\n",
    "oneheader": b"X-Long: " + b"y" * 900_000 + b"\r\n",
    "headers": b"X: y\r\n" * 60_000,
    "encoded": b"Subject: " + b"=?utf-8?q?a?=\r\n " * 5_000 + b"x\r\n",
    "references": b"References: " + b"<a@b.test>\r\n " * 8_000 + b"\r\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_message_like_that_is_mail_all_the_same(server: Server, bomb: str) -> None:
    """It is delivered or refused, and what lies in the mailbox is listed; others are served meanwhile."""
    with Attacker(server, "smtp") as client:
        client.ask(b"EHLO attacker.test")
        client.ask(b"MAIL FROM:<x@example.net>")
        client.ask(b"RCPT TO:<bob@example.org>")
        assert client.ask(b"DATA").startswith(b"354")
        client.send(f"X-Bomb: {bomb}\r\n".encode() + BOMBS[bomb] + b"\r\nbody\r\n.\r\n")
        answer = client.reply()
        assert answer[:3] in (b"250", b"552", b"554", b"550"), answer
    if answer.startswith(b"250"):
        inbox = server.inbox("bob")
        wait_for(lambda: inbox.exists() and f"X-Bomb: {bomb}\n".encode() in inbox.read_bytes(), bomb)
        with logged_in(server, "bob") as client:
            assert client.tagged(b"SELECT INBOX").startswith(b"t OK")
            command = b"FETCH * (UID ENVELOPE BODYSTRUCTURE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (SUBJECT)])"
            assert client.tagged(command).startswith(b"t OK")
            assert client.tagged(b'SEARCH SUBJECT "x" FROM "y" TO "z"').startswith(b"t OK")
            assert client.tagged(b"STORE * +FLAGS (\\Deleted)").startswith(b"t OK")
            assert client.tagged(b"EXPUNGE").startswith(b"t OK")
    goes_on(server)
    traceback_free(server)


@pytest.mark.parametrize("service", ["smtp", "pop3"])
@pytest.mark.parametrize("octets", [b"x" * 5_000_000, b"\0" * 1_000_000, bytes(range(256)) * 2000])
def test_noise_ends_a_connection(server: Server, service: str, octets: bytes) -> None:
    """A command without end, zeroes and everything else: refused or cut off, and it costs nobody else."""
    with Attacker(server, service) as client:
        try:
            client.send(octets)
            client.send(b"\r\nQUIT\r\n")
        except ConnectionError:
            pass
        goes_on(server)
    traceback_free(server)
