"""The column of flags answers as looking at every message would. RFC 3501 §6.4.4."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.imapd.flag_column import MOST_SETS, FlagColumn, TooManySets
from mailserver.store.contract import DELETED, FLAGGED, SEEN, Flags, Mailbox, NewMessage, StoreMode, Uid
from tests.imapd.harness import Server, message
from tests.store_memory import MemoryMailbox

_FLAGS = st.frozensets(st.sampled_from([SEEN, FLAGGED, b"work", b"$Junk"]))
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), _FLAGS, st.integers(1, 3)),
        st.tuples(st.sampled_from(list(StoreMode)), _FLAGS, st.integers(0, 9)),
        st.tuples(st.just("remove"), _FLAGS, st.integers(0, 9)),
        st.tuples(st.just("follow"), _FLAGS, st.just(0)),
    ),
    max_size=30,
)


def _looked_at(mailbox: Mailbox, holds: Callable[[Flags], bool], below: int) -> list[Uid]:
    return [uid for uid in mailbox.uids if uid < below and holds(mailbox.messages[uid].flags)]


def _is_unseen_work(flags: Flags) -> bool:
    return SEEN not in flags and b"work" in flags


@given(_STEPS)
def test_a_column_that_follows_answers_as_looking_at_each_message_would(
    steps: list[tuple[object, Flags, int]],
) -> None:
    """After any appends, flag changes and removals, followed now and then."""
    mailbox = MemoryMailbox("x", 1, "F1")
    column = FlagColumn(mailbox)
    for what, flags, number in steps:
        if what == "append":
            mailbox.append([NewMessage(b"\r\n", flags)] * number)
        elif isinstance(what, StoreMode):
            mailbox.change_flags(mailbox.uids[number : number + 2], flags, what)
        elif what == "remove":
            mailbox.remove(mailbox.uids[number : number + 1])
        else:
            assert column.follow(mailbox)
    assert column.follow(mailbox)
    for below in (2**32, 5):
        for holds in (_is_unseen_work, lambda flags: True, lambda flags: FLAGGED in flags):
            assert column.matching(holds, below) == _looked_at(mailbox, holds, below)


def test_more_sets_of_flags_than_an_octet_holds_are_refused() -> None:
    """Both when it is made and when it follows."""
    mailbox = MemoryMailbox("x", 1, "F1")
    mailbox.append([NewMessage(b"\r\n", frozenset({b"k%d" % number})) for number in range(MOST_SETS)])
    column = FlagColumn(mailbox)
    mailbox.append([NewMessage(b"\r\n", frozenset({b"one-more"}))])
    with pytest.raises(TooManySets):
        column.follow(mailbox)
    with pytest.raises(TooManySets):
        FlagColumn(mailbox)


@pytest.mark.parametrize("sets", [1, MOST_SETS + 1])
def test_search_answers_alike_with_a_column_and_without(sets: int) -> None:
    """Flags, keywords in any case, OR, NOT, sets of numbers, and a key that needs the header."""
    server = Server()
    client = server.select()
    inbox = server.registry.stores["alice"].inbox
    inbox.append([NewMessage(message("x"), frozenset({b"k%d" % number})) for number in range(sets)])
    first = sets + 1
    for flags in ({SEEN}, {SEEN, FLAGGED}, {b"Work"}, {DELETED, b"Work"}):
        inbox.append([NewMessage(message("wanted"), frozenset(flags))])
    client.ask(b"c NOOP")

    def found(program: bytes) -> list[int]:
        answer = client.ask(b"d SEARCH %d:* %b" % (first, program)).split(b"\r\n")[0]
        return [int(word) - first for word in answer.split()[2:]]

    assert found(b"ALL") == [0, 1, 2, 3]
    assert found(b"SEEN") == [0, 1]
    assert found(b"UNSEEN UNDELETED") == [2]
    assert found(b"KEYWORD wORK") == [2, 3]
    assert found(b"OR FLAGGED DELETED") == [1, 3]
    assert found(b"NOT (SEEN UNFLAGGED)") == [1, 2, 3]
    assert found(b"SUBJECT wanted OR NOT SEEN FLAGGED") == [1, 2, 3]
    assert found(b"%d,%d SEEN" % (first + 1, first + 3)) == [1]
    assert found(b"KEYWORD none") == []
