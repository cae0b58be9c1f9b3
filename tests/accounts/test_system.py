"""The system's users: passwd, and shadow(5) with its dates."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.passwd_database import PasswdEntry, passwd_entry
from mailserver.accounts.passwd_users import ValidUids
from mailserver.accounts.system import SystemAccounts

DAY = 86_400
USERS = {
    "root": PasswdEntry("root", "x", 0, 0, "root", "/root", "/bin/sh"),
    "daemon": PasswdEntry("daemon", "x", 1, 1, "", "/", "/usr/sbin/nologin"),
    "alice": PasswdEntry("alice", "x", 1001, 1001, "Alice A,,,", "/home/alice", "/bin/sh"),
}


def system(tmp_path: Path, line: str, today: int = 20_000) -> SystemAccounts:
    """Alice's shadow line, on a day since 1970."""
    (tmp_path / "shadow").write_text(f"root:$6$r:1::::::\n{line}\n")
    return SystemAccounts(
        ValidUids(), str(tmp_path / "shadow"), USERS.get, lambda: iter(USERS), lambda: today * DAY + 5.0
    )


@pytest.mark.parametrize(
    ("fields", "may_login"),
    [
        ("$6$x:19000:0:99999:7:::", True),
        ("$6$x::::::", True),
        ("!$6$x:19000:0:99999:7:::", False),
        ("*:19000::::::", False),
        (":19000::::::", False),
        ("$6$x:19000:0:99999:7::20001:", True),
        ("$6$x:19000:0:99999:7::20000:", False),
        ("$6$x:0:0:99999:7:::", False),
        ("$6$x:19000:0:1000:7:::", True),
        ("$6$x:19000:0:999:7:::", False),
        ("$6$x:19000:0:999:7:5::", True),
        ("$6$x:19000:0:900:7:5::", False),
        ("$6$x:19\x1f:²:0x9:7:5:" + "9" * 5000 + ":", True),
    ],
)
def test_shadow_decides_who_may_log_in(tmp_path: Path, fields: str, may_login: bool) -> None:
    """Locked, empty, expired account, password to be changed, password past its age. shadow(5)."""
    credential = system(tmp_path, f"alice:{fields}").credential("Alice")
    assert credential is not None
    assert bool(credential.stored) is may_login, credential.reason
    assert "$6$x" not in repr(credential)


def test_without_a_shadow_line_nobody_logs_in(tmp_path: Path) -> None:
    """The account still gets mail."""
    found = system(tmp_path, "bob:$6$x:1:::::")
    credential = found.credential("alice")
    assert credential is not None and not credential.stored
    account = found.lookup("alice")
    assert account is not None and account.gecos == "Alice A"


@pytest.mark.parametrize("name", ["root", "daemon"])
def test_root_and_system_accounts_get_mail_but_no_login(tmp_path: Path, name: str) -> None:
    """first_valid_uid; root never, whatever it says."""
    found = system(tmp_path, f"{name}:$6$x:19000:::::")
    account, credential = found.lookup(name), found.credential(name)
    assert account is not None and not account.may_login
    assert credential is not None and not credential.stored
    assert not SystemAccounts(ValidUids(0), find=USERS.get).lookup("root").may_login  # type: ignore[union-attr]


def test_an_unreadable_shadow_is_temporary(tmp_path: Path) -> None:
    """P5; and who exists is still known."""
    found = system(tmp_path, "alice:x")
    (tmp_path / "shadow").unlink()
    assert found.lookup("alice") is not None
    with pytest.raises(TemporaryAccountFailure, match="shadow"):
        found.credential("alice")


def test_a_name_service_that_fails_is_temporary(tmp_path: Path) -> None:
    """P5: LDAP down is not "user unknown"."""

    def fails(name: str) -> PasswdEntry | None:
        raise TemporaryAccountFailure("down")

    with pytest.raises(TemporaryAccountFailure):
        SystemAccounts(ValidUids(), find=fails).lookup("alice")


def test_the_real_name_service_answers() -> None:
    """getpwnam_r(3) agrees with Python's pwd, and a missing user is None."""
    for entry in pwd.getpwall():
        found = passwd_entry(entry.pw_name)
        assert found is not None
        assert (found.uid, found.gid, found.home) == (entry.pw_uid, entry.pw_gid, entry.pw_dir)
    assert passwd_entry("no-such-user-here") is None
    assert passwd_entry("a\0b") is None
