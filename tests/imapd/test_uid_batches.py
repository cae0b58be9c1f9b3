"""The ranges of UIDBATCHES. RFC 10022."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailserver.imapd.uid_batches import batches
from mailserver.store.contract import NewMessage
from tests.imapd.harness import Server, message


@given(uids=st.sets(st.integers(1, 300)).map(sorted), size=st.integers(1, 20))
def test_all_messages_are_in_batches_of_one_size(uids: list[int], size: int) -> None:
    """No gap and no overlap from the newest message to UID 1; only the last batch may be smaller."""
    found = list(batches(uids, size, 1, None))
    held = [sum(low <= uid <= high for uid in uids) for high, low in found]
    assert sum(held) == len(uids) and all(count == size for count in held[:-1])
    assert [high for high, _ in found] == [*uids[-1:], *(low - 1 for _, low in found[:-1])][: len(found)]
    assert not found or (found[-1][1] == 1 and 0 < held[-1] <= size)
    assert list(batches(uids, size, 2, 3)) == found[1:3]
    assert list(batches(uids, size, len(found) + 1, len(found) + 5)) == []


def test_a_large_mailbox() -> None:
    """With gaps where messages went, and without UIDs that came after the client was last told."""
    server = Server()
    inbox = server.store.inbox
    inbox.append([NewMessage(message("x")) for _ in range(1201)])
    inbox.remove([1, 700, 1200])
    client = server.select()
    said = client.ask(b"c UIDBATCHES 500")
    assert said.startswith(b'* UIDBATCHES (TAG "c") 1201:700,699:200,199:1\r\n'), said
    inbox.append([NewMessage(message("y"))])
    said = client.ask(b"d UIDBATCHES 5000 1:3")
    assert said.startswith(b'* UIDBATCHES (TAG "d") 1201:1\r\n* 1199 EXISTS\r\n') and b"d OK " in said
