"""What the whole suite shares: leaving out, and saying so, what this machine cannot run.

A test names what it needs: `@pytest.mark.needs("mutt")`, `@pytest.mark.needs("root")`. Where that is
missing the test is left out and the last lines of the run say so; under CI it fails instead.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

# Dates are the same wherever the tests run.
os.environ["TZ"] = "UTC"
time.tzset()

# Under CI the same examples each time: a new one must not turn a change red that it has nothing to do with.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("usual", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "usual")

LEFT_OUT: dict[str, int] = {}
SERVERS_RUN_IN = {"differential", "end_to_end", "faults", "hostile", "seed"}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): left out where a program, or root, is missing")


def _takes_long(item: pytest.Item) -> bool:
    """It starts servers: such files come first, so that none is left to one process at the end."""
    return not SERVERS_RUN_IN.isdisjoint(item.path.parts)


def _is_there(need: str) -> bool:
    if need == "root":
        return os.geteuid() == 0
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return shutil.which(need, path=path) is not None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _is_one_of_several(config):
        items.sort(key=_takes_long, reverse=True)
    if os.environ.get("CI"):
        return
    kept = []
    for item in items:
        needs = [need for mark in item.iter_markers("needs") for need in mark.args]
        missing = [need for need in needs if not _is_there(need)]
        if missing:
            for need in missing:
                LEFT_OUT[need] = LEFT_OUT.get(need, 0) + 1
        else:
            kept.append(item)
    if len(kept) != len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _is_one_of_several(config: pytest.Config) -> bool:
    """This process was started by `pytest --numprocesses` to run a part of the tests."""
    return hasattr(config, "workeroutput")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _is_one_of_several(session.config):
        session.config.workeroutput["left_out"] = LEFT_OUT


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    LEFT_OUT.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for need, count in sorted(LEFT_OUT.items()):
        remedy = "run as root" if need == "root" else "`make clients` installs it"
        terminalreporter.write_line(f"left out: {count} tests that need {need} ({remedy})")


@pytest.fixture
def umask() -> Iterator[None]:
    """The usual umask, whatever the caller's is."""
    old = os.umask(0o022)
    yield
    os.umask(old)
