"""The command line of `mailserver` as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mailserver.commands.main import SUBCOMMANDS, main, parser


def test_one_subcommand_imports_no_other() -> None:
    """Starting light: the server's own modules are not read for a command that needs none of them."""
    seen = (
        "import sys; from mailserver.commands.main import parser; parser(['-c', '/etc', 'firewall']);"
        "print(*(name for name in sys.modules if name.startswith(('twisted', 'mailserver.store'))))"
    )
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Alone, and behind -c DIR."""
    for words in ([name, "--help"], ["-c", "/nowhere", name, "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        shown = capsys.readouterr().out
        assert caught.value.code == 0 and f"usage: mailserver {name}" in shown and "example" in shown


def test_without_a_subcommand_all_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """So is the whole list for a word that is none."""
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert all(f"\n    {name}" in shown for name in SUBCOMMANDS)
    with pytest.raises(SystemExit):
        parser(["usr"]).parse_args(["usr"])
    assert "'user'" in capsys.readouterr().err
