"""Client certificates: SASL EXTERNAL in IMAP, POP3 and SMTP; fingerprints. RFC 4422 Appendix A."""

from __future__ import annotations

import imaplib
import poplib
import smtplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.client_certificates import der, describe
from tests.client_authority import Authority, showing
from tests.end_to_end.root_server import RootServer
from tests.end_to_end.server import Server, wait_for

SETTINGS = (
    "ssl_verify_client_cert = yes",
    "ssl_require_crl = no",
    "auth_mechanisms = plain external",
    "auth_ssl_username_from_cert = yes",
    "smtpd_tls_ask_ccert = yes",
    "smtpd_sasl_mechanism_filter = static:all",
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    """Relaying for certificates whose print is in a table, refused for one of them."""
    started = Server(tmp_path_factory.mktemp("certificates") / "home")
    partner, refused = authority.issue("partner")[0], authority.issue("refused")[0]
    (started.directory / "prints").write_text(f"{describe(der(partner)).fingerprint} partner\n")
    (started.directory / "access").write_text(
        f"{describe(der(refused)).public_key_fingerprint} REJECT not you\n"
    )
    started.configure(
        f"ssl_ca = {authority.file}",
        *SETTINGS,
        "mynetworks =",
        f"relay_clientcerts = texthash:{started.directory}/prints",
        f"smtpd_client_restrictions = check_ccert_access texthash:{started.directory}/access",
        "smtpd_relay_restrictions = permit_tls_clientcerts, reject_unauth_destination",
        "smtpd_sender_restrictions = check_ccert_access {",
        "  inline:{ named=REJECT }, { search_order = cert_fingerprint, subject_cn } }",
    )
    started.start()
    try:
        yield started
    finally:
        started.stop()


def imap_login(port: int, certificate: Path | None, identity: bytes = b"") -> imaplib.IMAP4:
    client = imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=showing(certificate), timeout=60)
    client.authenticate("EXTERNAL", lambda challenge: identity)
    return client


def test_imap(server: Server, authority: Authority) -> None:
    """The greeting announces EXTERNAL to who showed a good certificate; its name is the account's."""
    client = imaplib.IMAP4_SSL(
        "127.0.0.1", server.ports["imaps"], ssl_context=showing(authority.issue("alice")[1]), timeout=60
    )
    assert b"AUTH=EXTERNAL" in client.welcome
    client.authenticate("EXTERNAL", lambda challenge: b"")
    assert client.select()[0] == "OK"
    client.logout()
    server.logged(r"imap-login: Login: user=<alice>, method=EXTERNAL, ")


def test_not_announced(server: Server, authority: Authority, tmp_path: Path) -> None:
    """Neither without a certificate nor with a stranger's, and then it is not taken either."""
    stranger = Authority(tmp_path / "stranger").issue("alice")[1]
    for certificate in (None, stranger):
        client = imaplib.IMAP4_SSL(
            "127.0.0.1", server.ports["imaps"], ssl_context=showing(certificate), timeout=60
        )
        assert b"AUTH=PLAIN" in client.welcome
        assert b"AUTH=EXTERNAL" not in client.welcome
        with pytest.raises(imaplib.IMAP4.error, match="Unsupported"):
            client.authenticate("EXTERNAL", lambda challenge: b"")
        client.login("alice", server.passwords["alice"])
        client.logout()


def test_identity(server: Server, authority: Authority) -> None:
    """The identity that a client asks for is its own; nobody becomes somebody else, or nobody."""
    certificate = authority.issue("alice")[1]
    imap_login(server.ports["imaps"], certificate, b"Alice").logout()
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        imap_login(server.ports["imaps"], certificate, b"bob")
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        imap_login(server.ports["imaps"], authority.issue("nobody-here")[1])


def test_the_certificate_names_the_account_of_a_password(server: Server, authority: Authority) -> None:
    """auth_ssl_username_from_cert: bob's certificate with bob's password is bob, whatever name is typed."""
    client = imaplib.IMAP4_SSL(
        "127.0.0.1", server.ports["imaps"], ssl_context=showing(authority.issue("bob")[1]), timeout=60
    )
    with pytest.raises(imaplib.IMAP4.error):
        client.login("alice", server.passwords["alice"])
    client.login("alice", server.passwords["bob"])
    client.logout()


def test_openssl_under_starttls(server: Server, authority: Authority) -> None:
    """openssl s_client, STARTTLS, an initial response; the server names the authority that it trusts."""
    done = subprocess.run(
        ["openssl", "s_client", "-starttls", "imap", "-connect", f"127.0.0.1:{server.ports['imap']}",
         "-cert", str(authority.issue("alice")[1]), "-key", str(authority.issue("alice")[1]), "-ign_eof"],
        input=b"a AUTHENTICATE EXTERNAL =\r\nb LOGOUT\r\n", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert b"a OK [CAPABILITY" in done.stdout, done
    assert b"Acceptable client certificate CA names\nCN = Test Authority" in done.stdout


def test_pop3(server: Server, authority: Authority) -> None:
    """CAPA announces it after the handshake; AUTH asks, or takes an initial response."""
    context = showing(authority.issue("alice")[1])
    for command in (b"AUTH EXTERNAL =", b"AUTH EXTERNAL"):
        client = poplib.POP3_SSL("127.0.0.1", server.ports["pop3s"], context=context, timeout=60)
        assert "EXTERNAL" in client.capa()["SASL"]
        client.sock.sendall(command + b"\r\n")  # type: ignore[attr-defined]
        answer = client.file.readline()  # type: ignore[attr-defined]
        if answer == b"+ \r\n":
            client.sock.sendall(b"\r\n")  # type: ignore[attr-defined]
            answer = client.file.readline()  # type: ignore[attr-defined]
        assert answer == b"+OK Logged in.\r\n"
        assert client.stat()[0] >= 0
        client.quit()


def smtp(port: int, certificate: Path | None) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", port, timeout=60)
    client.starttls(context=showing(certificate))
    client.ehlo()
    return client


def test_smtp(server: Server, authority: Authority) -> None:
    """AUTH EXTERNAL on the submission port; without a certificate it is not there."""
    with smtp(server.ports["submission"], authority.issue("alice")[1]) as client:
        assert "EXTERNAL" in client.esmtp_features["auth"]
        assert client.auth("EXTERNAL", lambda challenge=None: "")[0] == 235
    with smtp(server.ports["submission"], None) as client:
        assert "EXTERNAL" not in client.esmtp_features["auth"]
        assert client.docmd("AUTH EXTERNAL")[0] == 504


def relay(server: Server, certificate: Path | None) -> tuple[int, bytes]:
    with smtp(server.ports["smtp"], certificate) as client:
        client.mail("somebody@elsewhere.test")
        return client.rcpt("anybody@elsewhere.test")


def test_prints_let_relay(server: Server, authority: Authority) -> None:
    """permit_tls_clientcerts, check_ccert_access: by the print of the certificate, or of its key."""
    prints = authority.directory
    assert relay(server, prints / "partner.pem")[0] == 250
    assert relay(server, authority.issue("other")[1])[0] == 554
    assert relay(server, None)[0] == 554
    code, text = relay(server, prints / "refused.pem")
    assert (code, b"not you" in text) == (554, True)


def test_names_count_where_they_are_asked_for(server: Server, authority: Authority, tmp_path: Path) -> None:
    """search_order: the name of a trusted certificate is a key, a stranger's is not."""
    assert relay(server, authority.issue("named")[1])[1].endswith(b"Access denied")
    code, text = relay(server, Authority(tmp_path / "stranger").issue("named")[1])
    assert (code, b"Relay access denied" in text) == (554, True)


def test_received_names_the_certificate(server: Server, authority: Authority, tmp_path: Path) -> None:
    """smtpd_tls_received_header, in Postfix's words."""
    stranger = Authority(tmp_path / "stranger", 'A "(B)').issue("c")[1]
    for certificate, subject in ((authority.issue("ann")[1], "1"), (stranger, "2"), (None, "3")):
        with smtp(server.ports["smtp"], certificate) as client:
            client.sendmail("a@elsewhere.test", ["bob@example.org"], f"Subject: {subject}\n\n")
    wait_for(lambda: server.inbox("bob").read_bytes().count(b"Subject: ") == 3, "three messages")
    one, two, three = server.inbox("bob").read_text().split("Subject: ")[:3]
    assert '\n\t(Client CN "ann", Issuer "Test Authority" (verified OK))\n\tby ' in one
    assert '\n\t(Client CN "c", Issuer "A ??B?" (not verified))\n\tby ' in two
    assert "bits))\n\t(Client did not present a certificate)\n\tby " in three


def test_required(tmp_path: Path, authority: Authority) -> None:
    """smtpd_tls_req_ccert sends away, auth_ssl_require_client_cert lets nobody in; a revoked one is none."""
    server = Server(tmp_path / "home")
    revoked, path = authority.issue("bob")
    authority.revoke(revoked)
    server.configure(
        f"ssl_ca = {authority.file}",
        *SETTINGS,
        "ssl_require_crl = yes",
        "smtpd_tls_req_ccert = yes",
        "auth_ssl_require_client_cert = yes",
    )
    server.start()
    try:
        good = authority.issue("alice")[1]
        with smtp(server.ports["smtp"], good) as client:
            assert client.noop()[0] == 250
        with smtplib.SMTP("127.0.0.1", server.ports["smtp"], timeout=60) as client:
            client.starttls(context=showing(None))
            code, text = client.docmd("EHLO", "here.test")
            assert (code, b"4.7.1" in text, b"No client certificate presented" in text) == (421, True, True)
        imap_login(server.ports["imaps"], good).logout()
        with pytest.raises(imaplib.IMAP4.error, match="Unsupported"):
            imap_login(server.ports["imaps"], path)
        client = imaplib.IMAP4_SSL("127.0.0.1", server.ports["imaps"], ssl_context=showing(None), timeout=60)
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            client.login("alice", server.passwords["alice"])
    finally:
        server.stop()


@pytest.mark.needs("root")
def test_system_accounts(authority: Authority) -> None:
    """The front shows the certificate to the helper, which judges it and gives the stream to the host."""
    server = RootServer()
    file = server.directory / "authority.pem"
    file.write_bytes(authority.file.read_bytes())
    server.configure(f"ssl_ca = {file}", *SETTINGS)
    server.start()
    try:
        certificate = authority.issue("viktor")[1]
        client = imap_login(server.ports["imaps"], certificate)
        assert client.select()[0] == "OK"
        client.logout()
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            imap_login(server.ports["imaps"], authority.issue("root")[1])
        with smtp(server.ports["submission"], certificate) as sender:
            assert sender.auth("EXTERNAL", lambda challenge=None: "")[0] == 235
        assert "method=EXTERNAL" in server.log_text()
    finally:
        server.remove()
