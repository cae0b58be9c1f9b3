"""The header fields in which an mbox keeps flags and UIDs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.contract import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, SYSTEM_FLAGS
from mailserver.store.mbox_fields import (
    Place,
    fitted,
    header_length,
    key_of,
    message_text,
    split_fields,
    with_flags,
    without_hidden_fields,
)

FLAGS = st.frozensets(st.sampled_from([*SYSTEM_FLAGS, b"$Label1", b"work", b"a,b"]))
HEADER = b"From: a\nSubject: b\n c\nX-Spam-Status: No\n"


@pytest.mark.parametrize(
    ("field", "flags"),
    [
        (b"Status: RO\n", {SEEN}),
        (b"Status: O\n", set()),
        (b"Status: R \nX-Status: AF  \n", {SEEN, ANSWERED, FLAGGED}),
        (b"X-Status: DT\n", {DELETED, DRAFT}),
        (b"x-status:A\n", {ANSWERED}),
        (b"Status: O\nX-Status: F\nStatus: RO\nX-Status: A\n", {SEEN, ANSWERED, FLAGGED}),
        (b"X-Keywords: one two   \n", {b"one", b"two"}),
        (b"X-Keywords: one\n\ttwo \\Seen (bad\n", {b"one", b"two"}),
    ],
)
def test_flags_as_the_others_write_them(field: bytes, flags: set[bytes]) -> None:
    """mutt, mail, s-nail and Dovecot agree on the letters; nothing of it is shown."""
    shown, fields = split_fields(HEADER + field)
    assert (shown, fields.flags) == (HEADER, frozenset(flags))


def test_foreign_uids_and_lengths_are_hidden() -> None:
    """X-UID, X-IMAPbase, Content-Length; Lines only where it follows that, as mutt writes it."""
    header = b"X-IMAPbase: 1234 00056 kw\nX-UID: 55\n" + HEADER + b"Content-Length: 9\nLines: 2\n"
    shown, fields = split_fields(header)
    assert (shown, fields.uid, fields.base) == (HEADER, 55, b"1234 00056 kw")
    assert split_fields(b"Lines: 7\n" + HEADER)[0] == b"Lines: 7\n" + HEADER


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_what_a_stranger_says_of_the_mailbox_is_dropped(length: int) -> None:
    """A sender marks no mail as read or deleted, and gives no UIDs: as Dovecot's delivery agent has it."""
    header = b"X-IMAPbase: 4294967290 4294967290\nStatus: RO\n" + HEADER + b"X-Status: D\nX-UID: 7\n"
    body = b"\nX-UID: 9\n\nStatus: RO\n"
    text = header + body
    pieces = [text[at : at + length] for at in range(0, len(text), length)]
    assert b"".join(without_hidden_fields(pieces)) == HEADER + body
    assert b"".join(without_hidden_fields([b"\n", body])) == b"\n" + body
    assert b"".join(without_hidden_fields([])) == b""


@given(FLAGS, FLAGS)
def test_flags_round_trip(before: frozenset[bytes], after: frozenset[bytes]) -> None:
    """What is written is read, replaces what was there, and leaves the message as it was."""
    header = with_flags(with_flags(HEADER, before), after)
    shown, fields = split_fields(header)
    assert (shown, fields.flags) == (HEADER, after)
    assert header.lower().count(b"\nstatus:") == 1


@given(FLAGS, FLAGS)
def test_change_in_place(before: frozenset[bytes], after: frozenset[bytes]) -> None:
    """Where the room exists the header keeps its length; system flags always have room in ours."""
    header = with_flags(HEADER, before)
    changed = fitted(header, after)
    if changed is None:
        assert any(not flag.startswith(b"\\") for flag in after)
    else:
        assert len(changed) == len(header)
        assert split_fields(changed) == (HEADER, split_fields(with_flags(HEADER, after))[1])


def test_no_room() -> None:
    """A delivered message has no status fields, mutt's have no room: those wait for a rewrite."""
    assert fitted(HEADER, frozenset({SEEN})) is None
    assert fitted(HEADER + b"Status: O\n", frozenset({SEEN})) is None
    assert fitted(HEADER + b"Status: RO\n", frozenset({SEEN, FLAGGED})) is None
    assert fitted(HEADER + b"Status: RO\n", frozenset()) == HEADER + b"Status: O \n"
    assert fitted(HEADER, frozenset()) == HEADER


@given(st.integers(0, 2**40), st.integers(0, 2**40), FLAGS)
def test_places_round_trip(offset: int, length: int, flags: frozenset[bytes]) -> None:
    """The index gives back what it was given."""
    place = Place(offset, length, flags)
    assert Place.decode(place.encode()) == place


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"From a\nA: b\n\nbody\n\n", b"A: b\n\nbody\n"),
        (b"From a\nA: b\n\nbody\n\n\n", b"A: b\n\nbody\n\n"),
        (b"From a\nA: b\n\nbody\n", b"A: b\n\nbody\n"),
        (b"From a\nA: b\n\nbody", b"A: b\n\nbody\n"),
        (b"From a\r\nA: b\r\n\r\nbody\r\n\r\n", b"A: b\r\n\r\nbody\r\n"),
        (b"From a\nA: b\n\n", b"A: b\n"),
        (b"From a\n", b""),
    ],
)
def test_text_of_a_message(raw: bytes, text: bytes) -> None:
    """One empty line separates; a missing last line end does not make another message of it."""
    assert message_text(raw) == text


def test_header_length() -> None:
    """The header ends before the first empty line, whatever its line ends."""
    assert header_length(b"A: b\n\nx\r\n\r\n") == 5
    assert header_length(b"A: b\r\n\r\nx\n\n") == 6
    assert header_length(b"\nA: b\n") == 0
    assert header_length(b"A: b\n") == 5


def test_key_covers_header_and_body() -> None:
    """Other content, other name."""
    assert len({key_of(b"a", b"b"), key_of(b"a", b"c"), key_of(b"b", b"b")}) == 3
