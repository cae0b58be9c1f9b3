"""postfix tls: keys, certificates, requests and DNS records; openssl(1) is the reader."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from pathlib import Path

import pytest

from mailserver.commands import postfix
from mailserver.config.read import read_unchecked


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A configuration without TLS."""
    (tmp_path / "main.cf").write_text("myhostname = mx.example.org\n")
    (tmp_path / "master.cf").write_text("")
    return tmp_path


def tls(here: Path, *words: str, status: int = 0) -> None:
    assert postfix.main(["-c", str(here), "tls", *words]) == status


def value(here: Path, name: str) -> str:
    return read_unchecked(str(here), {}).string(name)


def openssl(*words: str, text: str | None = None) -> str:
    done = subprocess.run(
        ["openssl", *words], input=text, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_a_server_gets_tls(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """enable-server: a key of its own, a certificate for the host, and main.cf names both; once."""
    tls(here, "all-default-server")
    tls(here, "enable-server", "-a", "ecdsa", "mx.example.org", "mail.example.org")
    assert "Enabled opportunistic TLS in the Postfix SMTP server" in capsys.readouterr().err
    key, certificate = value(here, "smtpd_tls_key_file"), value(here, "smtpd_tls_cert_file")
    assert os.stat(key).st_mode & 0o777 == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    shown = openssl("x509", "-in", certificate, "-noout", "-text")
    assert "DNS:mx.example.org, DNS:mail.example.org" in shown and "CA:FALSE" in shown
    assert value(here, "smtpd_tls_security_level") == "may"
    text = (here / "main.cf").read_text()
    tls(here, "enable-server")
    tls(here, "all-default-server", status=1)
    assert "no changes made" in capsys.readouterr().err and (here / "main.cf").read_text() == text


def test_a_client_gets_tls(here: Path) -> None:
    """enable-client."""
    tls(here, "all-default-client")
    tls(here, "enable-client")
    assert value(here, "smtp_tls_security_level") == "may"
    tls(here, "all-default-client", status=1)


def test_a_new_key_is_deployed_when_it_is_wanted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """new-server-key changes nothing; deploy-server-cert does, where both belong together."""
    tls(here, "new-server-key")
    said = capsys.readouterr().err
    found = re.search(r"deploy-server-cert (\S+) (\S+)", said)
    assert found is not None and (here / "main.cf").read_text() == "myhostname = mx.example.org\n"
    tls(here, "new-server-key", "-a", "ecdsa", "-b", "secp384r1")
    other = re.search(r"deploy-server-cert (\S+) (\S+)", capsys.readouterr().err)
    assert other is not None
    tls(here, "deploy-server-cert", found[1], other[2], status=1)
    assert "does not match key" in capsys.readouterr().err
    tls(here, "deploy-server-cert", os.path.basename(found[1]), found[2])
    assert value(here, "smtpd_tls_key_file") == found[2]
    tls(here, "deploy-server-cert", other[1], other[2])
    assert value(here, "smtpd_tls_eckey_file") == other[2]
    tls(here, "output-server-tlsa")
    der = openssl("pkey", "-in", found[2], "-pubout")
    records = capsys.readouterr().out.splitlines()
    assert len(records) == 2 and all(
        each.startswith("_25._tcp.mx.example.org. IN TLSA 3 1 1 ") for each in records
    )
    (here / "pub").write_text(der)
    digest = subprocess.run(
        "openssl pkey -pubin -in pub -outform DER | sha256sum",
        shell=True, cwd=here, capture_output=True, text=True, check=True,
    ).stdout.split()[0]  # fmt: skip
    assert records[0].endswith(digest)
    tls(here, "output-server-csr", "-k", found[2], "x.example.org")
    request = capsys.readouterr().out
    assert "DNS:x.example.org" in openssl("req", "-noout", "-text", "-verify", text=request)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nonsense"], "usage: postfix tls command"),
        (["new-server-key", "-a", "dsa"], "Unsupported private key algorithm: dsa"),
        (["new-server-key", "-b", "512"], "write a number of bits"),
        (["new-server-key", "-Z"], "usage: postfix tls new-server-key"),
        (["deploy-server-cert", "a"], "usage: postfix tls deploy-server-cert"),
        (["deploy-server-cert", "a", "b"], "No such file or directory"),
        (["deploy-server-cert", "main.cf", "main.cf"], "no private key found in file"),
        (["output-server-csr"], "no private key in use"),
    ],
)
def test_fatal(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str) -> None:
    """1, a line that says why, and no file."""
    tls(here, *words, status=1)
    error = capsys.readouterr().err
    assert error.startswith("postfix/postfix-tls-script: fatal: ") and problem in error
    assert sorted(os.listdir(here)) == ["main.cf", "master.cf"]


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """With an example."""
    assert postfix.main(["tls", "--help"]) == 0
    assert "example:" in capsys.readouterr().out
