"""Manual pages and completion are rendered from the commands, and roff and bash take them."""

from __future__ import annotations

import re
import subprocess

import pytest

from mailserver.commands import completion, manual
from mailserver.commands.main import SUBCOMMANDS
from mailserver.config.declaration import Kind
from mailserver.config.parameters import PARAMETERS


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return dict(manual.pages())


def test_every_command_has_a_page(pages: dict[str, str]) -> None:
    """Postfix's in section 1, ours in 8, the parameters in 5."""
    assert {f"man8/mailserver-{name}.8" for name in SUBCOMMANDS} <= pages.keys()
    assert {f"man1/{name}.1" for name in (*manual.COMMANDS, "mailq", "newaliases")} <= pages.keys()
    for name, text in pages.items():
        if not text.startswith(".so "):
            assert re.search(r"^\.SH NAME\n\S+ \\- \S", text, re.MULTILINE), name


def test_the_options_are_those_of_help(pages: dict[str, str]) -> None:
    """A page cannot fall behind --help: it is made of it."""
    assert r"\-q KEY" in pages["man1/postmap.1"]
    assert r"\-\-client IP" in pages["man8/mailserver-explain.8"]


def test_every_honoured_parameter_is_described(pages: dict[str, str]) -> None:
    """postconf(5)."""
    found = re.findall(r"^\.TP\n\.B (\S+)", pages["man5/postconf.5"], re.MULTILINE)
    described = {name for name in found if not name.startswith("lmtp_")}
    honoured = {
        name
        for name, parameter in PARAMETERS.items()
        if parameter.kind is Kind.HONOURED and not name.startswith("lmtp_")
    }
    assert described == honoured


def test_no_line_is_taken_for_a_request(pages: dict[str, str]) -> None:
    """roff: what begins with a dot is a request, what begins with an apostrophe too."""
    known = {"TH", "SH", "PP", "TP", "B", "nf", "fi", "so"}
    for name, text in pages.items():
        for line in text.splitlines():
            assert not line.startswith("'"), name
            assert not line.startswith(".") or line[1:].split()[0] in known, (name, line)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["doc"], "doctor"),
        (["-c", "/etc/x", "user", "ad"], "add"),
        (["firewall", "--int"], "--interface"),
    ],
)
def test_bash_completes(typed: list[str], expected: str) -> None:
    """Subcommands and options, behind -c DIR too."""
    words = " ".join(["mailserver", *typed])
    typing = f"COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _mailserver; echo ${{COMPREPLY[*]}}"
    program = f"{completion.script()}\n{typing}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{expected}\n", done.stderr
