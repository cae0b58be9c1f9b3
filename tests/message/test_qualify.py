"""Addresses without a domain, in header fields."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.qualify import Completion


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
        ('a@y.z, "b, c" <d@z.y>,\n e f <g@h.i>\n', 'a@y.z, "b, c" <d@z.y>,\n e f <g@h.i>\n'),
        ("a@y.z, <d@z.y>, bob", "a@y.z, <d@z.y>, bob@x.org"),
    ],
)
def test_lists(before: str, after: str) -> None:
    """Only the missing part is put in."""
    assert Completion(b"x.org").list(before.encode()).decode() == after


def test_header() -> None:
    """Fields with addresses, in any spelling; others and broken lines stay."""
    before = b"To: bob\nTOO: bob\nSubject: to bob\nCC:\n carol\nResent-Sender : dave\n\nTo: bob\n"
    after = b"To: bob@x\nTOO: bob\nSubject: to bob\nCC:\n carol@x\nResent-Sender : dave@x\n\nTo: bob\n"
    assert Completion(b"x").header(before) == after
    assert Completion(b"x").header(b"no field\nTo: bob\n") == b"no field\nTo: bob\n"


@given(st.binary(max_size=200))
def test_nothing_is_lost(value: bytes) -> None:
    """Any octets: what goes out without the insertions is what came in."""
    once = Completion(b"\0").list(value)
    assert once.replace(b"@\0", b"") == value.replace(b"@\0", b"")


@pytest.mark.parametrize("piece", [b'"', b"(", b"<", b"\\", b'a"\\', b",", b"[", b"a ", b"@", b":"])
def test_linear(piece: bytes) -> None:
    """B18: no input is expensive."""
    start = time.process_time()
    Completion(b"x").list(piece * 100_000)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("bob, Carol <carol@host>", "bob, Carol <carol@host.d.org>"),
        ('"x y"@h, z@[192.0.2.1], d@h.', '"x y"@h.d.org, z@[192.0.2.1], d@h.'),
        ("friends: a@h, b@h.test;", "friends: a@h.d.org, b@h.test;"),
        ("a@h (at home)", "a@h.d.org (at home)"),
        ("a@h b", "a@h b"),
    ],
)
def test_hosts_get_a_domain(before: str, after: str) -> None:
    """append_dot_mydomain, without append_at_myorigin: as Postfix does it; then both; then neither."""
    assert Completion(domain=b"d.org").list(before.encode()).decode() == after
    assert Completion().header(f"To: {before}\n".encode()).decode() == f"To: {before}\n"
    assert Completion(b"x", b"d.org").list(b"a, b@c") == b"a@x, b@c.d.org"
