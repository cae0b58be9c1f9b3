"""ENVELOPE. The expected values were observed on Dovecot 2.3.19 unless a comment says why not."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.addresses import parse_addresses
from mailserver.message.imap_envelope import address_list, envelope_of_header, render_envelope, string

OBSERVED = [
    (b"a@b.c", b'((NIL NIL "a" "b.c"))'),
    (b"Joe <a@b.c>", b'(("Joe" NIL "a" "b.c"))'),
    (b'"Joe, X" <a@b.c>, b@c', b'(("Joe, X" NIL "a" "b.c")(NIL NIL "b" "c"))'),
    (b"Joe Q. Public <a@b>", b'(("Joe Q. Public" NIL "a" "b"))'),
    (b"a@b (Joe (nested) x)", b'(("Joe (nested) x" NIL "a" "b"))'),
    (
        b"Group: a@b, Joe <c@d>;",
        b'((NIL NIL "Group" NIL)(NIL NIL "a" "b")("Joe" NIL "c" "d")(NIL NIL NIL NIL))',
    ),
    (b"undisclosed-recipients:;", b'((NIL NIL "undisclosed-recipients" NIL)(NIL NIL NIL NIL))'),
    (b"G:;,b@c", b'((NIL NIL "G" NIL)(NIL NIL NIL NIL)(NIL NIL "b" "c"))'),
    (b"G: a@b", b'((NIL NIL "G" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL))'),
    (b"alice", b'((NIL NIL "alice" "MISSING_DOMAIN"))'),
    (b"Alice <alice>", b'(("Alice" NIL "alice" "MISSING_DOMAIN"))'),
    (b"<>", b'((NIL NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))'),
    (b"", b"NIL"),
    (b'"quoted local"@b.c', b'((NIL NIL "quoted local" "b.c"))'),
    (b'"q\\"x"@b', b'((NIL NIL "q\\"x" "b"))'),
    (b"Joe <@r1,@r2:a@b>", b'(("Joe" "@r1,@r2" "a" "b"))'),
    (b"=?utf-8?q?J=C3=B6?= <a@b>", b'(("=?utf-8?q?J=C3=B6?=" NIL "a" "b"))'),
    (b"J\xc3\xb6 <a@b>", b'(({3}\r\nJ\xc3\xb6 NIL "a" "b"))'),
    (b'"J\xe9" <a@b>', b'(({2}\r\nJ\xe9 NIL "a" "b"))'),
    (b"a@[1.2.3.4]", b'((NIL NIL "a" "[1.2.3.4]"))'),
    (b"a @ b . c", b'((NIL NIL "a" "b.c"))'),
    (b'Joe "X" Y <a@b>', b'(("Joe X Y" NIL "a" "b"))'),
    (b"a..b@c", b'((NIL NIL "a..b" "c"))'),
    (b"Joe <a@b> (comment)", b'(("Joe" NIL "a" "b"))'),
    (b'"a\\b" <x@y>', b'(("ab" NIL "x" "y"))'),
    (b"  spaced   name  <x@y>", b'(("spaced name" NIL "x" "y"))'),
    (b"a b c, d@e", b'(("a b c" NIL "MISSING_MAILBOX" "MISSING_DOMAIN")(NIL NIL "d" "e"))'),
    (b'"" <a@b>', b'((NIL NIL "a" "b"))'),
    (b"a@b\x00c", b'((NIL NIL "a" "b"))'),
    (b"<a@b> Joe", b'((NIL NIL "a" "b"))'),
    (b"@b", b'((NIL NIL "MISSING_MAILBOX" "b"))'),
    # A comment is the name of a bare address that it follows, and of no other:
    (b"(comment) a@b", b'((NIL NIL "a" "b"))'),
    (b"<a@b> (comment)", b'((NIL NIL "a" "b"))'),
    (b"<a@ (comment) b>", b'((NIL NIL "a" "b"))'),
    (b"a@b (x), (y) c@d", b'(("x" NIL "a" "b")(NIL NIL "c" "d"))'),
    (b"a (x) @b (y)", b'(("y" NIL "a" "b"))'),
    # Ours goes on where Dovecot gives up at the first error:
    (b"a@b,,c@d", b'((NIL NIL "a" "b")(NIL NIL "c" "d"))'),
    (b"a@b; c@d", b'((NIL NIL "a" "b")(NIL NIL "c" "d"))'),
    (b"Joe <a@b> x, y@z", b'(("Joe" NIL "a" "b")(NIL NIL "y" "z"))'),
    (b"Joe <a@b", b'(("Joe" NIL "a" "b"))'),
    (b"Joe a@b>", b'(("Joe" NIL "a" "b"))'),
]


@pytest.mark.parametrize(("value", "rendered"), OBSERVED)
def test_address_lists(value: bytes, rendered: bytes) -> None:
    """RFC 3501 §7.4.2; RFC 5322 §3.4 and §4.4."""
    assert address_list(parse_addresses(value)) == rendered


def test_the_whole_envelope() -> None:
    """Fields come in any order; repeated address fields are one list; Sender and Reply-To default.

    White space as Dovecot tells it: runs of it in a Subject are one space, other texts keep theirs.
    """
    header = (
        b"Date: Mon, 1 Jan\r\n 2024 (x)\r\nSubject:   a  b\r\n\tc \r\nFrom: x@y\r\nSender:\r\nReply-To: \r\n"
        b"To: a@b\r\nTO : c@d\r\nCc: q@r\r\nBcc: z@z\r\n"
        b"In-Reply-To: <a@b>\r\n <c@d>\r\nMessage-ID:\r\n <x@y> \r\n\r\n"
    )
    assert envelope_of_header(header) == (
        b'("Mon, 1 Jan 2024 (x)" "a b c" ((NIL NIL "x" "y")) ((NIL NIL "x" "y")) ((NIL NIL "x" "y"))'
        b' ((NIL NIL "a" "b")(NIL NIL "c" "d")) ((NIL NIL "q" "r")) ((NIL NIL "z" "z"))'
        b' "<a@b> <c@d>" " <x@y> ")'
    )


def test_missing_and_empty_fields() -> None:
    """A field that is not there is NIL, one that is empty an empty string. RFC 3501 §7.4.2."""
    assert render_envelope(b"") == b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
    assert render_envelope(b"\r\nFrom: in@the.body\r\n") == b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
    assert render_envelope(b"Subject:\r\nDate:\r\nFrom:\r\nMessage-ID:\r\n\r\n") == (
        b'("" "" NIL NIL NIL NIL NIL NIL NIL "")'
    )


def test_raw_eight_bit_drops_no_connection() -> None:
    """In Twisted it does. Octets that a quoted string cannot hold travel as literals."""
    envelope = render_envelope(b'Subject: caf\xe9 "q" \\ x\r\n\r\n')
    assert envelope == b'(NIL {12}\r\ncaf\xe9 "q" \\ x NIL NIL NIL NIL NIL NIL NIL NIL)'
    assert render_envelope(b"Subject: a\0b\r\n\r\n").startswith(b"(NIL {5}\r\na\xef\xbf\xbdb NIL")


@given(st.binary(max_size=60))
def test_strings_can_be_read_back(text: bytes) -> None:
    """RFC 3501 §4.3: quoted, or a literal of the length it says; never a NUL."""
    rendered = string(text)
    assert b"\0" not in rendered
    if rendered.startswith(b"{"):
        length, _, body = rendered[1:].partition(b"}\r\n")
        assert int(length) == len(body)
        assert body == text.replace(b"\0", b"\xef\xbf\xbd")
    else:
        inner = rendered[1:-1]
        assert inner.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"') == 0
        assert inner.isascii() and b"\r" not in inner and b"\n" not in inner


LOCAL = st.from_regex(rb"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,8}(\.[a-z0-9]{1,4}){0,2}", fullmatch=True)
DOMAIN = st.from_regex(rb"[a-z0-9]{1,8}(\.[a-z]{2,4}){0,2}", fullmatch=True)
NAME = st.from_regex(
    rb'([A-Za-z]{1,8}( [A-Za-z]{1,8}){0,2}|"[A-Za-z,;<>@.]{1,10}( [a-z]{1,4})?")', fullmatch=True
)
ADDRESS = st.tuples(st.none() | NAME, LOCAL, DOMAIN)


@given(st.lists(ADDRESS, min_size=1, max_size=5), st.sampled_from([b", ", b",\r\n\t", b" ,"]))
def test_lists_are_read_as_the_standard_library_reads_them(
    parts: list[tuple[bytes | None, bytes, bytes]], comma: bytes
) -> None:
    """The oracle is stdlib's email on valid lists."""
    written = [b"%b@%b" % part[1:] if part[0] is None else b"%b <%b@%b>" % part for part in parts]
    header = b"To: " + comma.join(written) + b"\r\n\r\n"
    oracle = email.message_from_bytes(header, policy=email.policy.SMTP)["To"].addresses
    found = parse_addresses(b" ".join(comma.join(written).split()))
    assert [(address.name or b"").decode() for address in found] == [known.display_name for known in oracle]
    assert [address.spec.decode() for address in found] == [
        f"{known.username}@{known.domain}" for known in oracle
    ]


@given(st.text(alphabet='aB.@<>,:;"\\() \t=?[]é', max_size=40))
def test_any_value_is_read(value: str) -> None:
    """RFC 7103: no input is an error, and each answer is well-formed."""
    for address in parse_addresses(value.encode()):
        assert address.host or address.name is None
