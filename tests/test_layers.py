"""Imports point down only: the tree is the architecture."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import mailserver

ROOT = Path(mailserver.__file__).parent

# From the bottom up; the parts of one row may import each other only where SIBLINGS says so.
LAYERS = [
    {"envelope", "wire", "message"},
    {
        "rights",
        "threads",
        "maillog",
        "tls",
        "client_certificates",
        "dns",
        "dnssec",
        "prompt",
        "prompt_tls",
        "descriptors",
        "durable",
        "open_sessions",
        "rawlog",
        "secret_files",
        "service_endpoint",
    },
    {"accounts", "tables", "store", "milter"},
    {"delivery", "guests"},
    {"queue"},
    {"smtpd", "pop3d", "imapd", "authd"},
    {"config"},
    {"tap", "roles", "commands"},
]
SIBLINGS = {
    ("wire", "envelope"),
    ("message", "wire"),
    ("store", "accounts"),
    ("accounts", "tables"),
    ("rights", "threads"),
    ("rights", "maillog"),
    ("rawlog", "maillog"),
    ("dnssec", "dns"),
    ("prompt", "prompt_tls"),
    ("client_certificates", "tls"),
    ("client_certificates", "secret_files"),
    ("tls", "secret_files"),
    ("commands", "tap"),
    ("tap", "roles"),
    ("roles", "tap"),
    ("commands", "roles"),
}
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}
READ_CONFIG = {"tap", "roles", "commands", "config"}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem != "__init__")


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    """A module imports its own part, lower parts, and the siblings named above."""
    part = part_of(path)
    assert part in HEIGHT, f"{part} has no place in LAYERS"
    for name in imported(path):
        if not name.startswith("mailserver.") or name.count(".") < 1:
            continue
        other = name.split(".")[1]
        if other == part or other not in HEIGHT:
            continue
        if other == "config":
            assert part in READ_CONFIG, f"{path} reads config; only {READ_CONFIG} may"
            continue
        below = HEIGHT[other] < HEIGHT[part]
        assert below or (part, other) in SIBLINGS, f"{path} imports {name}, which lies above or beside it"


@pytest.mark.parametrize("part", ["wire", "message"])
def test_the_bottom_touches_nothing(part: str) -> None:
    """wire and message import neither Twisted nor os: they are grammars on bytes."""
    for path in (ROOT / part).rglob("*.py"):
        for name in imported(path):
            assert name.split(".")[0] not in {"twisted", "os", "socket", "time", "pathlib"}, (path, name)


def test_no_module_uses_the_global_reactor() -> None:
    """Only the wiring takes Twisted's global reactor; everything else is given one."""
    for path in modules():
        if part_of(path) in {"tap", "roles", "commands"}:
            continue
        assert "twisted.internet.reactor" not in imported(path), path
