"""Certificates as most hosts have them: certbot gets and renews them, from an ACME server of the test's own.

Debian's pebble is the authority; it asks pebble-challtestsrv for the host's address and certbot's own
web server for the challenge. The server reads what certbot leaves in live/.
"""

from __future__ import annotations

import imaplib
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from mailserver.tls import self_signed
from tests.end_to_end.root_server import PASSWORD, RootServer
from tests.end_to_end.server import DEADLINE, free_ports, wait_for
from tests.end_to_end.test_exchange import untrusting
from tests.end_to_end.test_tls import write_pair

pytestmark = pytest.mark.needs("root", "certbot", "pebble", "pebble-challtestsrv")
NAME = "mail.example.org"


class Authority:
    """A running ACME server, and certbot's directories."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.live = directory / "config" / "live" / NAME
        self.port, self._management, self._http, self._dns, self._names = free_ports(5)
        write_pair(directory, self_signed(["localhost"], time.time()))
        (directory / "pebble.json").write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": f"127.0.0.1:{self.port}",
                        "managementListenAddress": f"127.0.0.1:{self._management}",
                        "certificate": str(directory / "fullchain.pem"),
                        "privateKey": str(directory / "privkey.pem"),
                        "httpPort": self._http,
                        "tlsPort": self._http,
                    }
                }
            )
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Orders are taken within."""
        dns = f"127.0.0.1:{self._dns}"
        answers = ["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", dns]
        nothing = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", f"127.0.0.1:{self._names}"]
        pebble = ["pebble", "-config", str(self.directory / "pebble.json"), "-dnsserver", dns]
        environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        with (self.directory / "pebble.log").open("wb") as log:
            started = [
                subprocess.Popen(command, stdout=log, stderr=log, env=environment)
                for command in (["pebble-challtestsrv", *answers, *nothing], pebble)
            ]
        try:
            for port in (self._names, self.port):
                wait_for(lambda port=port: _answers(port), "the ACME server to listen")  # type: ignore[misc]
            yield
        finally:
            for process in started:
                process.terminate()
                process.wait(DEADLINE)

    def certbot(self, *arguments: str) -> None:
        """The command has done what it was asked for."""
        places = [f"--{name}-dir={self.directory / name}" for name in ("config", "work", "logs")]
        server = ["--server", f"https://127.0.0.1:{self.port}/dir", "--no-verify-ssl"]
        done = subprocess.run(
            ["certbot", *arguments, "-n", *places, *server, "--http-01-port", str(self._http)],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def serial(port: int) -> int:
    """The number of the certificate that a client is shown, whose name must be ours."""
    with (
        socket.create_connection(("127.0.0.1", port), DEADLINE) as connection,
        untrusting().wrap_socket(connection, server_hostname=NAME) as wrapped,
    ):
        certificate = x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b"")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    return certificate.serial_number


def test_a_certificate_is_renewed_under_a_running_session(tmp_path: Path) -> None:
    """`certbot renew` is all that happens: new connections have the new certificate, the old one goes on."""
    authority, root = Authority(tmp_path), RootServer("mbox")
    try:
        with authority.running():
            authority.certbot("certonly", "--standalone", "-d", NAME, "--agree-tos", "-m", f"root@{NAME}")
            root.configure(
                f"smtpd_tls_cert_file = {authority.live}/fullchain.pem",
                f"smtpd_tls_key_file = {authority.live}/privkey.pem",
            )
            root.start()
            port = root.ports["imaps"]
            first = serial(port)
            with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=untrusting()) as session:
                session.login("ursula", PASSWORD)
                assert isinstance(session.sock, ssl.SSLSocket)
                authority.certbot("renew", "--force-renewal", "--no-random-sleep-on-renew")
                wait_for(lambda: serial(port) != first, "the renewed certificate")
                assert session.noop()[0] == "OK"
            assert serial(root.ports["submissions"]) == serial(port) != first
    finally:
        root.remove()
