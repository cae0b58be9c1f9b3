"""cache.db: worth nothing but speed; droppable at any time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.store.cache import Cache
from mailserver.store.contract import Uid

UIDS = [Uid(uid) for uid in range(1, 201)]
FACTS = {uid: b"fact %d" % uid for uid in UIDS}


def test_facts_come_back(tmp_path: Path) -> None:
    """By mailbox, UIDVALIDITY and kind; few by list, many by range; also after a restart."""
    cache = Cache(str(tmp_path))
    cache.put("F1", 7, "envelope.1", FACTS)
    assert cache.get("F1", 7, "envelope.1", UIDS) == FACTS
    cache.close()
    cache = Cache(str(tmp_path))
    assert cache.get("F1", 7, "envelope.1", [Uid(3), Uid(500)]) == {3: b"fact 3"}
    assert cache.get("F1", 8, "envelope.1", UIDS) == {}
    assert cache.get("F2", 7, "envelope.1", UIDS) == {}
    assert cache.get("F1", 7, "envelope.2", UIDS) == {}
    assert cache.get("F1", 7, "envelope.1", []) == {}
    cache.close()


def test_it_is_made_when_it_is_needed(tmp_path: Path) -> None:
    """An account whose mail nobody looks into has no cache.db; once closed, it makes none."""
    cache = Cache(str(tmp_path))
    cache.put("M1", 1, "size", {})
    assert os.listdir(tmp_path) == []
    cache.put("M1", 1, "size", {Uid(1): b"5"})
    assert (tmp_path / "cache.db").exists()
    cache.close()
    (tmp_path / "cache.db").unlink()
    closed = Cache(str(tmp_path))
    closed.close()
    assert closed.get("M1", 1, "size", [Uid(1)]) == {} and os.listdir(tmp_path) == []


def test_forget(tmp_path: Path) -> None:
    """Facts of expunged messages go."""
    cache = Cache(str(tmp_path))
    cache.put("F1", 7, "a", FACTS)
    cache.put("F1", 7, "b", FACTS)
    cache.forget("F1", UIDS[1:])
    assert cache.get("F1", 7, "a", UIDS) == cache.get("F1", 7, "b", UIDS) == {1: b"fact 1"}
    cache.close()


@pytest.mark.parametrize("junk", [b"", b"junk" * 5000])
def test_damage_costs_the_cache_only(tmp_path: Path, junk: bytes) -> None:
    """A damaged file is replaced by an empty one."""
    cache = Cache(str(tmp_path))
    cache.put("F1", 7, "a", FACTS)
    cache.close()
    (tmp_path / "cache.db").write_bytes(junk)
    cache = Cache(str(tmp_path))
    assert cache.get("F1", 7, "a", UIDS) == {}
    cache.put("F1", 7, "a", FACTS)
    assert cache.get("F1", 7, "a", UIDS) == FACTS
    cache.close()


def test_damage_while_open(tmp_path: Path) -> None:
    """It is noticed at the next use, and nothing is raised."""
    warnings: list[str] = []
    cache = Cache(str(tmp_path), warnings.append)
    cache.put("F1", 7, "a", FACTS)
    cache.close()
    cache = Cache(str(tmp_path), warnings.append)
    (tmp_path / "cache.db").write_bytes(b"\xff" * os.path.getsize(tmp_path / "cache.db"))
    cache.get("F1", 7, "a", UIDS)
    cache.put("F1", 7, "a", FACTS)
    assert cache.get("F1", 7, "a", UIDS) == FACTS
    assert warnings
    cache.close()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """Somebody's link is removed, its target untouched."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "cache.db").symlink_to(victim)
    cache = Cache(str(tmp_path))
    cache.put("F1", 7, "a", FACTS)
    cache.close()
    assert victim.read_bytes() == b"precious"


def test_without_a_disk_nothing_is_cached(tmp_path: Path) -> None:
    """Where no file can be made, everything still works."""
    cache = Cache(str(tmp_path / "missing"))
    cache.put("F1", 7, "a", FACTS)
    assert cache.get("F1", 7, "a", UIDS) == {}
    cache.forget("F1", UIDS)
    cache.close()
