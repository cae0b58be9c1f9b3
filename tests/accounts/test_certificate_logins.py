"""What the judge of logins takes from a certificate, whatever the front says. RFC 4422 Appendix A."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mailserver.accounts.account import Account
from mailserver.accounts.certificate_logins import CertificateLogins, Shown
from mailserver.accounts.login import EXTERNAL, Attempt, Peer
from mailserver.accounts.throttle import Throttle
from mailserver.accounts.verdict import Judge
from mailserver.client_certificates import Authorities, Trust, der, name_field
from mailserver.maillog import ListLog
from tests.accounts.sample import check_for
from tests.client_authority import Authority

PEER = Peer("192.0.2.1", 1, "192.0.2.2", 993, True, True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def rules(authority: Authority, *, is_required: bool = False) -> CertificateLogins:
    return CertificateLogins(
        Trust(Authorities(str(authority.file))), name_field("cn"), gives_name=True, is_required=is_required
    )


def judged(
    path: Path, certificates: CertificateLogins | None, attempt: Attempt, alice: str = "{PLAIN}secret"
) -> str:
    """The name of the account that the attempt opens, "" for none."""
    check = check_for(path, f"alice:{alice}:::", "bob:{PLAIN}hidden:::")
    judge = Judge(check, Throttle(time.monotonic), ListLog(), None, certificates)
    answer = judge.judge(attempt).answer
    return answer.name if isinstance(answer, Account) else ""


def external(name: str, *chain: bytes) -> Attempt:
    return Attempt("imap", EXTERNAL, name, b"", PEER, "x", certificates=chain)


def test_the_judge_looks_itself(authority: Authority, tmp_path: Path) -> None:
    """A name without a good certificate of that name opens nothing."""
    alice, stranger = der(authority.issue("alice")[0]), der(Authority(tmp_path / "x").issue("bob")[0])
    know = rules(authority)
    assert judged(tmp_path / "users", know, external("", alice)) == "alice"
    assert judged(tmp_path / "users", know, external("alice", alice)) == "alice"
    assert judged(tmp_path / "users", know, external("bob", alice)) == ""
    assert judged(tmp_path / "users", know, external("bob", stranger)) == ""
    assert judged(tmp_path / "users", know, external("bob")) == ""
    assert judged(tmp_path / "users", None, external("alice", alice)) == ""


def test_a_locked_account(authority: Authority, tmp_path: Path) -> None:
    """A certificate opens no account that is locked, but one that never had a password."""
    chain = der(authority.issue("alice")[0])
    assert judged(tmp_path / "users", rules(authority), external("", chain), alice="!{PLAIN}secret") == ""
    assert judged(tmp_path / "users", rules(authority), external("", chain), alice="*") == "alice"


def test_passwords(authority: Authority, tmp_path: Path) -> None:
    """The certificate names the account, and where it is required there is no login without."""
    bob = der(authority.issue("bob")[0])

    def by_password(name: str, password: bytes, *chain: bytes) -> Attempt:
        return Attempt("pop3", "PLAIN", name, password, PEER, "x", certificates=chain)

    users = tmp_path / "users"
    assert judged(users, rules(authority), by_password("alice", b"hidden", bob)) == "bob"
    assert judged(users, rules(authority), by_password("alice", b"secret", bob)) == ""
    assert judged(users, rules(authority), by_password("alice", b"secret")) == "alice"
    assert judged(users, rules(authority, is_required=True), by_password("alice", b"secret")) == ""


def test_what_a_client_showed(authority: Authority) -> None:
    """Nothing until the handshake is done; without rules never."""
    chain: list[bytes] = []
    shown = Shown(rules(authority), lambda: tuple(chain))
    assert (shown.chain, shown.name) == ((), "")
    chain.append(der(authority.issue("alice")[0]))
    assert shown.name == "alice"
    assert Shown(None, lambda: tuple(chain)).chain == ()
