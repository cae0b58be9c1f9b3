"""ACLs as text and as a decision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.store.acl import (
    ALL,
    RIGHTS,
    Acl,
    BadAcl,
    Identifier,
    Kind,
    Person,
    parse_acl,
    parse_rights,
    render_acl,
    render_rights,
    render_with_obsolete,
)

ALICE = Person("alice", frozenset({"g1", "g2"}))
BOB = Person("bob")

# What Debian's Dovecot 2.3.19 told by MYRIGHTS, to alice of bob's mailbox and to bob.
MEASURED = [
    ("anyone lr\nuser=alice lw\n", "lw", RIGHTS),
    ("anyone lr\ngroup=g1 li\ngroup=g2 lk\n", "lik", RIGHTS),
    ("user=alice lrw\n-anyone w\n", "lr", RIGHTS.replace("w", "")),
    ("anyone lrws\n-user=alice w\n", "lrs", RIGHTS),
    ("authenticated l\nanyone lr\n", "l", RIGHTS),
    ("group=g1 lr\n-group=g2 r\n", "l", RIGHTS),
    ("user=alice lr\ngroup-override=g1 l\n", "l", RIGHTS),
    ("owner lra\nanyone lrwi\n", "lrwi", "lra"),
    ("-group=g1 r\nuser=alice lr\n", "l", RIGHTS),
    ("anyone lrws\nuser=carol lr\n", "lrws", RIGHTS),
    ("anyone\nuser=alice lr :write\n", "lrw", RIGHTS),
    ("# comment\n\nuser=alice lr\n", "lr", RIGHTS),
    ("-owner w\n", "", RIGHTS.replace("w", "")),
    ('"user=alice" lr\n', "lr", RIGHTS),
    ("user=bob r\nowner lra\n", "", "lra"),
]


@pytest.mark.parametrize(("text", "for_alice", "for_owner"), MEASURED)
def test_who_may_what(text: str, for_alice: str, for_owner: str) -> None:
    """The most specific identifier counts, groups together; negative entries take away. As Dovecot has it."""
    acl = parse_acl(text)
    assert acl.rights_of(ALICE, is_owner=False) == set(for_alice)
    assert acl.rights_of(BOB, is_owner=True) == set(for_owner)


def test_the_owner_is_not_locked_out() -> None:
    """Whatever the entries say, the owner sees the mailbox and can change its ACL."""
    acl = parse_acl("owner r\n-user=bob la\n-anyone lrswipkxtea\n")
    assert acl.rights_of(BOB, is_owner=True) == {"l", "a"}
    assert not acl.rights_of(BOB, is_owner=False)


@pytest.mark.parametrize(
    "text",
    ["garbage lr", "user=alice lrQ", "user= lr", "user=x lr :nothing", '"user=x lr', "group= l", "- l"],
)
def test_what_is_no_acl(text: str) -> None:
    """A line that nobody understands makes the whole file unusable: its meaning may be to withhold."""
    with pytest.raises(BadAcl, match="line 2"):
        parse_acl("user=bob l\n" + text + "\n")


@pytest.mark.parametrize(
    ("letters", "rights", "told"),
    [
        ("lrswida", "lrswitea", "lrswiteda"),
        ("lrswikda", "lrswiktea", "lrswiktecda"),
        ("c", "kx", "kxc"),
        ("", "", ""),
    ],
)
def test_obsolete_rights(letters: str, rights: str, told: str) -> None:
    """`c` and `d` stand for kx and te, and are told where one of these is there. RFC 4314 §2.1.1."""
    assert render_rights(parse_rights(letters)) == rights
    assert render_with_obsolete(parse_rights(letters)) == told


def test_changing() -> None:
    """Values do not change; an empty negative entry goes, an empty positive one stays: it names somebody."""
    alice = Identifier(Kind.USER, "alice")
    empty = Acl()
    acl = empty.changed(alice, lambda before: before | {"l"}).changed(
        alice, lambda b: {"w"}, is_negative=True
    )
    assert not empty
    assert render_acl(acl) == "user=alice l\n-user=alice w\n"
    acl = acl.changed(alice, lambda before: frozenset(), is_negative=True).changed(
        alice, lambda b: frozenset()
    )
    assert render_acl(acl) == "user=alice\n"
    assert not acl.without(alice)


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=20)
identifiers = st.one_of(
    st.sampled_from([Identifier(k) for k in (Kind.ANYONE, Kind.AUTHENTICATED, Kind.OWNER)]),
    st.builds(Identifier, st.sampled_from([Kind.USER, Kind.GROUP, Kind.GROUP_OVERRIDE]), names),
)
rights = st.frozensets(st.sampled_from(RIGHTS))


@given(st.dictionaries(identifiers, rights), st.dictionaries(identifiers, rights))
def test_round_trip(
    granted: dict[Identifier, frozenset[str]], withheld: dict[Identifier, frozenset[str]]
) -> None:
    """What is written is read again, whatever the names are."""
    acl = Acl(granted, withheld)
    assert parse_acl(render_acl(acl)) == acl
    assert acl.rights_of(BOB, is_owner=False) <= ALL
