"""Mailbox names on disk: every allowed name has one place, and none leaves the root. RELIABILITY B9."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.contract import BadMailboxName
from mailserver.store.names import RESERVED, checked_name, dotted, from_dotted, from_plain, plain
from tests.store.contract_suite import HOSTILE_NAMES, ODD_NAMES

LEVELS = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=12)
NAMES = st.lists(LEVELS | st.sampled_from(["cur", ".", "..", "a.lock", ".b", "~", "INBOX"]), max_size=4)


@given(NAMES.map("/".join))
def test_a_name_is_refused_or_comes_back(text: str) -> None:
    """What is accepted maps to one path below the root, and back."""
    try:
        name = checked_name(text)
        directory, levels = dotted(name), plain(name)
    except BadMailboxName:
        return
    assert checked_name(name) == name
    assert "/" not in directory and directory.startswith(".") and not directory.startswith("..")
    assert all(level not in ("", ".", "..") and "/" not in level for level in levels)
    assert os.path.normpath("/root/" + "/".join(levels)).startswith("/root/")
    assert from_dotted(directory) == name
    assert from_plain(levels) == name


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names(name: str) -> None:
    """Refused, with a reason that a client can be told."""
    with pytest.raises(BadMailboxName, match="Mailbox name"):
        checked_name(name)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name: str) -> None:
    """Accepted."""
    assert from_dotted(dotted(checked_name(name))) == name
    assert from_plain(plain(name)) == name


def test_inbox_has_one_spelling() -> None:
    """INBOX is case-insensitive, also as a parent. RFC 3501 §5.1."""
    assert checked_name("iNbOx") == "INBOX"
    assert checked_name("inbox/Sub") == "INBOX/Sub"
    assert checked_name("Inboxes") == "Inboxes"


def test_composed_and_decomposed_are_one_name() -> None:
    """Names are NFC."""
    assert checked_name("A\u0308") == "\u00c4"


@pytest.mark.parametrize(
    ("name", "directory"),
    [("Work", ".Work"), ("Work/2024", ".Work.2024"), ("Entw\u00fcrfe", ".Entw&APw-rfe"), ("a.b", ".a\\2eb")],
)
def test_maildir_names_are_dovecots(name: str, directory: str) -> None:
    """Modified UTF-7, dots between levels, listescape's form for a dot in a level."""
    assert dotted(name) == directory


@pytest.mark.parametrize("directory", ["cur", "..removed-1", ".", "..", ".a..b", ".INBOX/.."])
def test_what_is_no_folder(directory: str) -> None:
    """Directories that nobody can have meant as folders."""
    assert from_dotted(directory) is None


def test_names_of_other_programs() -> None:
    """A UTF-8 name that another program made is shown as it is, composed; and what is no modified UTF-7."""
    assert from_dotted(".Entw\u00fcrfe") == "Entw\u00fcrfe"
    assert from_dotted(".Entwu\u0308rfe") == "Entw\u00fcrfe"
    assert from_dotted(".A&B.&AC8-") == "A&B/&AC8-"
    assert from_dotted(".back\\slash.\\5cx") == "back\\slash/\\x"


@given(NAMES.map("/".join), st.sampled_from([frozenset(), RESERVED]))
def test_a_name_in_utf_8_comes_back(text: str, reserved: frozenset[str]) -> None:
    """Where Dovecot's location says UTF-8, nothing is taken for modified UTF-7."""
    try:
        name = checked_name(text)
        directory, levels = dotted(name, utf8=True), plain(name, True, reserved)
    except BadMailboxName:
        return
    assert from_dotted(directory, utf8=True) == name
    assert from_plain(levels, True, reserved) == name
    assert from_dotted(".A&-B", utf8=True) == "A&-B"
