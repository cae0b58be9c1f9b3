"""What is done to content before it is queued."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.queue.cleanup import MEMORY_LIMIT, Cleanup, CleanupRules, ContentRefused

OURS = b"Received: from x\n\tby mx; now\n"


def cleaned(
    content: bytes, rules: CleanupRules | None = None, missing: Mapping[str, str] | None = None, step: int = 0
) -> bytes:
    """The content as it is queued, fed in pieces of `step` octets."""
    cleanup = Cleanup(rules or CleanupRules(), OURS, missing)
    pieces = [content[at : at + step] for at in range(0, len(content), step)] if step else [content]
    return b"".join([*map(cleanup.feed, pieces), cleanup.finish()])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"A: b\n\nbody\n", b"A: b\n\nbody\n"),
        (b"A: b\n\nbody", b"A: b\n\nbody\n"),
        (b"", b"\n"),
        (b"\n", b"\n"),
        (b"\nbody\n", b"\nbody\n"),
        (b"A: b\n", b"A: b\n\n"),
        (b"A: b", b"A: b\n\n"),
        (b"A: b\n c\n\nx\n", b"A: b\n c\n\nx\n"),
        (b"body without header\n", b"\nbody without header\n"),
        (b" leading space\nA: b\n\nx\n", b"\n leading space\nA: b\n\nx\n"),
        (b"A: b\nbroken off\nC: d\n\nx\n", b"A: b\n\nbroken off\nC: d\n\nx\n"),
        (b"From a@b  Mon Jan 1\nA: b\n\nx\n", b"X-Mailbox-Line: From a@b  Mon Jan 1\nA: b\n\nx\n"),
        (b"Bcc: secret@x\n continued\nA: b\n\nBcc: body\n", b"A: b\n\nBcc: body\n"),
        (b"return-path: <x>\nContent-Length: 5\nA: b\n\n", b"A: b\n\n"),
        (b"A: Bcc: no\n\nx\n", b"A: Bcc: no\n\nx\n"),
        (b"Subject: \xff\xe9\n\n\x00\xff\n", b"Subject: \xff\xe9\n\n\x00\xff\n"),
    ],
)
def test_the_header_is_completed_and_the_body_untouched(content: bytes, expected: bytes) -> None:
    """RFC 5322 §3.5; our field first, nothing of the sender's can continue it (B12)."""
    assert cleaned(content) == OURS + expected
    assert cleaned(content, step=1) == OURS + expected


@given(st.binary(max_size=200), st.integers(1, 50))
def test_borders_of_pieces_do_not_matter(content: bytes, step: int) -> None:
    """The same octets come out however the segments were cut."""
    assert cleaned(content, step=step) == cleaned(content)


@given(st.text(alphabet="Ab: \n\t", max_size=40))
def test_what_comes_out_is_header_blank_line_body(text: str) -> None:
    """Whatever was sent, a reader finds a header of fields, and then a blank line."""
    result = cleaned(text.encode())
    header, blank, _ = result.partition(b"\n\n")
    assert blank or result.endswith(b"\n")
    assert re.fullmatch(rb"(?:[!-9;-~]+[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*(?:\n|\Z))*", header)


@pytest.mark.parametrize(("hops", "refused"), [(48, False), (49, True), (50, True), (100, True)])
def test_hops_are_counted_with_ours(hops: int, refused: bool) -> None:
    """F49: rejected at 50, ours included. RFC 5321 §6.3."""
    content = b"received: x\n y\n" * hops + b"X-Received: no\n\nReceived: body\n"
    if not refused:
        assert cleaned(content).count(b"received: x") == hops
        return
    with pytest.raises(ContentRefused) as refusal:
        cleaned(content, step=100)
    assert (refusal.value.code, refusal.value.dsn, refusal.value.text) == (
        554,
        "5.4.0",
        "Error: too many hops",
    )


@pytest.mark.parametrize(("over", "refused"), [(-1, False), (0, False), (1, True)])
def test_the_size_limit_counts_our_fields(over: int, refused: bool) -> None:
    """F19: at the limit less one, exact, and one more."""
    rules = CleanupRules(message_size_limit=1000)
    content = b"A: b\n\n" + b"x" * (1000 + over - len(OURS) - len(b"A: b\n\n\n")) + b"\n"
    if not refused:
        assert len(cleaned(content, rules, step=64)) == 1000 + over
        return
    with pytest.raises(ContentRefused, match=r"552 5\.3\.4 Error: message file too big"):
        cleaned(content, rules, step=64)


def test_after_a_refusal_nothing_is_kept() -> None:
    """A message that is too big costs no memory or disk for its rest."""
    cleanup = Cleanup(CleanupRules(message_size_limit=100), OURS)
    cleanup.feed(b"A: b\n\n" + b"x" * 100)
    assert cleanup.feed(b"y" * 1000) == b""


def test_missing_fields_are_added_for_local_clients() -> None:
    """always_add_missing_headers, local_header_rewrite_clients; Resent- forms in resent messages."""
    missing = {"Message-Id": "<1@mx>", "Date": "now", "From": "alice@example.org"}
    assert cleaned(b"date: then\n\n", missing=missing) == (
        OURS + b"date: then\nMessage-Id: <1@mx>\nFrom: alice@example.org\n\n"
    )
    resent = cleaned(b"Resent-From: bob\nFrom: x\n\n", missing=missing)
    assert resent == OURS + b"Resent-From: bob\nFrom: x\nResent-Message-Id: <1@mx>\nResent-Date: now\n\n"
    assert cleaned(b"", missing={"From": "é@x"}) == OURS + "From: é@x\n\n".encode()


def test_the_message_id_is_known_after_the_header() -> None:
    """The log shows it."""
    for content, expected in (
        (b"MESSAGE-ID: <a@b> \n\n", "<a@b>"),
        (b"Message-Id:\n <a@b>\n\n", "<a@b>"),
        (b"\n", ""),
    ):
        cleanup = Cleanup(CleanupRules(), OURS)
        cleanup.feed(content)
        cleanup.finish()
        assert cleanup.message_id == expected


@pytest.mark.parametrize("unit", [b"A: b\n", b"A" * 100, b"A: b\n c\n", b"A" * 50 + b":\n", b"Received:\n"])
def test_endless_headers_cost_bounded_memory_and_linear_time(unit: bytes) -> None:
    """B16, B18: also byte by byte lines that never end the header."""
    content = unit * (3 * MEMORY_LIMIT // len(unit))
    rules = CleanupRules(hopcount_limit=0)
    began = time.process_time()
    assert len(cleaned(content, rules, step=16)) >= len(content)
    assert time.process_time() - began < 3


@pytest.mark.parametrize("step", [0, 4093])
def test_a_header_over_the_limit_passes_whole(step: int) -> None:
    """Nothing is cut off or broken where examination ends, in the middle of a line."""
    rules = CleanupRules(message_size_limit=0)
    content = b"A: " + b"word " * 7 + b"\n"
    content = content * (2 * MEMORY_LIMIT // len(content)) + b"\nbody\n"
    assert cleaned(content, rules, step=step) == OURS + content
    one_line = b"A: " + b"x" * 2 * MEMORY_LIMIT + b"\n\nbody\n"
    assert cleaned(one_line, rules, step=4093) == OURS + b"\n" + one_line


@pytest.mark.parametrize("step", [0, 1000])
def test_an_overlong_field_loses_its_excess(step: int) -> None:
    """header_size_limit: whole lines of it, or of its one line what is too much; the rest stands."""
    rules = CleanupRules(header_size_limit=1000)
    folded, long = b"X-Folded: a\n" + b" 123456789\n" * 200, b"X-Long: " + b"x" * 2000 + b"\n"
    cut_folded, cut_long = folded[: 12 + 89 * 11], long[:1000] + b"\n"
    content = b"A: b\n%bC: d\n%bE: f\n\n%b" % (folded, long, folded)
    expected = b"A: b\n%bC: d\n%bE: f\n\n%b" % (cut_folded, cut_long, folded)
    assert cleaned(content, rules, step=step) == OURS + expected
    assert cleaned(content, CleanupRules(header_size_limit=0), step=step) == OURS + content


def test_an_overlong_field_is_told_of_once() -> None:
    """Nobody loses octets in silence."""
    cleanup = Cleanup(CleanupRules(header_size_limit=10))
    cleanup.feed(b"Subject: abcdefgh\nTo: abcdefghijk\n\n")
    cleanup.finish()
    text = "longer than header_size_limit = 10: the excess is left out"
    assert cleanup.findings.notes == [("warning", "header", "Subject: abcdefgh...", text)]
