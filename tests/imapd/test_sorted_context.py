"""CONTEXT=SORT: whoever applies every ADDTO and REMOVEFROM has what a new SORT would give. RFC 5267 §4.3."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.store.contract import NewMessage
from tests.imapd.harness import Client, Server, message

SUBJECTS = ("a", "B", "b", "c c", "_", "")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=4)),
        st.tuples(st.just("flag"), st.lists(st.integers(1, 12), min_size=1, max_size=4)),
        st.tuples(st.just("unflag"), st.lists(st.integers(1, 12), min_size=1, max_size=4)),
        st.tuples(st.just("expunge"), st.lists(st.integers(1, 12), min_size=1, max_size=3)),
    ),
    max_size=12,
)
CRITERIA = st.sampled_from((b"SUBJECT", b"REVERSE SUBJECT", b"REVERSE SUBJECT ARRIVAL", b"SIZE REVERSE DATE"))


def members(text: bytes) -> list[int]:
    """A set in its order."""
    found: list[int] = []
    for part in text.split(b","):
        low, _, high = part.partition(b":")
        found += range(int(low), int(high or low) + 1)
    return found


def applied(results: list[int], said: bytes) -> list[int]:
    """The results after the updates that were told, each pair in its turn."""
    results = list(results)
    for what, pairs in re.findall(rb'\* ESEARCH \(TAG "s"\) UID (ADDTO|REMOVEFROM) \(([^)]*)\)', said):
        words = pairs.split()
        for position, text in zip(words[::2], words[1::2], strict=True):
            start, uids = int(position) - 1, members(text)
            assert 0 <= start <= len(results)
            if what == b"ADDTO":
                results[start:start] = uids
            else:
                assert results[start : start + len(uids)] == uids
                del results[start : start + len(uids)]
    return results


def sorted_now(client: Client, criteria: bytes) -> list[int]:
    """What SORT gives now."""
    said = client.ask(b"n UID SORT (%b) UTF-8 UNFLAGGED" % criteria)
    return [int(word) for word in said.split(b"\r\n")[0].split()[2:]]


@settings(max_examples=60)
@given(STEPS, CRITERIA)
def test_updates_lead_to_what_a_new_sort_gives(
    steps: list[tuple[str, list[str] | list[int]]], criteria: bytes
) -> None:
    """New messages, changed flags and expunges by another session, in any order."""
    server = Server()
    inbox = server.store.inbox
    inbox.append([NewMessage(message(subject)) for subject in SUBJECTS])
    client, other = server.select(), server.select()
    client.send(b"s UID SORT RETURN (UPDATE COUNT) (%b) UTF-8 UNFLAGGED" % criteria)
    assert b"s OK" in client.read()
    results = sorted_now(client, criteria)
    for what, values in steps:
        if what == "deliver":
            inbox.append([NewMessage(message(str(subject))) for subject in values])
        else:
            uids = b",".join(b"%d" % int(value) for value in values)
            flag = b"\\Deleted" if what == "expunge" else b"\\Flagged"
            sign = b"-" if what == "unflag" else b"+"
            other.send(b"o UID STORE %b %bFLAGS.SILENT (%b)" % (uids, sign, flag))
            if what == "expunge":
                other.send(b"p UID EXPUNGE " + uids)
        results = applied(results, client.ask(b"x NOOP"))
        assert results == sorted_now(client, criteria)
