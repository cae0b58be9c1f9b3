"""Addresses without a domain, in header fields."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.qualify import qualified_header, qualified_list


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bob", "bob@x.org"),
        (" bob, carol@y.org,dave ", " bob@x.org, carol@y.org,dave@x.org "),
        ("user1, Hello, ", "user1@x.org, Hello@x.org, "),
        ("Bob <bob>", "Bob <bob@x.org>"),
        ("Bob < bob >", "Bob < bob@x.org >"),
        ("Bob <bob@y>", "Bob <bob@y>"),
        ("<>", "<>"),
        ("root (Cron Daemon)", "root@x.org (Cron Daemon)"),
        ("(a, b) bob (c)", "(a, b) bob@x.org (c)"),
        ('"a, b"', '"a, b"@x.org'),
        ('"Bob, the" <bob>', '"Bob, the" <bob@x.org>'),
        ("bob.b+c", "bob.b+c@x.org"),
        ("Hello bob", "Hello bob"),
        ("undisclosed-recipients:;", "undisclosed-recipients:;"),
        ("friends: bob, carol@y;, dave", "friends: bob@x.org, carol@y;, dave@x.org"),
        ("bob @ y", "bob @ y"),
        ("<@a,@b:bob>", "<@a,@b:bob>"),
        ("bob@[127.0.0.1]", "bob@[127.0.0.1]"),
        ("bob,\n\tcarol\n", "bob@x.org,\n\tcarol@x.org\n"),
        ("", ""),
        (",,", ",,"),
        ('"bob', '"bob@x.org'),
        ("bob (((", "bob@x.org ((("),
    ],
)
def test_lists(before: str, after: str) -> None:
    """Only the missing part is put in."""
    assert qualified_list(before.encode(), b"x.org").decode() == after


def test_header() -> None:
    """Fields with addresses, in any spelling; others and broken lines stay."""
    before = b"To: bob\nTOO: bob\nSubject: to bob\nCC:\n carol\nResent-Sender : dave\n\nTo: bob\n"
    after = b"To: bob@x\nTOO: bob\nSubject: to bob\nCC:\n carol@x\nResent-Sender : dave@x\n\nTo: bob\n"
    assert qualified_header(before, b"x") == after
    assert qualified_header(b"no field\nTo: bob\n", b"x") == b"no field\nTo: bob\n"


@given(st.binary(max_size=200))
def test_nothing_is_lost(value: bytes) -> None:
    """Any octets: what goes out without the insertions is what came in."""
    once = qualified_list(value, b"\0")
    assert once.replace(b"@\0", b"") == value.replace(b"@\0", b"")


@pytest.mark.parametrize("piece", [b'"', b"(", b"<", b"\\", b'a"\\', b",", b"[", b"a ", b"@", b":"])
def test_linear(piece: bytes) -> None:
    """B18: no input is expensive."""
    start = time.process_time()
    qualified_list(piece * 100_000, b"x")
    assert time.process_time() - start < 5
