"""Nobody reaches another account's data through any command, where each has a host. RELIABILITY B27."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.guests.harness import NeighbourServer
from tests.imapd.test_walk import (
    furnish,
    test_after_the_right_was_taken_back,
    test_rights_that_are_given_reach_no_further,
    test_without_rights,
)

__all__ = [
    "test_after_the_right_was_taken_back",
    "test_rights_that_are_given_reach_no_further",
    "test_without_rights",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NeighbourServer]:
    server = NeighbourServer(tmp_path_factory.mktemp("walk"))
    furnish(server)
    yield server
    assert not server.hosts.log.lines  # no request was malformed
    server.close()
