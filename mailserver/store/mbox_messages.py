"""From what a scan finds in an mbox to what the index is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable

from mailserver.store.contract import Flags
from mailserver.store.format import Found
from mailserver.store.mbox_scan import Scanned


def named_messages(
    messages: Iterable[Scanned], taken: Container[str] = (), known: Iterable[str] = ()
) -> dict[str, Scanned]:
    """The messages by key, none of them `taken`: `#2`, `#3` … tell equal ones apart.

    Equal messages get the keys that are `known`, in order, so that the second of two
    keeps its name when the first is gone.
    """
    named: dict[str, Scanned] = {}
    counts: dict[str, int] = {}  # so that ten thousand equal ones cost no more than others
    reusable = _keys_of_equals(known)
    for message in messages:
        key, count = message.digest, counts.get(message.digest, 1)
        if names := reusable.get(message.digest):
            key = names.popleft()
        if key in named or key in taken:
            count = _free_number(message.digest, count, named, taken)
            key = f"{message.digest}#{count}"
        counts[message.digest] = count
        named[key] = message
    return named


def _free_number(digest: str, above: int, *names: Container[str]) -> int:
    """The number of a key that is in none of `names`, in few steps however many equal messages there are."""

    def is_taken(number: int) -> bool:
        return any(f"{digest}#{number}" in each for each in names)

    low, high = above, above + 1
    while is_taken(high):
        low, high = high, 2 * high - above
    while high - low > 1:  # low is taken, or the start; high is free
        middle = (low + high) // 2
        low, high = (middle, high) if is_taken(middle) else (low, middle)
    return high


def _keys_of_equals(known: Iterable[str]) -> dict[str, deque[str]]:
    """The known keys of each digest that has a numbered one, in order."""
    known = list(known)
    reusable: dict[str, deque[str]] = {key.partition("#")[0]: deque() for key in known if "#" in key}
    for key in known:
        if (names := reusable.get(key.partition("#")[0])) is not None:
            names.append(key)
    return reusable


def found_message(key: str, message: Scanned, uid: int = 0) -> Found:
    """The message as the index is told of it."""
    return Found(key, message.place.encode(), message.place.flags, message.internal_date, uid, message.size)


def foreign_uids(messages: Iterable[Scanned], uidnext: int) -> dict[int, int]:
    """UIDs by offset, as far as they ascend and the mailbox gave them, whose next one is `uidnext`.

    One above that came with the message, from another mailbox or from a sender who means ill.
    """
    uids: dict[int, int] = {}
    last = 0
    for message in messages:
        if last < message.fields.uid <= uidnext:
            last = uids[message.place.offset] = message.fields.uid
            uidnext = max(uidnext, last + 1)
    return uids


def merged_flags(before: Flags, after: Flags, theirs: Flags) -> Flags:
    """Their flags, with what was changed from `before` to `after`."""
    return (theirs | (after - before)) - (before - after)
