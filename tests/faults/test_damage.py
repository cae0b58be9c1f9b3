"""Damaged data bases: found out, mended or given up; never wrong content. RELIABILITY F27."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mailserver.store.contract import MessageGone, StoreError
from tests.store.harness import FileHarness, MaildirHarness, MboxHarness
from tests.store.test_kill_points import prepare

FILES = ("state.db", "cache.db", "text.db", "uidvalidity")
HARNESSES = {"maildir": MaildirHarness, "mbox": MboxHarness}


def facts(harness: FileHarness) -> tuple[int, dict[int, bytes]]:
    """UIDVALIDITY, and the content that each UID shows, through cache and text index too."""
    box = harness.store.open("INBOX")
    for uid in list(box.uids):
        with contextlib.suppress(MessageGone):  # its name was damaged: it comes back with another UID
            box.read(uid)
    found = {uid: box.read(uid) for uid in list(box.uids)}
    subjects = box.facts(box.uids, lambda content: content[:20], "start.1")
    for uid, subject in subjects.items():
        assert found[uid].startswith(subject)
    for uid in box.search_text(box.uids, "subject", True)[0]:
        assert b"subject" in found[uid].lower()
    return box.uidvalidity, found


def damaged(original: bytes, chance: random.Random) -> bytes:
    """As a bad disk or a bad restore leaves a file."""
    how = chance.choice(("flip", "flip", "flip", "cut", "empty", "zeros", "junk"))
    if how == "flip":
        content = bytearray(original)
        for _ in range(chance.choice((1, 1, 64))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        return bytes(content)
    if how == "cut":
        return original[: len(original) * chance.randrange(20) // 20]
    return {"empty": b"", "zeros": bytes(len(original)), "junk": chance.randbytes(len(original))}[how]


@pytest.mark.parametrize("kind", ["maildir", "mbox"])
def test_damaged_data_bases(
    tmp_path: Path, kind: str, chance: random.Random, thorough: bool, verdict: Callable[[str], None]
) -> None:
    """Same UIDVALIDITY, same content for each UID; or a higher one. Two faults never stop the service."""
    higher = refused = 0
    rounds = 300 if thorough else 15
    harness = prepare(tmp_path, kind)
    before, content_before = facts(harness)
    harness.store._texts.wait()
    harness.registry.shut()
    originals = {name: (harness.state_path / name).read_bytes() for name in FILES}
    for number in range(rounds):
        for path in (*harness.state_path.iterdir(), *harness.inbox_path.parent.rglob("dovecot-uidlist")):
            path.unlink()
        name = FILES[number % len(FILES)]
        for each, content in originals.items():
            (harness.state_path / each).write_bytes(damaged(content, chance) if each == name else content)
        for attempt in range(4):
            try:
                harness.crash()
                validity, found = facts(harness)
                break
            except StoreError:  # for now: a client comes again
                refused += 1
                assert attempt < 3
                harness.registry.shut()
        assert validity >= before
        if validity == before:
            assert all(content_before.get(uid, text) == text for uid, text in found.items()), name
        else:
            higher += 1
        assert sorted(found.values()) == sorted(content_before.values())
        harness.registry.shut()
    verdict(f"{rounds} damaged: {higher} times a higher UIDVALIDITY, {refused} refused once, never wrong")
