"""Names of equal messages in an mbox: distinct, and found in few steps."""

from __future__ import annotations

from mailserver.store.mbox_fields import Fields, Place
from mailserver.store.mbox_messages import named_messages
from mailserver.store.mbox_scan import Scanned

EQUAL = Scanned("abc", Place(0, 10, frozenset()), 0, Fields(frozenset(), 0, b""), 10)


class Counting(set[str]):
    """A set that counts how often it is asked."""

    asked = 0

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return super().__contains__(key)


def test_equal_messages_have_distinct_names() -> None:
    """The first has the digest alone, also where some of the numbers are taken."""
    assert list(named_messages([EQUAL] * 3)) == ["abc", "abc#2", "abc#3"]
    taken = {"abc", "abc#2", "abc#4"}
    names = list(named_messages([EQUAL] * 40, taken))
    assert len(set(names) - taken) == 40
    assert names[0] == "abc#3"


def test_the_thousandth_equal_message_is_named_as_fast_as_the_second() -> None:
    """Appended one by one, as a monitoring script does: the steps grow with the logarithm."""
    taken = Counting()
    for _ in range(1000):
        taken.update(named_messages([EQUAL], taken))
    assert len(taken) == 1000
    taken.asked = 0
    named_messages([EQUAL], taken)
    assert taken.asked < 30
