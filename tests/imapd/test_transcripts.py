"""Every transcript comes true, whatever the mail lies in. See `harness.play`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store.contract import StoreRegistry
from mailserver.store.layout import layout_for
from mailserver.store.registry import FileStoreRegistry
from tests.imapd.harness import TRANSCRIPTS, Server, play
from tests.store_memory import MemoryRegistry

FILES = sorted(TRANSCRIPTS.glob("*.txt"))


@pytest.fixture(params=["memory", "maildir:{home}/Maildir", "mbox:{home}/mail:INBOX={home}/inbox"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreRegistry]:
    """Alice's mail in memory, in maildirs, in mboxes."""
    if request.param == "memory":
        yield MemoryRegistry()
        return
    location = request.param.format(home=tmp_path / "home")
    os.makedirs(tmp_path / "home")
    files = FileStoreRegistry(
        lambda account: layout_for(account, location), str(tmp_path / "state"), "host.example"
    )
    yield files
    files.shut()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transcript(path: Path, registry: StoreRegistry) -> None:
    """The file's first line names the rules."""
    play(path.read_text(), Server(registry=registry))
