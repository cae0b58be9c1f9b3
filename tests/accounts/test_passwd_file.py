"""Dovecot's passwd-file: reading, noticing changes, editing."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mailserver.accounts import passwd_file_edit as edit
from mailserver.accounts.account import TemporaryAccountFailure
from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.passwd_file import MailOwner, PasswdFile
from tests.accounts.sample import check_for, stored, write_users


def test_a_full_line(tmp_path: Path) -> None:
    """user:password:uid:gid:gecos:home:shell:extra; colons in extra belong to it."""
    line = "Alice:{PLAIN}x:1001:1002:Alice A:/home/alice:/bin/sh:userdb_mail=maildir:~/M allow_nets=::1/128"
    account = write_users(tmp_path / "users", "# comment", "", line).lookup("ALICE")
    assert account is not None
    assert (account.name, account.uid, account.gid, account.home) == ("alice", 1001, 1002, "/home/alice")
    assert (account.gecos, account.shell, account.mail) == ("Alice A", "/bin/sh", "maildir:~/M")
    assert account.extra == {"allow_nets": "::1/128"}
    assert account.may_login


def test_a_short_line_belongs_to_the_owner(tmp_path: Path) -> None:
    """Missing fields at the end are empty; uid, gid and home come from the one owner."""
    account = write_users(tmp_path / "users", "bob@example.org:{PLAIN}x").lookup("bob@example.org")
    assert account is not None
    assert (account.uid, account.gid, account.home) == (5000, 5001, "/home/vmail/example.org/bob")


def test_the_first_line_of_a_name_counts(tmp_path: Path) -> None:
    """As with Dovecot, a second one is ignored."""
    source = write_users(tmp_path / "users", "a:{PLAIN}1:1:1", "A:{PLAIN}2:2:2", "b:{PLAIN}3")
    assert list(source.names()) == ["a", "b"]
    account = source.lookup("a")
    assert account is not None and account.uid == 1


@pytest.mark.parametrize("password", ["", "*", "!", "!{PLAIN}x", " "])
def test_locked_and_empty_passwords_give_no_login(tmp_path: Path, password: str) -> None:
    """The account still gets mail."""
    source = write_users(tmp_path / "users", f"a:{password}:1:1")
    credential = source.credential("a")
    assert credential is not None and credential.stored == "" and credential.reason
    assert source.stored_passwords() == []


def test_a_bad_line_defers_that_account_only(tmp_path: Path) -> None:
    """P5: nobody is told that the user is unknown; the text names the line."""
    source = write_users(tmp_path / "users", "a:{PLAIN}x:1:1", "b:{PLAIN}x:no-such-user-here:1")
    assert source.lookup("a") is not None
    with pytest.raises(TemporaryAccountFailure, match="users:2"):
        source.lookup("b")


def test_a_file_that_cannot_be_read_is_no_empty_file(tmp_path: Path) -> None:
    """P5: the mail waits."""
    source = write_users(tmp_path / "users", "a:{PLAIN}x:1:1")
    assert source.lookup("a") is not None
    (tmp_path / "users").unlink()
    with pytest.raises(TemporaryAccountFailure, match="No such file"):
        source.lookup("a")


def test_a_change_is_noticed(tmp_path: Path) -> None:
    """Without a restart: an edit replaces the file."""
    source = write_users(tmp_path / "users", "a:{PLAIN}x:1:1")
    assert source.lookup("b") is None
    edit.add(str(tmp_path / "users"), "b", "{PLAIN}y")
    assert source.lookup("b") is not None


def test_edits_keep_comments_order_and_mode(tmp_path: Path) -> None:
    """Only the named line changes."""
    path = tmp_path / "users"
    write_users(path, "# head", "a:{PLAIN}1:1:1:g:/h:/s:k=v", "", "# tail", "b:{PLAIN}2")
    path.chmod(0o640)
    edit.set_password(str(path), "A", "{PLAIN}new")
    edit.add(str(path), "C", "{PLAIN}3", "/home/c")
    edit.remove(str(path), "b")
    assert path.read_text() == "# head\na:{PLAIN}new:1:1:g:/h:/s:k=v\n\n# tail\nc:{PLAIN}3::::/home/c::\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["users"]


def test_a_new_file_is_private(tmp_path: Path) -> None:
    """Hashes are nobody else's business."""
    edit.add(str(tmp_path / "users"), "a", "{PLAIN}x")
    assert (tmp_path / "users").stat().st_mode & 0o777 == 0o600


def test_parallel_edits_lose_nothing(tmp_path: Path) -> None:
    """Each edit sees the one before, although the file is replaced each time."""
    path = str(tmp_path / "users")
    threads = [threading.Thread(target=edit.add, args=(path, f"u{n}", "{PLAIN}x")) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(Path(path).read_text().split()) == sorted(f"u{n}:{{PLAIN}}x::::::" for n in range(20))


@pytest.mark.parametrize("name", ["", "a:b", "a b", "../a", "a\nb", "ä", "#a", "a/b"])
def test_an_impossible_name_is_not_written(tmp_path: Path, name: str) -> None:
    """B23, and no line may be injected."""
    with pytest.raises(edit.EditError):
        edit.add(str(tmp_path / "users"), name, stored("x"))
    with pytest.raises(edit.EditError):
        edit.add(str(tmp_path / "users"), "a", "{PLAIN}x\nroot:{PLAIN}y")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    """And the file stays as it was."""
    path = tmp_path / "users"
    write_users(path, "a:{PLAIN}x")
    before = path.stat().st_ino
    for attempt in (lambda: edit.remove(str(path), "b"), lambda: edit.set_password(str(path), "b", "x")):
        with pytest.raises(edit.EditError, match="no account"):
            attempt()
    with pytest.raises(edit.EditError, match="already"):
        edit.add(str(path), "A", "x")
    assert path.stat().st_ino == before


def test_fields_of_a_prefetched_userdb(tmp_path: Path) -> None:
    """userdb_uid, userdb_gid and userdb_home count where the fields are empty."""
    words = "userdb_uid=7 userdb_gid=8 userdb_home=/x"
    source = write_users(tmp_path / "users", f"a:{{PLAIN}}x::::::{words}", f"b:{{PLAIN}}x:1:2::/h::{words}")
    first, second = source.lookup("a"), source.lookup("b")
    assert first is not None and (first.uid, first.gid, first.home) == (7, 8, "/x")
    assert second is not None and (second.uid, second.gid, second.home) == (1, 2, "/h")


def test_nopassword_needs_an_empty_field(tmp_path: Path) -> None:
    """As Dovecot has it; nologin and allow_nets count."""
    lines = (
        "a:::::::nopassword",
        "b:{PLAIN}x::::::nopassword",
        "c:::::::nopassword nologin",
        "d:!::::::nopassword",
    )
    check = check_for(tmp_path / "users", *lines)
    assert check.verify("a", b"anything") and check.verify("a", b"")
    assert check.verify("b", b"x") and check.verify("b", b"y") is None
    assert check.verify("c", b"x") is None and check.verify("d", b"x") is None


def test_passwords_without_a_scheme(tmp_path: Path) -> None:
    """default_pass_scheme, which is `scheme=` of a dovecot.conf."""
    path = tmp_path / "users"
    path.write_text("a:5ebe2294ecd0e0f08eab7690d2a6ee69\nb:{PLAIN}x\n")
    source = PasswdFile(str(path), MailOwner(1, 1), "", "PLAIN-MD5")
    check = SourcePasswordCheck(SourceDirectory([source]))
    assert check.verify("a", b"secret") and check.verify("b", b"x")
    assert source.stored_passwords()[0].startswith("{PLAIN-MD5}")


def test_a_login_that_is_another_accounts(tmp_path: Path) -> None:
    """`user=`: mail, networks and prohibitions of the account count, and those of the entry."""
    check = check_for(
        tmp_path / "users",
        "alice:{PLAIN}a:1:1::/home/alice::userdb_mail=maildir:~/M",
        "a.l.smith:{PLAIN}b::::::user=Alice allow_nets=10.0.0.0/8",
        "lost:{PLAIN}c::::::user=nobody-here",
        "shut:{PLAIN}d::::::user=barred",
        "barred:{PLAIN}e::::::nologin",
        "self:{PLAIN}f::::::user=self",
    )
    account = check.verify("a.l.smith", b"b")
    assert account is not None and (account.name, account.mail) == ("alice", "maildir:~/M")
    assert account.extra == {"allow_nets": "10.0.0.0/8"}
    assert check.verify("a.l.smith", b"a") is None and check.verify("shut", b"d") is None
    assert check.verify("self", b"f")
    with pytest.raises(TemporaryAccountFailure, match="no such account"):
        check.verify("lost", b"c")
