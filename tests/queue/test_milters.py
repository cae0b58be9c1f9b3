"""A message that milters changed: what is committed, and what is left where that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.envelope import Address, Envelope, Recipient
from mailserver.milter.content import MilterContent
from mailserver.queue.directory import QueueDirectory, State
from mailserver.queue.incoming import MEMORY_LIMIT, IncomingMessage
from mailserver.queue.milters import apply_changes, milter_content
from tests.smtpd.harness import read_content

OWN = b"Received: by us\n\tid 4Q\n"
ENVELOPE = Envelope(None, (Recipient(Address("a", "example.org")),))


@pytest.fixture
def queue(tmp_path: Path) -> QueueDirectory:
    made = QueueDirectory(str(tmp_path), clock=lambda: 1_795_000_000.0)
    made.prepare()
    return made


def incoming(queue: QueueDirectory, size: int) -> tuple[IncomingMessage, bytes]:
    """A message being received, on disk where it is large; and its body."""
    message = queue.create(ENVELOPE)
    body = b"line\n" * (size // 5)
    message.write(OWN + b"Subject: x\n\n")
    for start in range(0, len(body), 50_000):
        message.write(body[start : start + 50_000])
        if message.wants_flush:
            message.flush()
    return message, body


def files(queue: QueueDirectory) -> list[str]:
    return [name for state in ("incoming", "hold") for name in os.listdir(f"{queue.path}/{state}")]


@pytest.mark.parametrize("size", [10, 3 * MEMORY_LIMIT])
def test_changed_content_is_what_is_committed(queue: QueueDirectory, size: int) -> None:
    """The old body is read while the new file is written; length and checksum are the new ones."""
    message, body = incoming(queue, size)
    content = milter_content(message, OWN)
    assert [name for name, _ in content.named()] == [b"Subject"]
    content.fields.append(b"X-New: y\n")
    content.is_changed = True
    content.quarantine = "why"
    apply_changes(message, content)
    taken = message.commit()
    assert read_content(taken) == OWN + b"Subject: x\nX-New: y\n\n" + body
    assert "/hold/" in taken.path and files(queue) == [taken.queue_id]
    taken.close()
    again = queue.open(taken.queue_id, (State.HOLD,))
    assert again.content_length == len(OWN) + len(b"Subject: x\nX-New: y\n\n") + len(body)
    again.close()


@pytest.mark.parametrize("size", [10, 3 * MEMORY_LIMIT])
def test_a_fault_on_the_way_leaves_nothing(queue: QueueDirectory, size: int) -> None:
    """Nothing was acknowledged, so nothing may stay; no descriptor either."""
    message, _ = incoming(queue, size)
    before = len(os.listdir("/proc/self/fd"))

    def broken() -> Iterator[bytes]:
        yield b"x" * MEMORY_LIMIT
        raise OSError(errno.EIO, "broken")

    content = MilterContent(ENVELOPE, OWN, [OWN], broken, is_changed=True)
    with pytest.raises(OSError, match="broken"):
        apply_changes(message, content)
    assert files(queue) == []
    assert len(os.listdir("/proc/self/fd")) == before - (size > MEMORY_LIMIT)


def test_a_process_that_dies_on_the_way_leaves_no_message(queue: QueueDirectory) -> None:
    """Until the commit the file is incomplete: the next scan removes it."""
    message, _ = incoming(queue, 3 * MEMORY_LIMIT)
    content = milter_content(message, OWN)
    content.is_changed = True
    apply_changes(message, content)
    assert len(files(queue)) == 1
    os.close(message._descriptor)  # as the kernel does
    found = queue.scan()
    assert (found.incoming, files(queue)) == ([], [])
