"""postlog(1) and postlock(1)."""

from __future__ import annotations

import fcntl
import io
import os
import re
import sys
from pathlib import Path

import pytest

from mailserver.commands import postlock, postlog


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a log of its own."""
    (tmp_path / "main.cf").write_text(
        "myhostname = mx.example.org\nmaillog_file = $config_directory/log\ndeliver_lock_attempts = 1\n"
    )
    (tmp_path / "master.cf").write_text("")
    monkeypatch.setenv("MAIL_CONFIG", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def logged(here: Path) -> list[str]:
    """The lines without their times and process ids."""
    lines = (here / "log").read_text().splitlines()
    return [re.sub(r"^\S+ +\d+ \S+ (.*)\[\d+\]", r"\1", line) for line in lines]


def test_lines(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are one record, lines of standard input one each; tags and priorities as Postfix writes them."""
    assert postlog.main(["hello", "world"]) == 0
    assert postlog.main(["-p", "warn", "-t", "backup", "old"]) == 0
    assert postlog.main(["-i", "-t", "postfix/script", "x"]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nb\x1b\n"))
    assert postlog.main(["-p", "error"]) == 0
    assert logged(here) == [
        "mx postfix/postlog: hello world",
        "mx backup: warning: old",
        "mx postfix/script: x",
        "mx postfix/postlog: error: a",
        "mx postfix/postlog: error: b?",
    ]


@pytest.mark.parametrize("arguments", [["-p", "loud", "x"], ["-Z"], ["-c", "/absent", "x"]])
def test_postlog_fails_with_1(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Said, and nothing is logged."""
    assert postlog.main(arguments) == 1
    assert "postlog: fatal: " in capsys.readouterr().err and not (here / "log").exists()


def test_a_command_under_the_lock(here: Path) -> None:
    """Both locks are there while it runs, and gone then; its status is ours."""
    assert postlock.main(["box", "sh", "-c", "exit 3"]) == 3
    probe = (
        "import fcntl, os, sys\n"
        "try: fcntl.lockf(os.open('box', os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError: sys.exit(7 if os.path.exists('box.lock') else 8)\n"
    )
    assert postlock.main(["box", sys.executable, "-c", probe]) == 7
    assert postlock.main(["box", "true"]) == 0 and postlock.main(["box", "/nonexistent"]) == 1
    assert postlock.main(["box", "sh", "-c", "kill -9 $$"]) == 1
    assert sorted(os.listdir(here)) == ["box", "main.cf", "master.cf"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "usage: postlock"),
        (["box"], "usage: postlock"),
        (["-Z", "box", "true"], "usage: postlock"),
        (["-l", "wish", "box", "true"], "unknown mailbox_delivery_lock value"),
        (["/absent/box", "true"], "open file /absent/box"),
    ],
)
def test_postlock_fails_with_75(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    """For the caller to try again."""
    assert postlock.main(arguments) == 75
    assert f"postlock: fatal: {problem}" in capsys.readouterr().err


def test_a_lock_that_somebody_holds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command does not run."""
    Path("box").write_bytes(b"")
    holder = os.fork()
    if holder == 0:
        descriptor = os.open("box", os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        Path("ready").touch()
        os.read(os.pipe()[0], 1)
        os._exit(0)
    try:
        while not Path("ready").exists():
            os.sched_yield()
        assert postlock.main(["box", "touch", "ran"]) == 75
        assert not Path("ran").exists() and "open file box" in capsys.readouterr().err
    finally:
        os.kill(holder, 9)
        os.waitpid(holder, 0)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """With examples."""
    assert postlog.main(["--help"]) == 0 and postlock.main(["--help"]) == 0
    assert capsys.readouterr().out.count("example:") == 2
