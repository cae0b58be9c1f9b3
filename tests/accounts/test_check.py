"""Password checks: names, domains, equal cost for unknown users, the memory of good logins."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.accounts import check as check_module
from mailserver.accounts import hashing
from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.names import login_name, spellings
from tests.accounts.sample import check_for, stored, write_users

HOSTILE_NAMES = [
    "", " ", "a b", "a%b", "a\0b", "a\nb", "..", "../etc/passwd", "a..b", ".a", "-a", "@a", "a@", "a@@b",
    "a@b@c", "a/b", "a\\b", "a*b", "(a)", "a,b", "a;b", "a'b", 'a"b', "a>b", "<a>", "ä", "\u212a", "a:b",
    "#a", "a&b", "a|b", "a=b", "a+b", "a" * 256, "a@" + "b" * 254, "a@-b", "a@b-", "a@b..c", "$a", "!a",
    "~a", "a?b", "\u0131", "\u0430", "a\x7f", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_rejected_not_repaired(tmp_path: Path, name: str) -> None:
    """B23: [a-z0-9._@-] after lower-casing, at most 255 octets."""
    assert login_name(name) is None
    assert check_for(tmp_path / "users", f"a:{stored('x')}").verify(name, b"x") is None


@pytest.mark.parametrize("name", ["alice", "ALICE", "a.b-c_d", "0", "a@example.org", "_x@b"])
def test_ordinary_names_are_lowered(name: str) -> None:
    """Case is no difference."""
    assert login_name(name) == name.lower()


def test_our_domain_may_be_left_out_or_written(tmp_path: Path) -> None:
    """name@mydestination logs in as name; a full entry wins; another domain does not."""
    check = check_for(tmp_path / "users", f"alice:{stored('short')}", f"bob@example.org:{stored('full')}")
    for name in ("alice", "Alice@Example.ORG"):
        account = check.verify(name, b"short")
        assert account is not None and account.name == "alice"
    assert check.verify("alice@example.net", b"short") is None
    account = check.verify("bob@example.org", b"full")
    assert account is not None and account.name == "bob@example.org"
    assert check.verify("bob", b"full") is None
    assert spellings("a@b", ["c"]) == ("a@b",)


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stored passwords that are hashed against from now on."""
    hashed: list[str] = []
    real = hashing.verify

    def verify(text: str, password: bytes, login: str) -> bool:
        hashed.append(text)
        return real(text, password, login)

    monkeypatch.setattr(check_module.hashing, "verify", verify)
    return hashed


def test_an_unknown_name_costs_one_hash_of_the_same_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B14: unknown, locked, forbidden and impossible names all cost what a wrong password costs."""
    known = stored("x")
    check = check_for(tmp_path / "users", f"alice:{known}", "locked:!", f"barred:{known}::::::nologin")
    hashed = count_hashes(monkeypatch)
    for name in ("alice", "unknown", "locked", "barred", "../x"):
        assert check.verify(name, b"wrong") is None
        assert hashed == [known], name
        hashed.clear()


def test_an_empty_data_base_costs_a_hash_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody to borrow from."""
    hashed = count_hashes(monkeypatch)
    assert check_for(tmp_path / "users").verify("x", b"x") is None
    assert len(hashed) == 1


def test_a_good_login_is_remembered_and_a_bad_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive only, for ten minutes at most."""
    now = [0.0]
    source = write_users(tmp_path / "users", f"alice:{stored('x')}")
    check = SourcePasswordCheck(SourceDirectory([source]), remember=9999, clock=lambda: now[0])
    hashed = count_hashes(monkeypatch)
    assert check.verify("alice", b"x") and check.verify("alice", b"x")
    assert len(hashed) == 1
    assert check.verify("alice", b"y") is None and check.verify("alice", b"y") is None
    assert len(hashed) == 3
    now[0] = 600.0
    assert check.verify("alice", b"x")
    assert len(hashed) == 4


def test_a_changed_password_is_noticed_at_once(tmp_path: Path) -> None:
    """The memory is of (name, password, stored password)."""
    check = check_for(tmp_path / "users", f"alice:{stored('old')}")
    assert check.verify("alice", b"old")
    write_users(tmp_path / "users", f"alice:{stored('new')}", "# longer")
    assert check.verify("alice", b"old") is None
    assert check.verify("alice", b"new")
    write_users(tmp_path / "users", f"alice:!{stored('new')}", "# longer still")
    assert check.verify("alice", b"new") is None


def test_one_users_good_login_is_not_anothers(tmp_path: Path) -> None:
    """CVE-2025-30189: the cache knows whose password it was, even with equal hashes."""
    check = check_for(tmp_path / "users", "alice:{PLAIN}same", "bob:{PLAIN}other")
    assert check.verify("alice", b"same")
    assert check.verify("bob", b"same") is None


def test_what_cannot_be_verified_is_temporary(tmp_path: Path) -> None:
    """P5: an unknown scheme is not a wrong password, and the text holds no secret."""
    check = check_for(tmp_path / "users", "alice:{NO-SUCH}hush")
    with pytest.raises(TemporaryAccountFailure) as caught:
        check.verify("alice", b"x")
    assert "hush" not in str(caught.value)
    (tmp_path / "users").unlink()
    for name in ("alice", "unknown"):
        with pytest.raises(TemporaryAccountFailure):
            check.verify(name, b"x")
