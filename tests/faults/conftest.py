"""Fault tests: some of each kind in every run, all of them with FAULTS=all (`make faults`).

What is random hangs on one seed, printed at the top; FAULTS_SEED repeats it. The verdicts are
printed as a table at the end.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

SEED = int(os.environ.get("FAULTS_SEED") or time.time_ns() % 10**9)
os.environ["FAULTS_SEED"] = str(SEED)  # xdist's workers take the one that is printed
IS_THOROUGH = os.environ.get("FAULTS") == "all"


def pytest_report_header() -> str:
    return f"faults: {'all' if IS_THOROUGH else 'a sample'}, FAULTS_SEED={SEED}"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The test's own random numbers, the same for the same seed."""
    return random.Random(f"{SEED} {request.node.nodeid}")


@pytest.fixture
def thorough() -> bool:
    """Whether everything is to be tried."""
    return IS_THOROUGH


@pytest.fixture
def verdict(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """Notes a line for the table, which travels with the report: a test may run in another process."""
    yield lambda text: request.node.user_properties.append(("verdict", text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [each for name in ("passed", "failed") for each in terminalreporter.stats.get(name, ())]
    lines = [
        f"{each.nodeid.rpartition('::')[2]:64} {text}"
        for each in reports
        for name, text in each.user_properties
        if name == "verdict"
    ]
    if lines:
        terminalreporter.section(f"faults, seed {SEED}")
        terminalreporter.write("\n".join(lines) + "\n")
