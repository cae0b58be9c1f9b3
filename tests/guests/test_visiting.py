"""Mailboxes of one user for another, each with a session host of his own: as where all mail has one owner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests.harness import NeighbourServer
from tests.imapd.harness import play
from tests.imapd.sharing import LOCATIONS
from tests.imapd.test_private_seen import FILES as PRIVATE_SEEN
from tests.imapd.test_sharing import FILES


@pytest.fixture(params=LOCATIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NeighbourServer]:
    """Mail in Maildir++, in maildirs in plain directories, in mboxes."""
    server = NeighbourServer(tmp_path, request.param)
    yield server
    server.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, server: NeighbourServer) -> None:
    """The dialogues of one owner's server, word for word."""
    play(path.read_text(), server)
    assert not server.warnings
    assert not server.hosts.log.lines


@pytest.mark.parametrize("path", PRIVATE_SEEN, ids=lambda path: path.stem)
def test_private_seen(path: Path, tmp_path: Path) -> None:
    r"""What a guest has seen is his own, and stands with the owner's flags."""
    server = NeighbourServer(tmp_path, private_seen=True)
    play(path.read_text(), server)
    assert not server.warnings
    server.close()
