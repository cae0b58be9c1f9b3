"""Half at a time: retrieval behind Debian's Postfix, and SMTP beside Debian's Dovecot."""

from __future__ import annotations

import imaplib
import smtplib
import stat
from collections.abc import Iterator

import pytest

from tests.end_to_end.other_half import Dovecot, Postfix
from tests.end_to_end.root_mail import imap, logged
from tests.end_to_end.root_server import PASSWORD, RootServer
from tests.end_to_end.server import wait_for

pytestmark = pytest.mark.needs("root", "unshare", "postfix", "dovecot")

MESSAGE = "From: viktor@example.org\r\nTo: ursula@example.org\r\nSubject: {subject}\r\n\r\nFrom here on.\r\n"


def rows(server: RootServer, *names: str) -> None:
    """Only these services of master.cf are left."""
    path = server.directory / "config" / "master.cf"
    ports = {f"127.0.0.1:{server.ports[name]} " for name in names}
    kept, keeps = [], False
    for line in path.read_text().splitlines(keepends=True):
        keeps = line.startswith(tuple(ports)) if not line.startswith(" ") else keeps
        kept += [line] if keeps else []
    path.write_text("".join(kept))


@pytest.fixture(scope="module")
def retrieval() -> Iterator[tuple[RootServer, Postfix]]:
    """A Postfix that has its logins checked by us, and delivers into the spool that we serve."""
    server = RootServer("mbox")
    postfix = Postfix(server)
    try:
        postfix.start()
        rows(server, "pop3", "imap")
        server.configure(f"auth_listener = {postfix.auth_socket}")
        server.start()
        yield server, postfix
    finally:
        postfix.stop()
        server.remove()


def submission(port: int) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, timeout=60)
    client.ehlo()
    return client


def test_postfix_checks_its_logins_with_us(retrieval: tuple[RootServer, Postfix]) -> None:
    """PLAIN and LOGIN; a wrong one is slowed, held against the client's address, and logged."""
    server, postfix = retrieval
    found = postfix.auth_socket.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660 and found.st_uid == postfix.auth_socket.parent.stat().st_uid
    client = submission(postfix.port)
    assert {"PLAIN", "LOGIN"} <= set(client.esmtp_features["auth"].split())
    client.user, client.password = "ursula", PASSWORD
    assert client.auth("PLAIN", client.auth_plain)[0] == 235
    client.close()
    client = submission(postfix.port)
    client.user, client.password = "viktor", PASSWORD
    assert client.auth("LOGIN", client.auth_login)[0] == 235
    client.close()
    client = submission(postfix.port)
    with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        client.login("ursula", "wrong")
    assert caught.value.smtp_code == 535
    client.close()
    logged(server, "auth: Login: user=<ursula>, service=smtp, method=PLAIN, rip=127.0.0.1, session=<")
    logged(server, "auth: Login refused: user=<ursula>, service=smtp")
    assert PASSWORD not in server.log_text()


def test_an_open_session_sees_what_postfix_delivers(retrieval: tuple[RootServer, Postfix]) -> None:
    """An IDLE of ours announces what Postfix's local(8) appends to the spool."""
    server, postfix = retrieval
    reader = imap(server, "ursula")
    reader.select()
    reader.send(b"i IDLE\r\n")
    assert reader.readline().startswith(b"+")
    client = submission(postfix.port)
    client.login("viktor", PASSWORD)
    client.sendmail("viktor@example.org", ["ursula@example.org"], MESSAGE.format(subject="idle"))
    client.quit()
    reader.sock.settimeout(60)
    lines = iter(reader.readline, b"")
    assert any(line.endswith(b" EXISTS\r\n") for line in lines)
    reader.send(b"DONE\r\n")
    while not reader.readline().startswith(b"i OK"):
        pass
    assert reader.search(None, "SUBJECT", "idle")[1] == [b"1"]
    assert b">From here on." in reader.fetch("1", "(BODY[TEXT])")[1][0][1]  # type: ignore[index]
    reader.logout()


def test_a_restart_takes_the_socket_again(retrieval: tuple[RootServer, Postfix]) -> None:
    """What the ended server left there is replaced; Postfix says 454 meanwhile."""
    server, postfix = retrieval
    server.stop()
    client = submission(postfix.port)
    with pytest.raises(smtplib.SMTPException):
        client.login("ursula", PASSWORD)
    client.close()
    server.start()

    def can_log_in() -> bool:
        again = submission(postfix.port)
        try:
            return again.login("ursula", PASSWORD)[0] == 235
        except smtplib.SMTPException:
            return False
        finally:
            again.close()

    wait_for(can_log_in, "a login by way of Postfix")


@pytest.mark.parametrize("mail_format", ["mbox", "maildir"])
def test_smtp_beside_a_running_dovecot(mail_format: str) -> None:
    """Dovecot serves what we deliver, in an open session too, and our submission asks it for logins."""
    server = RootServer(mail_format)
    dovecot = Dovecot(server)
    location = {"mbox": f"mbox:~/mail:INBOX={server.spool}/%u", "maildir": f"maildir:{server.spool}/%u"}
    try:
        dovecot.start(location[mail_format])
        rows(server, "smtp", "submission")
        server.configure(
            "protocols = none",
            "smtpd_sasl_type = dovecot",
            f"smtpd_sasl_path = {dovecot.auth_socket}",
            "smtpd_tls_auth_only = no",
        )
        server.start()
        logged(server, f"SMTP logins are checked by Dovecot at {dovecot.auth_socket}")
        client = submission(server.ports["submission"])
        assert set(client.esmtp_features["auth"].split()) == {"PLAIN", "LOGIN"}
        assert client.login("viktor", PASSWORD)[0] == 235
        client.sendmail("viktor@example.org", ["ursula@example.org"], MESSAGE.format(subject="one"))
        reader = imaplib.IMAP4("127.0.0.1", dovecot.port, timeout=60)
        reader.login("ursula", PASSWORD)

        def seen(count: int) -> bool:
            return reader.select()[1] == [b"%d" % count]

        wait_for(lambda: seen(1), "the first message at Dovecot")
        client.sendmail("viktor@example.org", ["ursula@example.org"], MESSAGE.format(subject="two"))
        wait_for(lambda: seen(2), "the second message at Dovecot")
        reader.store("1", "+FLAGS", r"(\Deleted)")
        reader.expunge()
        client.sendmail("viktor@example.org", ["ursula@example.org"], MESSAGE.format(subject="three"))
        client.quit()
        wait_for(lambda: seen(2), "the third message at Dovecot")
        subjects = reader.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
        assert [row[1].strip() for row in subjects if isinstance(row, tuple)] == [
            b"Subject: two",
            b"Subject: three",
        ]
        reader.logout()
        logged(server, "sasl_method=PLAIN, sasl_username=viktor")
        client = submission(server.ports["submission"])
        client.user, client.password = "viktor", "wrong"
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.auth("PLAIN", client.auth_plain)
        assert caught.value.smtp_code == 535
        client.close()
        dovecot.stop()
        client = submission(server.ports["submission"])
        client.user, client.password = "viktor", PASSWORD
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.auth("PLAIN", client.auth_plain)
        assert caught.value.smtp_code == 454
        client.close()
        dovecot.start(location[mail_format])
        client = submission(server.ports["submission"])
        assert client.login("viktor", PASSWORD)[0] == 235
        client.close()
    finally:
        dovecot.stop()
        server.remove()
