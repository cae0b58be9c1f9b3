r"""A \Seen of each user's own over IMAP: the transcripts of `transcripts/private_seen`, in every format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imapd.harness import TRANSCRIPTS, play
from tests.imapd.sharing import LOCATIONS, SharingServer

FILES = sorted((TRANSCRIPTS.parent / "private_seen").glob("*.txt"))


@pytest.fixture(params=LOCATIONS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharingServer]:
    """Mail in Maildir++, in maildirs in plain directories, in mboxes."""
    server = SharingServer(tmp_path, request.param, private_seen=True)
    yield server
    server.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, server: SharingServer) -> None:
    """The file's first line names the rules."""
    play(path.read_text(), server)
    assert not server.warnings
