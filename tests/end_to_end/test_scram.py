"""SCRAM-SHA-256 with GNU SASL's and Cyrus SASL's clients, and with system accounts. RFC 5802, RFC 7677.

And app passwords, which those accounts have too.
"""

from __future__ import annotations

import hashlib
import imaplib
import json
import poplib
import re
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.accounts.scram_client import ScramClient, log_in
from tests.end_to_end.root_server import MAIL_OWNER, PASSWORD, RootServer
from tests.end_to_end.server import Server, running
from tests.end_to_end.test_exchange import untrusting

MECHANISMS = "auth_mechanisms = plain login scram-sha-256"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has seen alice's password once."""
    with running(tmp_path_factory.mktemp("scram") / "home", "mbox", MECHANISMS) as started:
        log_in_plainly(started.ports["imaps"], "alice", started.passwords["alice"])
        yield started


def log_in_plainly(port: int, name: str, password: str) -> None:
    """A login by password, which leaves a verifier."""
    client = imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=untrusting())
    client.login(name, password)
    client.logout()


def gsasl(port: int, protocol: str, name: str, password: str, *options: str) -> str:
    """What the two said to each other; `(failed)` follows where gsasl was not let in."""
    command = ["gsasl", f"--{protocol}", "-a", name, "-p", password, "--x509-ca-file=", *options, "-d"]
    done = subprocess.run(
        [*command, "127.0.0.1", str(port)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + ("(failed)" if done.returncode else done.stderr)


@pytest.mark.needs("gsasl")
@pytest.mark.parametrize(("protocol", "service"), [("imap", "imap"), ("smtp", "submission")])
@pytest.mark.parametrize("options", [("-m", "SCRAM-SHA-256-PLUS"), ("-m", "SCRAM-SHA-256", "--no-cb")])
def test_gnu_sasl_logs_in(server: Server, protocol: str, service: str, options: tuple[str, ...]) -> None:
    """With the channel bound by tls-exporter (RFC 9266) and without; a wrong password is refused."""
    port = server.ports[service]
    text = gsasl(port, protocol, "alice", server.passwords["alice"], *options)
    assert "server trusted" in text, text
    assert gsasl(port, protocol, "alice", "wrong", *options).endswith("(failed)")


@pytest.mark.needs("mutt")
@pytest.mark.parametrize("protocol", ["imap", "pop"])
def test_mutt_logs_in_by_cyrus_sasl(server: Server, tmp_path: Path, protocol: str) -> None:
    """Debian's libsasl2-modules, over IMAP and POP3."""
    password = server.passwords["alice"]
    port = server.ports["imap" if protocol == "imap" else "pop3"]
    (tmp_path / ".muttrc").write_text(
        f"""set imap_user=alice imap_pass="{password}" pop_user=alice pop_pass="{password}"
set imap_authenticators="scram-sha-256" pop_authenticators="scram-sha-256"
set ssl_starttls=yes ssl_force_tls=no ssl_verify_host=no certificate_file="{tmp_path}/trusted"
set folder="{tmp_path}" timeout=5 sleep_time=0 quit=yes
"""
    )
    (tmp_path / "trusted").write_bytes((server.directory / "tls" / "certificate.pem").read_bytes())
    mutt = f"mutt -n -R -F {tmp_path}/.muttrc -f {protocol}://alice@127.0.0.1:{port}/ -e 'push <exit>'"
    environment = {"HOME": str(tmp_path), "TERM": "xterm", "PATH": "/usr/bin:/bin"}
    subprocess.run(
        ["script", "-qec", mutt, "/dev/null"], env=environment, capture_output=True, timeout=60, check=False
    )
    service = "imap" if protocol == "imap" else "pop3"
    server.logged(rf"{service}-login: Login: user=<alice>, method=SCRAM-SHA-256(-PLUS)?, ")


def test_the_end_point_binds_the_channel_in_every_version(server: Server) -> None:
    """tls-server-end-point (RFC 5929 §4), the binding of clients that cannot ask their TLS for keys."""
    client = poplib.POP3_SSL("127.0.0.1", server.ports["pop3s"], context=untrusting())
    certificate = client.sock.getpeercert(binary_form=True)  # type: ignore[attr-defined]
    bound = hashlib.sha256(certificate).digest()

    def ask(line: bytes) -> bytes:
        client.sock.sendall(line + b"\r\n")
        return client.file.readline()  # type: ignore[attr-defined,no-any-return]

    start = b"AUTH SCRAM-SHA-256-PLUS"
    header = "p=tls-server-end-point,,"
    password = server.passwords["alice"]
    assert log_in(ScramClient("alice", password, header, b"x" * 32), ask, start).startswith(b"-ERR [AUTH]")
    assert log_in(ScramClient("alice", password, header, bound), ask, start) == b"+OK Logged in.\r\n"
    client.quit()


@pytest.mark.needs("root", "gsasl")
def test_system_accounts() -> None:
    """The helper keeps verifiers and checks proofs; whoever serves clients can read neither."""
    server = RootServer()
    server.configure(MECHANISMS)
    server.start()
    try:
        port = server.ports["imap"]
        options = ("-m", "SCRAM-SHA-256-PLUS")
        assert gsasl(port, "imap", "viktor", PASSWORD, *options).endswith("(failed)")
        log_in_plainly(server.ports["imaps"], "viktor", PASSWORD)
        assert "server trusted" in gsasl(port, "imap", "viktor", PASSWORD, *options)
        assert "server trusted" in gsasl(server.ports["submission"], "smtp", "viktor", PASSWORD, *options)
        assert gsasl(port, "imap", "root", PASSWORD, *options).endswith("(failed)")
        kept = server.directory / "state" / "auth"
        assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (0, 0o700)
        assert {path.stat().st_uid for path in kept.iterdir()} == {0}
        assert not re.search(r"(?i)traceback|internal error", server.log_text())
    finally:
        server.remove()


@pytest.fixture(scope="module")
def root_server() -> Iterator[RootServer]:
    """A server with system accounts."""
    server = RootServer()
    server.start()
    yield server
    server.remove()


@pytest.mark.needs("root")
def test_app_passwords_of_system_accounts(root_server: RootServer) -> None:
    """Made by root beside the running server, good at once, for their protocols, logged with the device."""
    server = root_server
    made = server.command("app-password", "add", "ursula", "phone", "--protocol", "imap", "--json")
    password = json.loads(made)["password"]
    log_in_plainly(server.ports["imaps"], "ursula", password)
    log_in_plainly(server.ports["imaps"], "ursula", PASSWORD)
    assert "auth: Info: imap(ursula,127.0.0.1): app password phone is right" in server.log_text()
    with pytest.raises(poplib.error_proto):
        client = poplib.POP3_SSL("127.0.0.1", server.ports["pop3s"], context=untrusting())
        client.user("ursula")
        client.pass_(password)


@pytest.mark.needs("root")
def test_users_make_app_passwords_of_their_own(root_server: RootServer) -> None:
    """Typed by viktor without root, before and after a reload; never for others, nor by the mail_owner."""
    server = root_server
    status, made = server.command_of("viktor", "app-password", "add", "phone", "--json")
    assert status == 0, made
    server.configure("smtpd_banner = $myhostname ESMTP again")
    server.command("reload")
    log_in_plainly(server.ports["imaps"], "viktor", json.loads(made)["password"])
    for user in ("ursula", MAIL_OWNER[0]):
        status, error = server.command_of(user, "app-password", "add", "viktor", "x")
        assert status == 77 and "root" in error, error
    status, listed = server.command_of("viktor", "app-password", "list", "viktor", "--json")
    assert status == 0 and [each["device"] for each in json.loads(listed)] == ["phone"]
    assert server.command_of("viktor", "app-password", "revoke", "phone") == (0, "Revoked 1 of viktor.\n")
    with pytest.raises(imaplib.IMAP4.error):
        log_in_plainly(server.ports["imaps"], "viktor", json.loads(made)["password"])
    assert "auth: Info: viktor made app password phone for imap,pop3,smtp" in server.log_text()
    assert not re.search(r"(?i)traceback|internal error", server.log_text())


def test_smtplib_still_logs_in(server: Server) -> None:
    """More mechanisms do no harm to clients that know PLAIN only."""
    with smtplib.SMTP("127.0.0.1", server.ports["submission"], timeout=60) as client:
        client.starttls(context=untrusting())
        assert client.login("alice", server.passwords["alice"])[0] == 235
