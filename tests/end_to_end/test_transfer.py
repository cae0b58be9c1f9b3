"""Mail from one server to another: relay host, transports, login, TLS, copies."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.root_mail import logged
from tests.end_to_end.root_mail import send as send_as_root
from tests.end_to_end.root_server import RootServer
from tests.end_to_end.server import Server, running
from tests.end_to_end.test_exchange import received, send


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The other server: it knows alice and bob at far.test, and relays for nobody without a login."""
    lines = ("mydestination = far.test", "mynetworks = 192.0.2.1", "myorigin = far.test")
    with running(tmp_path_factory.mktemp("far") / "home", "mbox", *lines) as server:
        yield server


@pytest.fixture(scope="module")
def near(far: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our server: far.test by a transport of its own, the rest over the relay host, logged in."""
    submission = f"[127.0.0.1]:{far.ports['submission']}"
    directory = tmp_path_factory.mktemp("near") / "home"
    server = Server(directory)
    server.configure(
        f"relayhost = {submission}",
        "smtp_sasl_auth_enable = yes",
        f"smtp_sasl_password_maps = inline:{{ {{ {submission} = alice:{far.passwords['alice']} }} }}",
        "smtp_tls_security_level = may",
        f"smtp_tls_policy_maps = inline:{{ {{ {submission} = encrypt }} }}",
        f"transport_maps = inline:{{ {{ far.test = plain:[127.0.0.1]:{far.ports['smtp']} }} }}",
        "sender_bcc_maps = inline:{ { watched@example.org = bob } }",
        "soft_bounce = yes",
        "header_checks = regexp:$config_directory/header_checks",
    )
    (directory / "header_checks").write_text("/^X-Secret:/ IGNORE\n/^Subject: .*lottery/ REJECT not here\n")
    with (directory / "master.cf").open("a") as rows:
        rows.write("plain unix - - n - - smtp -o smtp_tls_security_level=none -o smtp_helo_name=plain.test\n")
    server.start()
    yield server
    server.stop()


def test_a_transport_has_settings_of_its_own(near: Server, far: Server) -> None:
    """transport_maps to a row of master.cf with -o: in clear, under another name."""
    content = b"Message-ID: <plain@near>\nSubject: plain\n\n.dot\n"
    send(near, content, "bob@far.test", sender="alice@example.org")
    message = received(far, "bob", "<plain@near>")
    assert b"Received: from plain.test (localhost [127.0.0.1])" in message
    assert b"with ESMTP id" in message and message.endswith(b"\r\n\r\n.dot\r\n")
    near.logged(rf"to=<bob@far.test>, relay=127\.0\.0\.1\[127\.0\.0\.1\]:{far.ports['smtp']}, .*status=sent")


def test_the_relay_host_is_logged_in_to_under_tls(near: Server, far: Server) -> None:
    """relayhost, smtp_sasl_password_maps, smtp_tls_policy_maps; what it cannot deliver stays its problem."""
    send(near, b"Message-ID: <away@near>\nSubject: away\n\nx\n", "x@elsewhere.test")
    port = far.ports["submission"]
    near.logged(
        rf"to=<x@elsewhere.test>, relay=127\.0\.0\.1\[127\.0\.0\.1\]:{port}, .*status=sent \(250 2\.0\.0 Ok"
    )
    far.logged(r"client=localhost\[127\.0\.0\.1\], sasl_method=PLAIN, sasl_username=alice")


def test_copies_go_where_the_tables_say(near: Server) -> None:
    """sender_bcc_maps: for that sender, in the same message."""
    for sender in ("watched@example.org", "other@example.org"):
        identifier = f"<copy@{sender}>"
        send(
            near, f"Message-ID: {identifier}\nSubject: c\n\nx\n".encode(), "alice@example.org", sender=sender
        )
        received(near, "alice", identifier)
    assert received(near, "bob", "<copy@watched@example.org>")
    assert b"copy@other" not in near.inbox("bob").read_bytes()


def test_soft_bounce_refuses_for_now_and_returns_nothing(near: Server) -> None:
    """soft_bounce: 4xx to clients, and mail that fails waits."""
    with smtplib.SMTP("127.0.0.1", near.ports["smtp"]) as client:
        client.ehlo()
        client.mail("a@example.net")
        assert client.rcpt("nosuch@example.org")[0] == 450
    forward = Path(near.directory / "home" / "bob" / ".forward")
    forward.write_text('"|exit 67"\n')
    forward.chmod(0o644)
    send(near, b"Subject: soft\n\nx\n", "bob@example.org")
    near.logged(r"to=<bob@example.org>, .*dsn=4\.1\.1, status=deferred \(user unknown\)")
    forward.unlink()


def test_header_checks_are_read_from_the_file_they_name(near: Server) -> None:
    """header_checks: fields removed, messages refused; a changed table counts at once."""
    send(near, b"Message-ID: <checked@near>\nX-Secret: 1\nSubject: fine\n\nx\n", "alice@example.org")
    assert b"X-Secret" not in received(near, "alice", "<checked@near>")
    with pytest.raises(smtplib.SMTPDataError, match="not here"):
        send(near, b"Subject: you won the lottery\n\nx\n", "alice@example.org")
    near.logged(
        r"reject: header Subject: you won the lottery from localhost\[127\.0\.0\.1\]; "
        r"from=<carol@example\.net> to=<alice@example\.org> proto=ESMTP helo=<.*>: 5\.7\.1 not here"
    )


def test_what_is_forwarded_outside_comes_from_us(near: Server, far: Server) -> None:
    """SRS: the next server sees a sender of ours, to which a bounce can be sent, and no forged one."""
    forward = near.directory / "home" / "alice" / ".forward"
    forward.write_text("bob@far.test\n")
    forward.chmod(0o644)
    try:
        content = b"Message-ID: <forwarded@near>\nSubject: f\n\nx\n"
        send(near, content, "alice@example.org", sender="someone@elsewhere.test")
        message = received(far, "bob", "<forwarded@near>")
    finally:
        forward.unlink()
    found = re.match(rb"Return-Path: <(SRS0=\w{6}=\w\w=elsewhere\.test=someone@example\.org)>", message)
    assert found is not None, message[:200]
    address = found[1].decode()
    with smtplib.SMTP("127.0.0.1", near.ports["smtp"]) as client:
        client.ehlo()
        client.mail("")
        assert client.rcpt(address)[0] == 250
        assert client.rcpt(address.replace("=someone", "=other"))[0] == 450


@pytest.mark.needs("root")
def test_roots_password_file_is_enough(far: Server) -> None:
    """sasl_passwd with mode 600: the queue, which may not read it, asks the helper."""
    server = RootServer()
    passwords = server.directory / "config" / "sasl_passwd"
    submission = f"[127.0.0.1]:{far.ports['submission']}"
    passwords.write_text(f"{submission} bob:{far.passwords['bob']}\n")
    passwords.chmod(0o600)
    server.configure(
        f"relayhost = {submission}",
        "smtp_sasl_auth_enable = yes",
        "smtp_sasl_password_maps = hash:$config_directory/sasl_passwd",
        "smtp_tls_security_level = encrypt",
    )
    try:
        server.start()
        send_as_root(server, "by-helper", "x@elsewhere.test")
        logged(server, "status=sent (250 2.0.0 Ok: queued as ")
    finally:
        server.remove()
    far.logged(r"sasl_method=PLAIN, sasl_username=bob")
