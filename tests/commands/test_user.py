"""`mailserver user` on a real passwd-file."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import pytest

from mailserver.accounts.hashing import verify
from mailserver.accounts.scram import make_verifier, read_verifier
from mailserver.commands import user
from mailserver.commands.errors import CommandError


def run(path: Path, *words: str) -> int:
    """The command line on that file."""
    parser = argparse.ArgumentParser()
    user.register(parser.add_subparsers(dest="subcommand"))
    return user.run_on(parser.parse_args(["user", *words]), str(path))


@pytest.fixture
def type_password(monkeypatch: pytest.MonkeyPatch) -> object:
    """Gives standard input a line."""

    def give(line: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(line)))

    return give


def test_add_passwd_list_delete(tmp_path: Path, type_password, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    """The whole life of an account; nothing shows a hash."""
    path = tmp_path / "users"
    type_password(b"first\n")
    assert run(path, "add", "Carol", "--password-stdin", "--home", "/home/carol") == 0
    assert verify(path.read_text().split(":")[1], b"first")
    type_password(b"second\r\n")
    assert run(path, "passwd", "carol", "--password-stdin") == 0
    assert verify(path.read_text().split(":")[1], b"second")
    capsys.readouterr()
    assert run(path, "list") == 0
    assert capsys.readouterr().out.split() == ["carol", "SHA512-CRYPT", "/home/carol"]
    assert run(path, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "carol", "home": "/home/carol", "password": "SHA512-CRYPT"}
    ]
    assert run(path, "delete", "CAROL") == 0
    assert path.read_text() == ""


def test_the_password_is_asked_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a typing error changes nothing."""
    answers = iter(["one", "one", "two", "too"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    run(tmp_path / "users", "add", "carol")
    before = (tmp_path / "users").read_text()
    with pytest.raises(CommandError, match="differ"):
        run(tmp_path / "users", "passwd", "carol")
    assert (tmp_path / "users").read_text() == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["delete", "nobody-here"], "no account"),
        (["passwd", "nobody-here", "--password-stdin"], "no account"),
        (["add", "a b", "--password-stdin"], "cannot be a login name"),
        (["add", "alice", "--password-stdin"], "already"),
        (["add", "new", "--password-stdin"], "empty"),
    ],
)
def test_errors_say_what_and_where(tmp_path: Path, type_password, words: list[str], text: str) -> None:  # type: ignore[no-untyped-def]
    """One line, with the file's path or what to do."""
    path = tmp_path / "users"
    path.write_text("alice:{PLAIN}x\n")
    type_password(b"\n")
    with pytest.raises(CommandError, match=text) as caught:
        run(path, *words)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "alice:{PLAIN}x\n"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Listing makes no file."""
    with pytest.raises(CommandError, match="users: No such file"):
        run(tmp_path / "users", "list")


def test_the_configuration_says_which_file(tmp_path: Path, type_password) -> None:  # type: ignore[no-untyped-def]
    """`-c DIR`, and passwd_file in its main.cf."""
    (tmp_path / "main.cf").write_text("passwd_file = $config_directory/people\n")
    parser = argparse.ArgumentParser()
    user.register(parser.add_subparsers(dest="subcommand"))
    arguments = parser.parse_args(["user", "add", "carol", "--password-stdin"])
    arguments.config_directory = str(tmp_path)
    type_password(b"x\n")
    assert arguments.run(arguments) == 0
    assert (tmp_path / "people").read_text().startswith("carol:")


def test_a_scram_verifier_instead_of_a_hash(tmp_path: Path, type_password) -> None:  # type: ignore[no-untyped-def]
    """For auth_mechanisms = scram-sha-256, where no password is ever seen."""
    path = tmp_path / "users"
    type_password(b"secret\n")
    assert run(path, "add", "carol", "--password-stdin", "--scheme", "scram-sha-256") == 0
    verifier = read_verifier(path.read_text().split(":")[1])
    assert verifier is not None and make_verifier(b"secret", verifier.challenge) == verifier
    type_password(b"\xff\n")
    with pytest.raises(CommandError, match="nothing was changed"):
        run(path, "passwd", "carol", "--password-stdin", "--scheme", "SCRAM-SHA-256")
