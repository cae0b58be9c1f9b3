"""The text index finds what a scan of the messages finds, and may vanish at any time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.message.text import fold, searchable
from mailserver.store.contract import Mailbox, NewMessage, Uid
from mailserver.store.text_index import LONGEST_TEXT, Text, TextIndex
from tests.store.harness import MaildirHarness

BODIES = {
    1: "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nthe quick brown fox\r\n",
    2: "Subject: plain\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n会議の資料を送ります。東京\r\n",
    3: "Subject: Fox\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nsplit =\r\nwords 50=25\r\n",
    4: 'Subject: "quoted" AND OR NOT\r\n\r\nbody : * ^ NEAR(x)\r\n',
}


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[MaildirHarness]:
    harness = MaildirHarness(tmp_path)
    yield harness
    harness.registry.shut()


def fill(harness: MaildirHarness) -> Mailbox:
    box = harness.store.open("INBOX")
    box.append([NewMessage(text.encode()) for text in BODIES.values()])
    return box


def texts(harness: MaildirHarness) -> TextIndex:
    builder = harness.store._texts
    builder.wait()
    return builder.index


def search(box: Mailbox, needle: str, with_header: bool = True) -> list[int]:
    """What the index finds; it must know all messages."""
    found, unknown = box.search_text(box.uids, fold(needle), with_header)
    assert not unknown
    return [*found]


def test_the_first_search_makes_the_index(harness: MaildirHarness) -> None:
    """It knows nothing yet, and the next search knows everything."""
    box = fill(harness)
    assert not (harness.state_path / "text.db").exists()
    assert box.search_text(box.uids, "fox", True) == ([], box.uids)
    texts(harness)
    assert search(box, "fox") == [1, 3]
    assert search(box, "fox", with_header=False) == [1]


@pytest.mark.parametrize(
    ("needle", "uids"),
    [
        *(("grüsse", [1]), ("GRÜẞE", [1]), ("brown fox", [1]), ("fox brown", []), ("split words 50%", [3])),
        *(
            ("東京", [2]),
            ("東", [2]),
            ("資料を送", [2]),
            ("京東", []),
            ("x", [1, 2, 3, 4]),
            ("", [1, 2, 3, 4]),
        ),
        *(('"quoted" and', [4]), ("body : *", [4]), ("near(x)", [4]), ("^", [4]), ("no such thing", [])),
    ],
)
def test_needles(harness: MaildirHarness, needle: str, uids: list[int]) -> None:
    """Decoded, folded, of any length; two Chinese characters too; FTS5's own words mean nothing."""
    box = fill(harness)
    box.search_text(box.uids, "x", True)
    texts(harness)
    assert search(box, needle) == uids


def test_new_messages_are_kept_up_with(harness: MaildirHarness) -> None:
    """Once searched, a mailbox's new messages are indexed as they come; expunged ones are not found."""
    box = fill(harness)
    box.search_text(box.uids, "fox", True)
    texts(harness)
    (new,) = box.append([NewMessage(b"Subject: s\r\n\r\nanother fox\r\n")])
    texts(harness)
    assert search(box, "another fox") == [new]
    box.remove([Uid(1), new])
    assert search(box, "fox") == [3]
    box = harness.restart().open("INBOX")
    (new,) = box.append([NewMessage(b"Subject: s\r\n\r\nthird fox\r\n")])
    texts(harness)
    assert search(box, "third fox") == [new]


def test_other_mailboxes_are_left_alone(harness: MaildirHarness) -> None:
    """Nobody searched them: their mail costs nothing."""
    box = fill(harness)
    box.search_text(box.uids, "fox", True)
    work = harness.store.open("Drafts")
    work.append([NewMessage(b"Subject: s\r\n\r\nfox\r\n")])
    assert texts(harness).indexed(work.mailbox_id, work.uidvalidity) == set()


@pytest.mark.parametrize("damage", [b"junk" * 4096, b""])
def test_it_may_vanish(harness: MaildirHarness, damage: bytes) -> None:
    """It is made again; nothing is found wrongly meanwhile."""
    box = fill(harness)
    box.search_text(box.uids, "fox", True)
    texts(harness)
    harness.registry.shut()
    path = harness.state_path / "text.db"
    path.write_bytes(damage)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    box = harness.restart().open("INBOX")
    assert box.search_text(box.uids, "fox", True) == ([], [*box.uids])
    texts(harness)
    assert search(box, "fox") == [1, 3]


def test_of_a_long_message_the_start_decides(tmp_path: Path) -> None:
    """Not found in the start is not known."""
    index = TextIndex(str(tmp_path))
    index.add("F1", 7, [Text(Uid(1), "start", "x" * LONGEST_TEXT + "end"), Text(Uid(2), "whole", "")])
    assert index.search("F1", 7, "start", True) == ({1}, {1, 2})
    assert index.search("F1", 7, "end", True) == (set(), {2})
    assert index.search("F1", 8, "start", True) == (set(), set())
    index.close()


def test_dead_trigrams_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most messages are gone, the index is made anew instead of growing for ever."""
    monkeypatch.setattr("mailserver.store.text_index._FEWEST_DEAD", 10)
    index = TextIndex(str(tmp_path))
    index.add("F1", 7, [Text(Uid(uid), "header", f"body {uid}") for uid in range(1, 31)])
    index.forget("F1", [Uid(uid) for uid in range(1, 10)])
    index.tidy()
    assert len(index.indexed("F1", 7)) == 21
    index.forget("F1", [Uid(uid) for uid in range(10, 25)])
    index.tidy()
    assert index.indexed("F1", 7) == set()
    index.add("F1", 7, [Text(Uid(25), "header", "body again")])
    assert index.search("F1", 7, "body again", True).found == {25}
    index.close()


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(st.text(alphabet="aåb\"'字 \n*", max_size=30), min_size=1, max_size=6),
    needle=st.text(alphabet="aåb\"'字 *", max_size=6),
)
def test_as_a_scan(tmp_path_factory: pytest.TempPathFactory, messages: list[str], needle: str) -> None:
    """The same answer as looking into every message."""
    index = TextIndex(str(tmp_path_factory.mktemp("text")))
    parts = [searchable(b"X: y\r\n\r\n" + text.encode()) for text in messages]
    index.add("F1", 7, [Text(Uid(uid), *part) for uid, part in enumerate(parts, 1)])
    folded = fold(needle)
    expected = {uid for uid, (header, body) in enumerate(parts, 1) if folded in header or folded in body}
    assert index.search("F1", 7, folded, True).found == expected
    assert index.search("F1", 7, folded, False).found == {
        uid for uid, (_, body) in enumerate(parts, 1) if folded in body
    }
    index.close()


def test_accents_count_in_an_exact_search_and_not_in_a_fuzzy_one(harness: MaildirHarness) -> None:
    """The trigrams have no accents; what an exact search finds with them is verified."""
    box = harness.store.open("INBOX")
    box.append([NewMessage(f"Subject: s\r\n\r\n{word}\r\n".encode()) for word in ("résumé", "resume")])
    assert box.may_hold(box.uids, [["res", "ume"]], False) == box.uids, "not known yet"
    texts(harness)
    assert search(box, "résumé") == [1] and search(box, "resume") == [2] and search(box, "é") == [1]
    assert box.may_hold(box.uids, [["resume"]], False) == [1, 2]


def test_candidates_and_texts(harness: MaildirHarness) -> None:
    """Of each group a piece; pieces too short for trigrams say nothing; a body's words not of the header."""
    box = fill(harness)
    box.may_hold(box.uids, [], True)
    texts(harness)
    assert box.may_hold(box.uids, [["brown", "words"], ["fox"]], True) == [1, 3]
    assert box.may_hold(box.uids, [["fox"]], False) == [1]
    assert box.may_hold(box.uids, [["fo", "nowhere"]], True) == box.uids
    assert box.may_hold(box.uids[1:], [["quick"]], True) == []
    (new,) = box.append([NewMessage(b"Subject: New\r\n\r\nTEXT\r\n")])
    box.remove([Uid(2)])
    found = box.texts([*box.uids, Uid(2)])
    assert [*found] == [1, 3, 4, new] and found[new][1].strip() == "text"
    assert all(found[uid] == searchable(box.read(uid)) for uid in box.uids)
