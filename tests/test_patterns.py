"""No pattern repeats a group possessively: Debian 12's Python 3.11.2 matches that wrongly.

There, `(?:a[^b]*+b)*+` matches the beginning of an iteration that then fails: a broken header line
was taken as a part of the header. `(?>(?:...)*)` says the same and is right everywhere; single
characters and classes (`[^b]*+`) are safe.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import mailserver

POSSESSIVE_GROUP = re.compile(r"(?<!\\)\)(?:[*+?]|\{[\d,]+\})\+")


def test_no_group_is_repeated_possessively() -> None:
    """CPython gh-106052."""
    for path in Path(mailserver.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                assert not POSSESSIVE_GROUP.search(text), f"{path}:{node.lineno}: {text}"


def test_the_way_of_writing_it_is_right() -> None:
    """What a broken header line does to the two nested repetitions of a header."""
    header = re.compile(rb"(?>(?:[!-9;-~]++[ \t]*+:[^\n]*+\n(?>(?:[ \t][^\n]*+\n)*))*)")
    match = header.match(b"A: b\n c\nbroken off\nC: d\n")
    assert match is not None and match.group() == b"A: b\n c\n"
