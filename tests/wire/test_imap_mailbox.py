"""Mailbox names and LIST's wildcards. RFC 3501 §5.1, §6.3.8."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.imap_arguments import ImapSyntaxError
from mailserver.wire.imap_mailbox import (
    InvalidMailboxName,
    canonical_pattern,
    decode_modified_utf7,
    encode_modified_utf7,
    mailbox_name,
    matches,
)


@pytest.mark.parametrize(
    ("text", "raw"),
    [("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"), ("Entwürfe", b"Entw&APw-rfe"),
     ("A&B", b"A&-B"), ("\U0001f600", b"&2D3eAA-"), ("", b"")],
)  # fmt: skip
def test_examples(text: str, raw: bytes) -> None:
    """The RFC's example, and others."""
    assert encode_modified_utf7(text) == raw
    assert decode_modified_utf7(raw) == text


@pytest.mark.parametrize(
    "raw",
    [b"&", b"a&", b"&AC8-", b"&AGE-", b"&APw", b"&APw-&APw-", b"&2D0-", b"&APx-", b"&A-", b"\xfc", b"a\tb",
     b"&AAA-\0", b"&U,BTFw=-"],
)  # fmt: skip
def test_only_the_canonical_spelling_is_taken(raw: bytes) -> None:
    """A shifted `/`, a shifted ASCII letter, lone surrogates, stray bits: all refused. RFC 3501 §5.1.3."""
    with pytest.raises(InvalidMailboxName):
        decode_modified_utf7(raw)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
def test_round_trip(text: str) -> None:
    """Every text has a spelling, and that spelling gives the text."""
    assert decode_modified_utf7(encode_modified_utf7(text)) == text


@given(st.binary(max_size=30))
def test_decoding_is_injective(raw: bytes) -> None:
    """What decodes has no other spelling."""
    try:
        assert encode_modified_utf7(decode_modified_utf7(raw)) == raw
    except ImapSyntaxError:
        pass


HOSTILE = [
    b"", b"/", b"//", b".", b"..", b"../x", b"a/../b", b"a/./b", b"a//b", b"/etc/passwd", b"~root", b"~/x",
    b"a/..", b"../../etc/passwd", b"a\0b", b"a\x1bb", b"a\x7f", b"&AC8-", b"a/&AC4ALg-/b", b"x" * 241,
    b"/".join([b"a"] * 17), b"INBOX/..", b"INBOX//x", b"&AAA-", b"&AAo-", b"&IA4-/../x", b"&2AA-", b"a/",
]  # fmt: skip


@pytest.mark.parametrize("raw", HOSTILE[:-1])
def test_hostile_names_are_refused(raw: bytes) -> None:
    """No name leaves its place, none has control characters, none is endless."""
    with pytest.raises(InvalidMailboxName):
        mailbox_name(raw)


def test_inbox_has_one_spelling() -> None:
    """INBOX is compared without case, as a first level too. RFC 3501 §5.1."""
    assert mailbox_name(b"iNbOx") == "INBOX"
    assert mailbox_name(b"inbox/Sub") == "INBOX/Sub"
    assert mailbox_name(b"inboxes") == "inboxes"
    assert mailbox_name(b"a/") == "a"
    assert mailbox_name("e\u0301".encode(), takes_utf8=True) == "\u00e9"


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [("*", "a/b", True), ("%", "a/b", False), ("%/%", "a/b", True), ("a*", "a", True), ("a%b", "axyb", True),
     ("a%b", "ax/b", False), ("*b", "a/b", True), ("", "a", False), ("INBOX", "INBOXES", False),
     ("a.b", "axb", False)],
)  # fmt: skip
def test_wildcards(pattern: str, name: str, is_match: bool) -> None:
    """`*` stands for anything, `%` for anything within a level."""
    assert matches(pattern, name) is is_match


@given(st.text("ab/*%", max_size=8), st.text("ab/", max_size=10))
def test_matching_agrees_with_a_regular_expression(pattern: str, name: str) -> None:
    """The model is the obvious regular expression."""
    model = "".join({"*": ".*", "%": "[^/]*"}.get(letter, re.escape(letter)) for letter in pattern)
    assert matches(pattern, name) == bool(re.fullmatch(model, name))
    assert matches(canonical_pattern("", pattern), name) == bool(re.fullmatch(model, name))


def test_matching_is_linear() -> None:
    """`*a*a*a…b` on a long name answers at once (twisted: a polynomial regular expression)."""
    assert not matches("*a" * 100 + "b", "a" * 240)
    assert matches("*a" * 100 + "*", "a" * 240)
