"""One address parser: RFC 5321 §4.1.2, RFC 6531 §3.3, RELIABILITY B11."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.envelope import Address
from mailserver.wire.address import AddressError, is_domain, parse_lenient, scan_path, split_extension

ACCEPTED = [
    (b"<alice@example.org>", "alice", "example.org"),
    (b"<ALICE@EXAMPLE.ORG>", "ALICE", "EXAMPLE.ORG"),
    (b"<alice@example.org.>", "alice", "example.org"),
    (b'<"alice"@example.org>', "alice", "example.org"),
    (b"<alice+x@example.org>", "alice+x", "example.org"),
    (b"<@a.test,@b.test:alice@example.org>", "alice", "example.org"),
    (b"<@[127.0.0.1]:nobody@other.test>", "nobody", "other.test"),
    (b"<postmaster>", "postmaster", ""),
    (b"<Postmaster>", "Postmaster", ""),
    (b"alice@example.org", "alice", "example.org"),
    (b" <alice@example.org>", "alice", "example.org"),
    (b'<"a\\"b"@d>', 'a"b', "d"),
    (b'<"a\\\\b"@d>', "a\\b", "d"),
    (b'<"a b"@d>', "a b", "d"),
    (b'<"u@victim"@d>', "u@victim", "d"),
    (b'<">"@d>', ">", "d"),
    (b"<u@[127.0.0.1]>", "u", "[127.0.0.1]"),
    (b"<u@[IPv6:::1]>", "u", "[IPv6:::1]"),
    (b"<u@[IPv6:2001:db8::1]>", "u", "[IPv6:2001:db8::1]"),
    (b"<a..b@docomo.example>", "a..b", "docomo.example"),
    (b"<.a.@d>", ".a.", "d"),
    (b"<!#$%&'*+-/=?^_`{|}~@d>", "!#$%&'*+-/=?^_`{|}~", "d"),
    (b"<nobody%other.test@d>", "nobody%other.test", "d"),
    (b"<other.test!nobody>", "other.test!nobody", ""),
    (b"<u@under_score.example>", "u", "under_score.example"),
    (b"<u@xn--bcher-kva.example>", "u", "xn--bcher-kva.example"),
    ("<jörg@bücher.example>".encode(), "jörg", "bücher.example"),
    (b"<" + b"l" * 64 + b"@d>", "l" * 64, "d"),
    (b"<u@" + b"a" * 63 + b".example>", "u", "a" * 63 + ".example"),
]

REFUSED = [
    b"",
    b"<",
    b">",
    b"<@>",
    b"<alice@>",
    b"<@example.org>",
    b"<alice@example.org",
    b"alice@example.org>",
    b"<alice@example.org>x",
    b"<<alice@example.org>>",
    b"<alice@example..org>",
    b"<alice@.example.org>",
    b"<alice@-example.org>",
    b"<alice@example-.org>",
    b"<alice@exa mple.org>",
    b"<alice @example.org>",
    b"<ali ce@example.org>",
    b"<a@b@c>",
    b"<nobody@other.test@mx.example.org>",
    b'<""@d>',
    b'<"a@d>',
    b'<a"b"@d>',
    b'<"a"b@d>',
    b'<"a\r"@d>',
    b'<"a\n"@d>',
    b'<"a\0"@d>',
    b'<"a\\\r"@d>',
    b'<"a\x7f"@d>',
    b"<a\0@d>",
    b"<a\t@d>",
    b"<a@d\0>",
    b"<a,b@d>",
    b"<a;b@d>",
    b"<a(c)@d>",
    b"<a@[300.0.0.1]>",
    b"<a@[127.0.0]>",
    b"<a@[]>",
    b"<a@[IPv6:12345::]>",
    b"<a@[IPv6:127.0.0.1]>",
    b"<a@[tag:content]>",
    b"<a@[127.0.0.1>",
    b"<a@127.0.0.1]>",
    b"<@a.test:>",
    b"<@a.test,:u@d>",
    b"<\xff@d>",
    b"<a@\xff>",
    b"<a\xc2\x85@d>",
    "<a\u2028@d>".encode(),
    b"<" + b"l" * 65 + b"@d>",
    b"<u@" + b"a" * 64 + b".example>",
    b"<u@" + b"a." * 125 + b"example.org>",
]


@pytest.mark.parametrize(("text", "local", "domain"), ACCEPTED)
def test_accepted_paths(text: bytes, local: str, domain: str) -> None:
    """The local-part comes unquoted, the source route is dropped, the path is used up."""
    assert scan_path(text) == (Address(local, domain), len(text))


@pytest.mark.parametrize("text", REFUSED)
def test_refused_paths(text: bytes) -> None:
    """RFC 5321 §4.1.2: what is no path is refused; nothing is repaired."""
    with pytest.raises(AddressError):
        scan_path(text)


def test_null_path() -> None:
    """RFC 5321 §4.5.5."""
    assert scan_path(b"<> SIZE=1") == (None, 2)


def test_a_path_ends_before_its_parameters() -> None:
    """What follows is the caller's; a path without brackets ends at the blank."""
    assert scan_path(b"<a@b> SIZE=1") == (Address("a", "b"), 5)
    assert scan_path(b"a@b SIZE=1") == (Address("a", "b"), 3)


def test_a_senders_long_local_part_is_taken_where_allowed() -> None:
    """Bounce addresses of mailing lists go past 64 octets; the path's 256 still hold."""
    text = b"<" + b"v" * 120 + b"@d>"
    address, _ = scan_path(text, longest_local=256)
    assert address == Address("v" * 120, "d")
    with pytest.raises(AddressError):
        scan_path(b"<" + b"v" * 252 + b"@ddd>", longest_local=256)


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("alice", "alice", ""),
        (" bob@example.org ", "bob", "example.org"),
        ('"x y"@d', "x y", "d"),
        ("<a@b>", "a", "b"),
        ("Alice Doe <a@b>", "a", "b"),
        ("a" * 100 + "@b", "a" * 100, "b"),
    ],
)
def test_lenient(text: str, local: str, domain: str) -> None:
    """Words of aliases and header fields."""
    assert parse_lenient(text) == Address(local, domain)


@pytest.mark.parametrize("text", ["", "@", "a b", "a@b@c", "|cmd x", '"|cmd', "<>", "a\nb@c"])
def test_lenient_is_no_free_for_all(text: str) -> None:
    """Commands, line breaks and several words are no addresses."""
    with pytest.raises(AddressError):
        parse_lenient(text)


_TEXT = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_categories=("Cc",)),
    min_size=1,
    max_size=20,
)
_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_DOMAIN = st.lists(_LABEL, min_size=1, max_size=4).map(".".join)


@given(_TEXT, _DOMAIN)
def test_format_and_parse_agree(local: str, domain: str) -> None:
    """parse(format(x)) == x for every address, quoted or not (RELIABILITY B11)."""
    address = Address(local, domain)
    assert scan_path(f"<{address}>".encode()) == (address, len(f"<{address}>".encode()))
    assert parse_lenient(str(address)) == address


@pytest.mark.parametrize(
    ("local", "delimiters", "parts"),
    [
        ("a+b", "+", ("a", "b")),
        ("a-b+c", "+-", ("a", "b+c")),
        ("+a", "+", ("+a", "")),
        ("a+b", "", ("a+b", "")),
        ("a+", "+", ("a", "")),
        ("+a+b", "+", ("+a+b", "")),
        ("Postmaster+a", "+", ("Postmaster", "a")),
        ("owner-list", "-", ("owner-list", "")),
        ("owner-list+x", "+", ("owner-list", "x")),
        ("owner-list+x", "+-", ("owner-list+x", "")),
        ("list-request", "-", ("list-request", "")),
        ("double-bounce", "-", ("double-bounce", "")),
    ],
)
def test_extensions(local: str, delimiters: str, parts: tuple[str, str]) -> None:
    """The first delimiter parts; names that must stay whole do. postconf(5), owner_request_special."""
    assert split_extension(local, delimiters) == parts


@given(st.binary(max_size=80))
def test_any_octets_give_an_address_or_a_refusal(text: bytes) -> None:
    """Nothing but AddressError escapes, and what is accepted has no control characters."""
    try:
        address, end = scan_path(b"<" + text)
    except AddressError:
        return
    assert end <= len(text) + 1
    if address is not None:
        assert address.local
        assert all(ord(c) >= 32 and c != "\x7f" for c in str(address))


@pytest.mark.parametrize(
    "text",
    [
        b"<" + b"@a," * 40_000,
        b"<" + b"a." * 60_000,
        b'<"' + b"\\a" * 60_000,
        b"<a@" + b"a-" * 60_000 + b">",
        b"<" + b"@a:" * 40_000,
    ],
)
def test_linear(text: bytes) -> None:
    """120 kB of anything cost milliseconds: no backtracking."""
    before = time.process_time()
    with pytest.raises(AddressError):
        scan_path(text)
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize(
    ("name", "is_right"),
    [
        ("example.org", True),
        ("a", True),
        ("a-b.c", True),
        ("", False),
        ("a..b", False),
        ("a.", False),
        ("a b", False),
    ],
)
def test_domains(name: str, is_right: bool) -> None:
    """RFC 1123 §2.1."""
    assert is_domain(name) is is_right
