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


def test_owners_hosts_answer(server: NeighbourServer) -> None:
    """One user's host knows no account of others; an owner's serves whom she shares with."""
    assert server.hosts.own["carol"].account("alice") is None
    carol = server.log_in("carol")
    assert b"x OK" in carol.ask(b"x SELECT shared/alice/INBOX")
    assert b"confidential" in carol.ask(b"y FETCH 1 BODY[TEXT]")
    (alice,) = [each for each in server.hosts.services if each._guest == "carol"]
    assert {each.mailbox.name for each in alice._open.values()} == {"shared/alice/INBOX"}
    carol.transport.close()
