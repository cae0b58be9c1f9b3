"""Which client certificates are good. RFC 5280 §6; Dovecot's ssl_ca, ssl_require_crl."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailserver.client_certificates import (
    Authorities,
    Trust,
    der,
    describe,
    name_field,
    subject_name,
)
from mailserver.tls import CertificateError
from tests.client_authority import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def trust(authority: Authority, **more: object) -> Trust:
    return Trust(Authorities(str(authority.file), **more))  # type: ignore[arg-type]


def test_signed_by_the_authority(authority: Authority, tmp_path: Path) -> None:
    """Its own clients are good; those of an authority of the same name are not, and nobody is without one."""
    own, _ = authority.issue("alice")
    foreign, _ = Authority(tmp_path / "other").issue("alice")
    assert trust(authority).is_good([der(own)])
    assert not trust(authority).is_good([der(foreign)])
    assert not Trust(Authorities("")).is_good([der(own)])
    assert not trust(authority).is_good([b"no certificate"])


def test_time_and_use(authority: Authority) -> None:
    """RFC 5280 §4.1.2.5, §4.2.1.12: neither an expired one nor a server's."""
    expired, _ = authority.issue("alice", days=-1)
    servers, _ = authority.issue("alice", uses=(ExtendedKeyUsageOID.SERVER_AUTH,))
    assert not trust(authority).is_good([der(expired)])
    assert not trust(authority).is_good([der(servers)])


def test_an_authority_in_between(authority: Authority, tmp_path: Path) -> None:
    """What the client shows besides leads the way; smtpd_tls_ccert_verifydepth counts the authorities."""
    between = Authority(tmp_path / "between", "Between", authority)
    own, _ = between.issue("alice")
    chain = [der(own), der(between.certificate)]
    assert trust(authority).is_good(chain)
    assert not trust(authority).is_good(chain[:1])
    assert not trust(authority, depth=1).is_good(chain)
    assert not trust(authority, needs_crl=True).is_good(chain), "no list of the one in between"


def test_revocation(authority: Authority) -> None:
    """A list that revokes counts as soon as it is in the file; without one ssl_require_crl trusts nobody."""
    own, _ = authority.issue("alice")
    judge = trust(authority, needs_crl=True)
    assert judge.is_good([der(own)])
    authority.revoke(own)
    os.utime(authority.file, ns=(1, 1))
    assert not judge.is_good([der(own)])
    authority.file.write_bytes(authority.file.read_bytes().partition(b"-----BEGIN X509 CRL")[0])
    assert not trust(authority, needs_crl=True).is_good([der(own)])
    assert trust(authority).is_good([der(own)])


def test_a_file_that_is_bad_later(authority: Authority) -> None:
    """At the start it is an error that names the file; later the old authorities stay in use."""
    own, _ = authority.issue("alice")
    judge = trust(authority)
    authority.file.write_text("no certificate")
    assert judge.is_good([der(own)])
    with pytest.raises(CertificateError, match=r"authority\.pem"):
        trust(authority)


def test_names_and_prints(authority: Authority) -> None:
    """Prints are as `openssl x509 -fingerprint` and `openssl pkey -pubout -outform DER` have them."""
    own, _ = authority.issue("alice")
    found = describe(der(own))
    assert (found.subject, found.issuer) == ("alice", "Test Authority")
    assert len(found.fingerprint) == 32 * 3 - 1
    assert found.fingerprint != found.public_key_fingerprint
    assert len(describe(der(own), "sha1").fingerprint) == 20 * 3 - 1
    assert subject_name(der(own), name_field("commonName")) == "alice"
    assert subject_name(der(own), name_field("emailAddress")) == ""
    with pytest.raises(ValueError, match="commonName"):
        name_field("favouriteColour")
