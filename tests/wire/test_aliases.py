"""The right-hand sides of aliases(5), and the text of .forward and :include: files."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.envelope import Address
from mailserver.wire.aliases import (
    Destination,
    Include,
    ToAddress,
    ToCommand,
    ToFile,
    ToMailbox,
    Unusable,
    parse_destinations,
    parse_file,
)


def to(local: str, domain: str = "") -> ToAddress:
    return ToAddress(Address(local, domain))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice", [to("alice")]),
        ("alice, bob@example.org ,,carol", [to("alice"), to("bob", "example.org"), to("carol")]),
        ("", []),
        (" , ", []),
        ('"bob smith"@example.org', [to("bob smith", "example.org")]),
        ('"bob smith"', [to("bob smith")]),
        ("Bob <bob@example.org>", [to("bob", "example.org")]),
        ('"|exit 67"', [ToCommand("exit 67")]),
        ('"|echo 4.2.9 wait; exit 1"', [ToCommand("echo 4.2.9 wait; exit 1")]),
        ("|/usr/bin/cmd", [ToCommand("/usr/bin/cmd")]),
        ('"|cmd \\"a, b\\"", alice', [ToCommand('cmd "a, b"'), to("alice")]),
        (
            "\"|IFS=' ' && exec /usr/bin/procmail -f- || exit 75 #bob\"",
            [ToCommand("IFS=' ' && exec /usr/bin/procmail -f- || exit 75 #bob")],
        ),
        ("/var/log/mail.copy", [ToFile("/var/log/mail.copy")]),
        ('"/var/my mail/"', [ToFile("/var/my mail/")]),
        (":include:/etc/list", [Include("/etc/list")]),
        ('":include: /etc/my list"', [Include("/etc/my list")]),
        (r'\alice, "|/usr/bin/vacation alice"', [ToMailbox("alice"), ToCommand("/usr/bin/vacation alice")]),
        (r'"\\alice"', [ToMailbox("alice")]),
        ("alice+list@example.org", [to("alice+list", "example.org")]),
    ],
)
def test_destinations(text: str, expected: list[Destination]) -> None:
    """aliases(5), local(8)."""
    assert parse_destinations(text) == expected


@pytest.mark.parametrize("text", ['"abc', "|", '"|"', ":include:relative", "a@@b", "@x", "a b", '"|a\0b"'])
def test_a_bad_word_is_marked_and_the_others_count(text: str) -> None:
    """One bad word must not stop mail to the others."""
    (bad, good) = [*parse_destinations(text), *parse_destinations("bob")]
    assert isinstance(bad, Unusable)
    assert bad.reason
    assert good == to("bob")


def test_files_have_comments_and_lines() -> None:
    """A # begins a comment only at the beginning of a line; CRLF and no last line end are fine."""
    text = b'# who\nalice, bob\r\n\n  # more\n"|cmd #1"\ncarol'
    assert parse_file(text) == [(2, to("alice")), (2, to("bob")), (5, ToCommand("cmd #1")), (6, to("carol"))]


@given(st.text(alphabet='ab"\\,@|/:. <>\n', max_size=60))
def test_any_text_gives_destinations(text: str) -> None:
    """Nothing raises; each word is accounted for."""
    for destination in parse_destinations(text):
        assert destination
    parse_file(text.encode())


@pytest.mark.parametrize("text", ['"' * 20_001, '"\\' * 10_000, "a," * 10_000, "|" * 20_000, "<" * 20_000])
def test_long_right_hand_sides_cost_little(text: str) -> None:
    """B18: linear."""
    began = time.process_time()
    parse_destinations(text)
    assert time.process_time() - began < 0.5
