"""Certificates: made, used, renewed without a restart, and refused with a clear word."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from OpenSSL import SSL

from mailserver.tls import (
    CertificateError,
    KeyPairFiles,
    ServerTls,
    days_left,
    make_context,
    self_signed,
)


def write_pair(directory: Path, *names: str) -> KeyPairFiles:
    pair = self_signed(names, time.time())
    (directory / "cert.pem").write_bytes(pair.chain)
    (directory / "key.pem").write_bytes(pair.key)
    return KeyPairFiles(str(directory / "cert.pem"), str(directory / "key.pem"))


def handshake(context: SSL.Context, **client: ssl.TLSVersion) -> tuple[str, bytes]:
    """The protocol version and the server's certificate of one handshake over a socket pair."""
    ours, theirs = socket.socketpair()
    server = SSL.Connection(context, ours)
    server.set_accept_state()

    def serve() -> None:
        try:
            server.do_handshake()
        except SSL.Error:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    wish = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    wish.check_hostname = False
    wish.verify_mode = ssl.CERT_NONE
    for name, value in client.items():
        setattr(wish, name, value)
    try:
        with wish.wrap_socket(theirs) as wrapped:
            return wrapped.version() or "", wrapped.getpeercert(binary_form=True) or b""
    finally:
        thread.join()
        ours.close()


def test_a_self_signed_certificate_serves(tmp_path: Path) -> None:
    """A made pair completes a TLS 1.3 handshake."""
    files = write_pair(tmp_path, "mail.example.org")
    version, _ = handshake(make_context([files.read()], "imap"))
    assert version == "TLSv1.3"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_versions_before_1_2_are_refused(tmp_path: Path) -> None:
    """RFC 8996: TLS 1.1 and older are not negotiated."""
    files = write_pair(tmp_path, "mail.example.org")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(make_context([files.read()], "imap"), maximum_version=ssl.TLSVersion.TLSv1_1)


def test_a_renewed_certificate_is_used_from_the_next_connection_on(tmp_path: Path) -> None:
    """The files change, and so does the certificate, without a new ServerTls."""
    files = write_pair(tmp_path, "old.example.org")
    tls = ServerTls("imap", files.stamp, lambda: [files.read()])
    first = handshake(tls.getContext())
    assert tls.getContext() is tls.getContext()
    write_pair(tmp_path, "new.example.org")
    second = handshake(tls.getContext())
    assert first[1] != second[1]


def test_a_damaged_certificate_leaves_the_old_one_in_use(tmp_path: Path) -> None:
    """A half-written renewal is warned about and breaks nobody's connection."""
    files = write_pair(tmp_path, "old.example.org")
    warnings: list[str] = []
    tls = ServerTls("imap", files.stamp, lambda: [files.read()], warn=warnings.append)
    before = tls.getContext()
    Path(files.certificate).write_text("-----BEGIN CERTIFICATE-----\n")
    assert tls.getContext() is before
    assert "the old one stays in use" in warnings[0]


def test_a_key_that_does_not_fit_stops_the_start(tmp_path: Path) -> None:
    """A certificate with another one's key is refused by name."""
    one, other = self_signed(["a.example"], time.time()), self_signed(["b.example"], time.time())
    with pytest.raises(CertificateError, match="do not fit"):
        make_context([type(one)(one.chain, other.key)], "imap")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error says which file and what to do."""
    with pytest.raises(CertificateError, match=r"nowhere\.pem.*name readable PEM files"):
        KeyPairFiles(str(tmp_path / "nowhere.pem"), str(tmp_path / "k")).read()


def test_days_left_counts_to_the_expiry() -> None:
    """An hour is taken off at the start, so that clocks may differ."""
    now = time.time()
    assert 9.9 < days_left(self_signed(["a.example"], now, days=10).chain, now) < 10
