"""`mailserver app-password` on a demo configuration."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from mailserver.accounts.account import Origin
from mailserver.commands import app_password, app_password_access
from mailserver.commands.errors import CommandError
from mailserver.commands.main import main
from mailserver.config.read import read_config
from mailserver.maillog import ListLog
from mailserver.roles.logins import checks
from mailserver.roles.parts import Parts


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A demo's directory, alice among its users."""
    directory = str(tmp_path / "home")
    assert main(["init", directory, "--demo"]) == 0
    capsys.readouterr()
    return directory


def run(home: str, *words: str) -> int:
    """The exit status of the subcommand."""
    return main(["-c", home, "app-password", *words])


def may_log_in(home: str, password: str, service: str) -> bool:
    """What a server that runs beside would say."""
    check, _ = checks(Parts(read_config(home, os.environ), ListLog()))
    return check.verify("alice", password.encode(), Origin(service, "192.0.2.1")) is not None


def test_the_life_of_one(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Added, shown once, used, listed, revoked."""
    assert run(home, "add", "Alice", "phone", "--protocol", "imap,smtp", "--expires", "1y") == 0
    password, said = capsys.readouterr().out.split("\n\n")
    assert "by imap, smtp, until 20" in said
    assert may_log_in(home, password, "imap") and not may_log_in(home, password, "pop3")
    assert run(home, "list", "--json") == 0
    (known,) = json.loads(capsys.readouterr().out)
    assert (known["name"], known["device"], known["protocols"]) == ("alice", "phone", ["imap", "smtp"])
    assert (
        known["last_use_from"] == "imap 192.0.2.1" and 364 < (known["expires"] - time.time()) / 86_400 < 366
    )
    assert run(home, "list") == 0
    listed = capsys.readouterr().out
    assert "phone" in listed and "imap 192.0.2.1" in listed and password not in listed
    assert run(home, "revoke", "alice", "phone") == 0
    assert not may_log_in(home, password, "imap")
    capsys.readouterr()
    assert run(home, "list", "--json") == 0 and json.loads(capsys.readouterr().out) == []


def test_a_deleted_account_leaves_none(home: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever gets the name next does not get its devices."""
    run(home, "add", "alice", "phone", "--json")
    password = json.loads(capsys.readouterr().out)["password"]
    users = Path(home) / "users"
    before = users.read_text()
    assert main(["-c", home, "user", "delete", "alice"]) == 0
    users.write_text(before)
    assert not may_log_in(home, password, "imap")


def test_accounts_that_are_no_users_of_the_system(
    home: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever does not own the data base is told who may do it."""
    monkeypatch.setattr(app_password_access, "_is_anothers", lambda directory: True)
    for words in (["add", "phone"], ["add", "alice", "phone"], ["list"], ["revoke", "--all"]):
        assert run(home, *words) == 77
        assert "no users of the system: only root and " in capsys.readouterr().err


def test_users_of_the_system_need_a_running_server(tmp_path: Path) -> None:
    """Without one the error says what to do."""
    access = app_password_access.OwnAccess(str(tmp_path / "none"))
    with pytest.raises(CommandError, match="the mail system is down") as error:
        access.find(None)
    assert error.value.status == 69


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["add", "phone"], "name USER and DEVICE"),
        (["add", "alice", "phone", "x"], "name USER and DEVICE"),
        (["revoke", "--all"], "name USER"),
        (["add", "nobody-here", "phone"], "no such account"),
        (["add", "alice", "a b"], "no name of a device"),
        (["add", "alice", "x", "--protocol", "imap,ftp"], "write some of imap,pop3,smtp"),
        (["add", "alice", "x", "--protocol", ""], "write some of"),
        (["add", "alice", "x", "--expires", "soon"], "write 30d"),
        (["add", "alice", "x", "--expires", "2020-01-01"], "over already"),
        (["add", "alice", "x", "--expires", "2027-13-01"], "write 30d"),
        (["revoke", "alice"], "--all"),
        (["revoke", "alice", "x", "--all"], "--all"),
        (["revoke", "alice", "x"], "no app password for x"),
        (["revoke", "alice", "--all"], "no app password at all"),
    ],
)
def test_errors_say_what_to_do(
    home: str, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and nothing is made."""
    assert run(home, *words) != 0
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
    assert run(home, "list", "--json") == 0 and json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("text", "days"), [("30d", 30), ("30", 30), ("2w", 14), ("1y", 365), ("10years", 3650)]
)
def test_times(text: str, days: int) -> None:
    """Days where there is no unit."""
    assert app_password._expiry(text, 1000.0) == 1000 + days * 86_400


def test_a_date_lasts_until_its_end() -> None:
    """By the clock of this machine."""
    end = app_password._expiry("2027-12-31", 0.0)
    assert time.localtime(end)[:5] == (2028, 1, 1, 0, 0) and app_password._day(end) == "2027-12-31"
    with pytest.raises(CommandError):
        app_password._expiry("9" * 12 + "y", 0.0)
