"""TLS of a running server: versions, names, renewal as certbot does it, expiry. RELIABILITY §11."""

from __future__ import annotations

import imaplib
import os
import smtplib
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from mailserver.tls import KeyPair, self_signed
from tests.end_to_end.root_server import PASSWORD, RootServer
from tests.end_to_end.server import Server, running, wait_for
from tests.end_to_end.test_exchange import untrusting

NAMED = "mail.other.test"


def write_pair(directory: Path, pair: KeyPair) -> None:
    """privkey.pem and fullchain.pem, as certbot calls them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "privkey.pem").write_bytes(pair.key)
    (directory / "privkey.pem").chmod(0o600)
    (directory / "fullchain.pem").write_bytes(pair.chain)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a second name, whose certificate expires in ten days."""
    directory = tmp_path_factory.mktemp("tls")
    write_pair(directory / "other", self_signed([NAMED], time.time(), days=10))
    files = f"{directory}/other/privkey.pem {directory}/other/fullchain.pem"
    maps = f"tls_server_sni_maps = inline:{{ {{{NAMED} = {files}}}, {{.sub.test = {files}}} }}"
    with running(directory / "home", "mbox", maps) as started:
        yield started


def subject(connection: ssl.SSLSocket) -> str:
    """The common name of the server's certificate."""
    certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    return certificate.subject.rfc4514_string().removeprefix("CN=")


def served(port: int, name: str = "") -> str:
    """Whose certificate a client that asks for the name is given."""
    with (
        socket.create_connection(("127.0.0.1", port), 30) as connection,
        untrusting().wrap_socket(connection, server_hostname=name or None) as wrapped,
    ):
        return subject(wrapped)


@pytest.mark.parametrize("service", ["imaps", "pop3s", "submissions"])
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(server: Server, service: str, version: str) -> None:
    """By the server, whatever the client would do."""
    context = untrusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[version]
    with (
        socket.create_connection(("127.0.0.1", server.ports[service]), 30) as connection,
        pytest.raises(ssl.SSLError, match="alert protocol version"),
    ):
        context.wrap_socket(connection)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_new_versions_are_served(server: Server, version: str) -> None:
    """1.2 and 1.3, with forward secrecy and an AEAD. RFC 8996, RFC 8314 §3."""
    context = untrusting()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with (
        socket.create_connection(("127.0.0.1", server.ports["imaps"]), 30) as connection,
        context.wrap_socket(connection) as wrapped,
    ):
        cipher = wrapped.cipher()
    assert cipher is not None
    assert cipher[0].startswith("TLS_") or (cipher[0].startswith("ECDHE") and "GCM" in cipher[0])


@pytest.mark.parametrize("service", ["imaps", "pop3s", "submissions"])
def test_a_client_gets_the_certificate_of_the_name_it_asks_for(server: Server, service: str) -> None:
    """tls_server_sni_maps on every service: the name, then `.domain`; any other name gets the default."""
    port = server.ports[service]
    assert served(port, NAMED) == served(port, NAMED.upper()) == NAMED
    assert served(port, "a.sub.test") == NAMED
    assert served(port) == served(port, "elsewhere.test") == "mail.example.org"


def test_starttls_knows_names_too(server: Server) -> None:
    """The context factory is the same."""
    with smtplib.SMTP("127.0.0.1", server.ports["smtp"]) as client:
        client._host = NAMED  # type: ignore[attr-defined]  # what smtplib asks for
        client.starttls(context=untrusting())
        assert isinstance(client.sock, ssl.SSLSocket)
        assert subject(client.sock) == NAMED


def test_the_log_warns_of_an_expiry(server: Server) -> None:
    """14 days ahead, for certificates of names as well; the other one has years."""
    server.logged(r"warning: TLS certificate \S+/other/fullchain\.pem expires in 10 days: renew it")
    assert "certificate.pem expires" not in server.log_text()


@pytest.mark.needs("root")
def test_certbots_files_serve_and_are_renewed_without_a_restart() -> None:
    """live/ is a 0700 directory of root's with symbolic links; a session of before goes on."""
    root = RootServer("mbox")
    try:
        archive, live = root.directory / "archive", root.directory / "live"
        for directory in (archive, live):
            directory.mkdir(mode=0o700)
        link(archive, live, "first")
        root.configure(
            f"smtpd_tls_cert_file = {live}/fullchain.pem", f"smtpd_tls_key_file = {live}/privkey.pem"
        )
        root.start()
        assert served(root.ports["imaps"]) == "first.example.org"
        with imaplib.IMAP4_SSL("127.0.0.1", root.ports["imaps"], ssl_context=untrusting()) as session:
            session.login("ursula", PASSWORD)
            link(archive, live, "second")
            wait_for(lambda: served(root.ports["imaps"]) == "second.example.org", "the renewed certificate")
            assert session.noop()[0] == "OK"
        assert served(root.ports["pop3s"]) == served(root.ports["submissions"]) == "second.example.org"
    finally:
        root.remove()


def link(archive: Path, live: Path, name: str) -> None:
    """certbot's renewal: new files in archive/, and links that lead there."""
    write_pair(archive / name, self_signed([f"{name}.example.org"], time.time()))
    for file in ("privkey.pem", "fullchain.pem"):
        (live / f".{file}").symlink_to(archive / name / file)
        os.replace(live / f".{file}", live / file)
