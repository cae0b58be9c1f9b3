"""Rehash on login: what becomes of weak passwords in a passwd-file, and what never does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.accounts import hashing, passwd_file_edit
from mailserver.accounts.check import SourcePasswordCheck
from mailserver.accounts.directory import SourceDirectory
from mailserver.accounts.hashing import is_weak
from mailserver.accounts.passwd_file_edit import EditError
from mailserver.accounts.rehash import Rehash
from tests.accounts.sample import stored, write_users
from tests.accounts.test_scram import DOVECOTS, Scene

SHA1 = "{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs="  # of 123456
REST = "::::/home/alice::userdb_mail=maildir:~/Maildir allow_nets=10.0.0.0/8"


class House:
    """A passwd-file whose weak passwords are stored anew."""

    def __init__(self, directory: Path, *lines: str) -> None:
        self.path, self.warnings, self.lines = directory / "users", [], []  # type: tuple[Path, list[str], list[str]]
        self.check = SourcePasswordCheck(SourceDirectory([write_users(self.path, *lines)]))
        self.check.after_login.append(Rehash(self.warnings.append, self.lines.append))

    def stored(self, line: int = 0) -> str:
        """The password field of a line."""
        return self.path.read_text().splitlines()[line].split(":")[1]


@pytest.mark.parametrize("spelled", ["alice", "ALICE"])
def test_a_weak_password_becomes_a_strong_one(tmp_path: Path, spelled: str) -> None:
    """The rest of the line, the other lines and the mode stay; the password is the same."""
    house = House(tmp_path, "# users", f"{spelled}:{SHA1}{REST}", f"bob:{SHA1}")
    house.path.chmod(0o640)
    assert house.check.verify("alice", b"wrong") is None and house.stored(1) == SHA1
    assert house.check.verify("alice", b"123456")
    assert house.stored(1).startswith("{SHA512-CRYPT}$6$") and house.stored(2) == SHA1
    text = house.path.read_text()
    assert text.startswith(f"# users\n{spelled}:") and f"{REST}\n" in text
    assert house.path.stat().st_mode & 0o777 == 0o640
    assert house.check.verify("alice", b"123456") and house.check.verify("alice", b"wrong") is None
    assert house.lines == [f"Info: alice: password stored anew in {house.path}"] and not house.warnings


@pytest.mark.parametrize(
    ("text", "password"), [(stored("x"), b"x"), (DOVECOTS, b"secret"), (stored("x").partition("}")[2], b"x")]
)
def test_others_are_left_alone(tmp_path: Path, text: str, password: bytes) -> None:
    """Strong ones, and those that SCRAM needs."""
    house = House(tmp_path, f"alice:{text}")
    assert house.check.verify("alice", password) and house.stored() == text


@pytest.mark.parametrize(
    ("text", "weak"),
    [
        ("{PLAIN}x", True), ("{plain.b64}eA==", True), ("{SSHA512}x", True), ("{PBKDF2}$1$a$1$b", True),
        ("$1$a$b", True), ("{CRYPT}$1$a$b", True), ("{MD5}$1$a$b", True), ("abXXXXXXXXXXX", True),
        ("{CRYPT}_J9..", True), ("{MD5-CRYPT}$1$", True), ("$apr1$x", True),
        ("$6$a$b", False), ("{CRYPT}$y$j9T$a$b", False), ("{BLF-CRYPT}$2y$05$x", False), ("$7$x", False),
        ("{ARGON2ID}$argon2id$", False), ("{SCRAM-SHA-1}x", False), ("{CRAM-MD5}x", False), ("{OTP}x", False),
    ],
)  # fmt: skip
def test_which_are_weak(text: str, weak: bool) -> None:
    """A fixed list; keys of other mechanisms are nobody's to change."""
    assert is_weak(text) == weak


def test_a_file_without_write_bits_is_not_written(tmp_path: Path) -> None:
    """Not even by root, whom the bits do not stop."""
    house = House(tmp_path, f"alice:{SHA1}")
    house.path.chmod(0o444)
    assert house.check.verify("alice", b"123456") and house.stored() == SHA1
    assert not house.warnings


def test_what_cannot_be_written_costs_no_login_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: a read-only file system, say."""
    house = House(tmp_path, f"alice:{SHA1}", f"bob:{SHA1}")

    def refuse(*arguments: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(os, "rename", refuse)
    assert house.check.verify("alice", b"123456") and house.check.verify("bob", b"123456")
    assert len(house.warnings) == 1 and "Read-only file system" in house.warnings[0]
    assert house.stored() == SHA1 and [path.name for path in tmp_path.iterdir()] == ["users"]


def test_a_change_meanwhile_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mailserver user passwd`, between the check and the edit."""
    house = House(tmp_path, f"alice:{SHA1}")
    newer = stored("newer")
    real = hashing.hash_password

    def hash_slowly(password: bytes) -> str:
        passwd_file_edit.set_password(str(house.path), "alice", newer)
        return real(password)

    monkeypatch.setattr(hashing, "hash_password", hash_slowly)
    assert house.check.verify("alice", b"123456")
    assert house.stored() == newer and not house.warnings


def test_a_file_that_is_gone_is_not_made(tmp_path: Path) -> None:
    """An empty one would tell everybody that there are no users."""
    path = tmp_path / "users"
    with pytest.raises(OSError):
        passwd_file_edit.replace_password(str(path), "alice", SHA1, "x")
    assert not path.exists()
    path.write_text("bob:x\n")
    for name in ("alice", "bob"):
        with pytest.raises(EditError):
            passwd_file_edit.replace_password(str(path), name, SHA1, "y")


def test_scram_is_enrolled_for_what_is_stored_then(tmp_path: Path) -> None:
    """Otherwise the verifier would be dropped with the old hash, and SCRAM fail until the next password."""
    scene = Scene(tmp_path, f"alice:{SHA1}")
    scene.check.after_login.insert(0, Rehash(scene.warnings.append, scene.warnings.append))
    assert scene.check.verify("alice", b"123456")
    assert scene.proves("alice", "123456")
