"""One machine for all tests here; `shown` has gone through the tutorial on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.machine import Machine
from tests.seed.tutorial import PATH, Exchange, exchanges, new_machine, perform


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    started = new_machine(tmp_path_factory.mktemp("machine"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def shown(machine: Machine) -> list[tuple[Exchange, str]]:
    """Every command of the tutorial with what it showed; the machine is as it was left."""
    lines = PATH.read_text("utf-8").splitlines()
    return [(exchange, perform(machine, exchange)) for exchange in exchanges(lines)]
