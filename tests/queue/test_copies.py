"""always_bcc, sender_bcc_maps, recipient_bcc_maps: who gets copies of new mail, and of new mail only."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.queue.copies import Copies
from mailserver.queue.directory import QueueDirectory
from tests.queue.world import DictTable, World, envelope


def recipients(copies: Copies, *to: str, sender: str | None = "s@example.com") -> list[str]:
    """The recipients with their copies."""
    return [str(each.address) for each in copies.added_to(envelope(*to, sender=sender)).recipients]


def test_copies_are_added_once(tmp_path: Path) -> None:
    """postconf(5): by full address, without its extension, by @domain; nobody twice."""
    routing = World(tmp_path).routing
    copies = Copies(
        routing=routing,
        always_bcc="archive",
        sender_bcc_maps=(DictTable({"s@example.com": "boss@example.org"}),),
        recipient_bcc_maps=(DictTable({"alice@example.org": "BOSS@example.org", "@far.test": "x@far.test"}),),
    )
    assert recipients(copies, "alice+x@example.org") == [
        "alice+x@example.org",
        "archive@example.org",
        "BOSS@example.org",
    ]
    assert recipients(copies, "x@far.test", sender=None) == ["x@far.test", "archive@example.org"]


def test_unusable_values_are_told_and_unreadable_tables_are_temporary(tmp_path: Path) -> None:
    """P5: a copy that may be owed is not forgotten; the client hears 451."""
    routing = World(tmp_path).routing
    warnings: list[str] = []
    copies = Copies(routing=routing, always_bcc="a b c", warn=warnings.append)
    assert recipients(copies, "alice@example.org") == ["alice@example.org"]
    assert len(warnings) == 1 and "always_bcc" in warnings[0]
    with pytest.raises(OSError, match="cannot be read"):
        recipients(Copies(routing=routing, sender_bcc_maps=(DictTable(None),)), "alice@example.org")


def test_only_mail_from_outside_is_copied(tmp_path: Path) -> None:
    """cleanup(8): bounces and forwards get no copies, or copies would beget copies."""
    world = World(tmp_path)
    copies = Copies(routing=world.routing, always_bcc="carol")
    queue = QueueDirectory(str(tmp_path / "other"), complete=copies.added_to)
    queue.prepare()
    for origin, count in (("", 2), ("bounce", 1), ("forward", 1)):
        message = queue.create(envelope("alice@example.org"), origin=origin)
        message.write(b"Subject: x\n\n")
        committed = message.commit()
        assert len(committed.accepted.envelope.recipients) == count
        committed.close()
