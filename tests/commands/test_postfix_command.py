"""What every command with Postfix's name does alike."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from mailserver.commands import (
    postalias,
    postcat,
    postconf,
    postfix,
    postlock,
    postlog,
    postmap,
    postqueue,
    postsuper,
)
from mailserver.commands.errors import CommandError
from mailserver.commands.postfix_command import PostfixCommand
from mailserver.config.syntax import ConfigError
from mailserver.tables.table import TableError

COMMAND = PostfixCommand("postwork", "usage: postwork [-v] [-c DIR]", "usage: postwork\n", 75, 69)


def raising(problem: BaseException) -> Callable[[list[str]], int]:
    """A command's work that fails."""

    def work(arguments: list[str]) -> int:
        raise problem

    return work


@pytest.mark.parametrize(
    ("problem", "text", "status"),
    [
        (CommandError("no such queue", 3), "no such queue", 3),
        (ConfigError("main.cf:7: no"), "main.cf:7: no", 75),
        (TableError("hash:x: no"), "hash:x: no", 75),
        (OSError(2, "No such file or directory", "/queue"), "/queue: No such file or directory", 75),
        (OSError(28, "No space left on device"), "No space left on device", 75),
        (OSError("lmdb: odd"), "lmdb: odd", 75),
    ],
)
def test_problems(capsys: pytest.CaptureFixture[str], problem: Exception, text: str, status: int) -> None:
    """Each is said in one line behind `fatal: `, no traceback; the status is its own or the command's."""
    assert COMMAND.run(raising(problem), []) == status
    assert capsys.readouterr().err == f"postwork: fatal: {text}\n"


def test_interrupted() -> None:
    """Ctrl-C: the shell's status for SIGINT, and nothing said."""
    assert COMMAND.run(raising(KeyboardInterrupt()), []) == 130


def test_the_works_own_status() -> None:
    """`postmap -q`: 1 where there is nothing, which is no problem."""
    assert COMMAND.run(len, ["a"]) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["-Z"], "invalid option -- 'Z'"), (["-c"], "option requires an argument -- 'c'")],
)
def test_misuse(capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str) -> None:
    """getopt(3)'s words, then the usage."""
    assert COMMAND.run(lambda given: len(COMMAND.options(given, "vc:")), arguments) == 69
    assert capsys.readouterr().err == f"postwork: {problem}\npostwork: fatal: {COMMAND.usage}\n"


@pytest.mark.parametrize(
    "module",
    [postalias, postcat, postconf, postfix, postlock, postlog, postmap, postqueue, postsuper],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
def test_every_command(
    module: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--help shows an example and ends with 0; an option that there is not ends with another status."""
    name = module.__name__.rpartition(".")[2]
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    assert module.main() == 0
    assert "\nexample" in capsys.readouterr().out
    assert module.main(["-?"]) != 0
    assert capsys.readouterr().err.startswith(f"{name}: invalid option -- '?'\n{name}: fatal: usage: {name} ")
