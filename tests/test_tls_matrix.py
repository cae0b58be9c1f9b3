"""What `openssl s_client` is given and refused: RELIABILITY §11, B37, the RSA and ECDSA pair."""

from __future__ import annotations

import datetime
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from mailserver.tls import KeyPair, make_context

Client = Callable[..., str]


def issued(common_name: str, issuer: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> KeyPair:
    """A leaf for the key, signed by a CA of its own kind that follows it in the chain."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    authority = rsa.generate_private_key(65537, 2048) if is_rsa else ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, public: object, is_authority: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(public)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(authority, hashes.SHA256())
        )

    leaf, root = (
        certificate(common_name, key.public_key(), False),
        certificate(issuer, authority.public_key(), True),
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return KeyPair(leaf.public_bytes(pem) + root.public_bytes(pem), private)


PAIRS: Sequence[KeyPair] = (
    issued("rsa.example", "rsa-ca", rsa.generate_private_key(65537, 2048)),
    issued("ecdsa.example", "ecdsa-ca", ec.generate_private_key(ec.SECP256R1())),
)


def listen(context: SSL.Context) -> Iterator[int]:
    """The port of a server that shakes hands, says `hello` and waits for the client's end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(accepted: socket.socket) -> None:
        accepted.settimeout(None)
        connection = SSL.Connection(context, accepted)
        connection.set_accept_state()
        try:
            connection.do_handshake()
            connection.send(b"hello\n")
            while connection.recv(100):
                pass
        except (SSL.Error, OSError):
            pass
        accepted.close()

    def accept() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(accepted,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture(scope="module", params=["smtp", "imap", "pop3"])
def service(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Each service's context, with both pairs."""
    for port in listen(make_context(PAIRS, request.param)):
        yield request.param, port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """One service's context, with both pairs."""
    yield from listen(make_context(PAIRS, "imap"))


def s_client(port: int, *options: str, says: str = "") -> str:
    """All that `openssl s_client` prints."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-showcerts", *options]
    environment = os.environ | {"OPENSSL_CONF": "/dev/null"}
    done = subprocess.run(
        command, input=says, capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    return done.stdout + done.stderr


def subject(said: str) -> str:
    """Whose certificate the server sent, "" where there is none."""
    found = re.search(r"^subject=.*?CN ?= ?(\S+)", said, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"), "rsa"),
        (("-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256"), "ecdsa"),
        (("-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256"), "ecdsa"),  # the cheaper one
        (("-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256"), "ecdsa"),
        (("-tls1_2", "-sigalgs", "RSA+SHA256"), "rsa"),
        (("-tls1_2", "-sigalgs", "ECDSA+SHA256"), "ecdsa"),
        (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), "rsa"),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"), "ecdsa"),
    ],
)
def test_a_client_gets_the_certificate_that_it_can_check(
    port: int, options: tuple[str, ...], name: str
) -> None:
    """RSA for those who know RSA alone, ECDSA likewise, each with its own chain. RFC 8446 §4.4.2.2."""
    said = s_client(port, *options)
    assert subject(said) == f"{name}.example", said
    issuers = {"rsa": "rsa-ca", "ecdsa": "ecdsa-ca"}
    assert len(re.findall("BEGIN CERTIFICATE", said)) in (2, 3)  # -showcerts; older ones repeat the leaf
    assert issuers.pop(name) in said
    assert issuers.popitem()[1] not in said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("group", ["X25519", "P-256", "P-384"])
def test_groups(port: int, version: str, group: str) -> None:
    """Whoever knows only one of the usual groups is served."""
    said = s_client(port, version, "-groups", group)
    known = {"X25519": "X25519", "P-256": "P-256|prime256v1|secp256r1", "P-384": "P-384|secp384r1"}[group]
    assert re.search(rf"(Server Temp Key|group): .*({known})", said), said


@pytest.mark.parametrize(
    "options",
    [
        ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
        ("-tls1", "-cipher", "ALL:@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "AES128-GCM-SHA256"),  # no forward secrecy
        ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA"),  # CBC
        ("-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"),
        ("-tls1_2", "-cipher", "NULL-SHA256:@SECLEVEL=0"),
        ("-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"),
        ("-tls1_3", "-groups", "ffdhe2048", "-sigalgs", "rsa_pss_pss_sha256"),
    ],
)
def test_what_is_refused(port: int, options: tuple[str, ...]) -> None:
    """No old version, and in 1.2 nothing but ECDHE with AEAD."""
    said = s_client(port, *options)
    assert not subject(said), said


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"])
def test_what_is_offered_in_1_2(port: int, cipher: str) -> None:
    """RFC 9325 §4.2."""
    assert f"ECDHE-RSA-{cipher}" in s_client(port, "-tls1_2", "-cipher", f"ECDHE-RSA-{cipher}")


def test_no_renegotiation_and_no_compression(port: int) -> None:
    """A client that asks in the middle is refused. RFC 9325 §3.3, §3.5."""
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-comp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    said = ""
    while "hello" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.stdin.write("R\n")
    process.stdin.flush()
    said += process.communicate(timeout=60)[0]
    assert "no renegotiation" in said.lower(), said
    assert "Compression: NONE" in said or "Compression:" not in said


def test_ours_and_ours_agree_on_the_newest_group() -> None:
    """X25519MLKEM768 where OpenSSL knows it, X25519 before."""
    if not hasattr(SSL.Connection, "get_group_name"):
        return
    for port in listen(make_context(PAIRS, "imap")):
        with socket.create_connection(("127.0.0.1", port), 30) as raw:
            raw.settimeout(None)
            client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), raw)
            client.set_connect_state()
            client.do_handshake()
            is_new = SSL.OPENSSL_VERSION_NUMBER >= 0x30500000
            assert (client.get_group_name() or "").lower() == ("x25519mlkem768" if is_new else "x25519")


OWN = {"smtp": ("smtp", "submission"), "imap": ("imap",), "pop3": ("pop3",)}


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_foreign_applications_are_refused(service: tuple[str, int], version: str) -> None:
    """Whoever wants only another protocol than ours hears no_application_protocol. RFC 7301 §3.2; ALPACA."""
    name, port = service
    others = [each for own, names in OWN.items() if own != name for each in names]
    for offered in ("http/1.1", "h2,http/1.1", "ftp", name.upper(), *others):
        said = s_client(port, version, "-alpn", offered)
        assert "no application protocol" in said, (offered, said)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_own_applications_are_taken(service: tuple[str, int], version: str) -> None:
    """The client's first choice that is ours; and who offers nothing is served as ever."""
    name, port = service
    for own in OWN[name]:
        for offered in (own, f"http/1.1,{own}"):
            said = s_client(port, version, "-alpn", offered)
            assert f"ALPN protocol: {own}\n" in said, (offered, said)
    said = s_client(port, version)
    assert "No ALPN negotiated" in said and subject(said)
