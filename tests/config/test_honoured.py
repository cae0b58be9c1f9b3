"""A parameter is declared honoured when, and only when, the program reads it.

So that nothing which an administrator sets is passed over in silence, and nothing that works is called
unsupported. A change that begins to read a parameter changes its word in `config/declared` too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import mailserver
from mailserver.config.declaration import Kind
from mailserver.config.parameters import PARAMETERS

ROOT = Path(mailserver.__file__).parent
ACCESSORS = {"string", "boolean", "seconds", "octets", "integer", "words", "raw", "where", "is_set", "error"}
CONFIG_ITSELF = {"declared", "declaration.py", "parameters.py", "render.py", "dovecot.py"}


def sources() -> Iterator[Path]:
    for path in ROOT.rglob("*.py"):
        if not (path.is_relative_to(ROOT / "config") and CONFIG_ITSELF & set(path.relative_to(ROOT).parts)):
            yield path


@cache
def trees() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text()) for path in sources())


def texts() -> tuple[set[str], set[str]]:
    """What stands in the program as a text; and as an expression, `f"smtp_{stage}_timeout"`."""
    found: set[str] = set()
    expressions: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
                text = "".join("[a-z_]+" if part is None else re.escape(str(part)) for part in parts)
                if re.search(r"[a-z]_|_[a-z]", text.replace("[a-z_]+", "")):
                    expressions.add(text)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found, expressions


def read_names() -> set[str]:
    """The declared parameters that the program names, or that a default which it reads refers to."""
    exact, expressions = texts()
    expression = re.compile("|".join(expressions))
    names = {name for name in PARAMETERS if name in exact or expression.fullmatch(name)}
    while True:
        mentioned = {
            word
            for name in names
            for word in re.findall(r"\$[{(]*\s*(\w+)", PARAMETERS[name].default)
            if word in PARAMETERS
        }
        if mentioned <= names:
            return names
        names |= mentioned


def test_what_is_honoured_is_read() -> None:
    """An honoured parameter that nobody reads would be ignored in silence."""
    honoured = {name for name, parameter in PARAMETERS.items() if parameter.kind is Kind.HONOURED}
    assert sorted(honoured - read_names()) == []


def test_what_is_read_is_honoured() -> None:
    """A parameter that works is not called unsupported."""
    exact = {name for name in read_exactly() if PARAMETERS[name].kind in (Kind.REFUSED, Kind.HARMLESS)}
    assert sorted(exact) == []


def read_exactly() -> set[str]:
    """The parameters that some accessor of Config is asked for by a text."""
    found: set[str] = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                name = node.args[0]
                if (
                    node.func.attr in ACCESSORS
                    and isinstance(name, ast.Constant)
                    and name.value in PARAMETERS
                ):
                    found.add(str(name.value))
    return found
