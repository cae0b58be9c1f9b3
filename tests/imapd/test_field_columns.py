"""Header fields kept for the next search: the same answers as without. RFC 3501 §6.4.4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.imapd import field_columns
from mailserver.imapd.field_columns import Column, column_of
from mailserver.store.contract import NewMessage, Uid
from tests.imapd.harness import Server, message
from tests.store_memory import MemoryMailbox

VALUES = st.dictionaries(
    st.integers(1, 30).map(Uid),
    st.sampled_from([b"", b"\na", b"\nab\nb", b"\nba", b"\n\0", b"\naaa"]),
    max_size=20,
)
UIDS = st.lists(st.integers(1, 30).map(Uid), unique=True).map(sorted)


@given(
    VALUES, st.lists(UIDS, max_size=3), UIDS, st.sampled_from([b"", b"a", b"ab", b"b", b"\0", b"zz", b"aa"])
)
def test_a_column_finds_what_the_values_hold(
    values: dict[Uid, bytes], batches: list[list[Uid]], uids: list[Uid], needle: bytes
) -> None:
    """Each message is found, or is not, or is left to be asked."""
    column, known = Column(b"subject"), dict[Uid, bytes]()
    for batch in batches:
        added = {uid: values[uid] for uid in batch if uid in values}
        column.add(added)
        known |= added
    found, unknown = column.search(needle, uids)
    assert set(found) == {uid for uid in uids if uid not in unknown and known[uid] and needle in known[uid]}
    assert found == sorted(found)
    assert all(b"\0" in needle + known.get(uid, b"\0") for uid in unknown)


def test_columns_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is asked of the store each time; few mailboxes have a column."""
    monkeypatch.setattr(field_columns, "LONGEST", 10)
    column = Column(b"subject")
    column.add({Uid(1): b"\n12345", Uid(2): b"\n67890"})
    assert column.search(b"5", [Uid(1), Uid(2)]) == ([1], [2])
    boxes = [MemoryMailbox(f"m{n}", 1, f"F{n}") for n in range(field_columns.MOST + 1)]
    columns = [column_of(box, b"subject") for box in boxes]
    assert column_of(boxes[-1], b"subject") is columns[-1]
    assert column_of(boxes[0], b"subject") is not columns[0]
    assert column_of(boxes[-1], b"from") is not columns[-1]


def test_a_second_search_sees_what_came_and_went() -> None:
    """New messages are found, expunged ones are not; another field has its own answers."""
    server = Server()
    inbox = server.store.inbox
    inbox.append([NewMessage(message(subject)) for subject in ("one", "two", "one two")])
    client = server.select()
    for _ in range(2):
        assert client.ask(b"c SEARCH SUBJECT two").startswith(b"* SEARCH 2 3\r\n")
    inbox.append([NewMessage(message("two again"))])
    inbox.remove([Uid(2)])
    assert client.ask(b"d SEARCH SUBJECT two").startswith(b"* SEARCH 3\r\n")
    client.ask(b"e NOOP")
    assert client.ask(b"f UID SEARCH SUBJECT two").startswith(b"* SEARCH 3 4\r\n")
    assert client.ask(b"g UID SEARCH FROM two").startswith(b"* SEARCH\r\n")
    assert client.ask(b"h UID SEARCH NOT SUBJECT two").startswith(b"* SEARCH 1\r\n")
    reads = inbox.reads, inbox.renderings
    assert client.ask(b"i UID SEARCH SUBJECT ONE").startswith(b"* SEARCH 1 3\r\n")
    assert (inbox.reads, inbox.renderings) == reads
