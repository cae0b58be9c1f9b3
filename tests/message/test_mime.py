"""Part trees, BODY and BODYSTRUCTURE. The expected values were observed on Dovecot 2.3.19."""

from __future__ import annotations

import email
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.mime import DEEPEST, MOST_PARTS, Part, parse
from mailserver.message.structure import render_body, render_bodystructure

PLAIN = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" %d %d NIL NIL NIL NIL)'


def typed(content_type: bytes, body: bytes = b"hi\r\n", more: bytes = b"") -> bytes:
    """A message of that type."""
    return b"From: a@b.c\r\n" + more + b"Content-Type: " + content_type + b"\r\n\r\n" + body


def parts(*bodies: bytes, boundary: bytes = b"b", end: bytes = b"--b--\r\n") -> bytes:
    """The body of a multipart."""
    return b"".join(b"--" + boundary + b"\r\n" + body + b"\r\n" for body in bodies) + end


SINGLE = [
    (b'TEXT/HTML; CharSet=UTF-8; Name="A\\"b c"', b'("TEXT" "HTML" ("CharSet" "UTF-8" "Name" "A\\"b c")'),
    (b"text/plain (x) ; (y) charset=(z)utf-8 (q); format=flowed",
     b'("text" "plain" ("charset" "utf-8" "format" "flowed")'),
    (b"text/plain; charset=utf-8;", b'("text" "plain" ("charset" "utf-8")'),
    (b"application/x; name*0*=utf-8''a%20; name*1=b; name*2*=%20c; title*0=x; title*1=y",
     b'("application" "x" ("name*" "utf-8\'\'a%20b%20c" "title" "xy")'),
    (b"text/plain; name=a b.txt; charset=x", b'("text" "plain" ("name" "a" "charset" "x")'),
    (b'text / plain; charset = "utf-8"', b'("text" "plain" ("charset" "utf-8")'),
    (b'text/plain; name="a\r\n b"; charset=x', b'("text" "plain" ("name" "a b" "charset" "x")'),
    # RFC 2045 §5.2 where Dovecot answers empty strings:
    (b"text", b'("text" "plain" ("charset" "us-ascii")'),
    (b"@@@", b'("text" "plain" ("charset" "us-ascii")'),
    (b"application; name=x", b'("application" "octet-stream" ("name" "x")'),
]  # fmt: skip


@pytest.mark.parametrize(("content_type", "beginning"), SINGLE)
def test_content_types(content_type: bytes, beginning: bytes) -> None:
    """RFC 2045 §5.1, RFC 2231 §3; values keep their case, a last semicolon harms nobody."""
    assert render_body(typed(content_type)).startswith(beginning)


def test_all_the_extension_data() -> None:
    """RFC 3501 §7.4.2."""
    more = (
        b"Content-Transfer-Encoding: BASE64 (c)\r\nContent-ID: <x@y>\r\n"
        b"Content-Description: some =?utf-8?q?x?=  two\r\n folded\r\nContent-MD5: abc==\r\n"
        b"Content-Language: en, de (x)\r\nContent-Location: http://a/\r\n b\r\n"
        b'Content-Disposition: Attachment; FileName="a b.txt"; size=3\r\n'
    )
    content = typed(b"application/octet-stream", more=more)
    assert render_bodystructure(content) == (
        b'("application" "octet-stream" NIL "<x@y>" "some =?utf-8?q?x?=  two folded" "BASE64" 4 "abc=="'
        b' ("Attachment" ("FileName" "a b.txt" "size" "3")) ("en" "de") "http://a/ b")'
    )
    assert render_body(content) == (
        b'("application" "octet-stream" NIL "<x@y>" "some =?utf-8?q?x?=  two folded" "BASE64" 4)'
    )


MULTI = [
    # no part; no boundary: the grammar needs a part
    (b"b", b"no parts\r\n", PLAIN % (0, 0)),
    # preamble, epilogue, white space after the boundary; the CRLF before it is not the part's
    (b"b", b"pre\r\n--b\r\n\r\none\r\n--b  \r\nContent-Type: text/x\r\n\r\ntwo\r\n\r\n--b--\r\nepi\r\n"
           b"--b\r\n\r\nx",
     PLAIN % (3, 0) + b'("text" "x" ("charset" "us-ascii") NIL NIL "7bit" 5 1 NIL NIL NIL NIL)'),
    # parts that are nothing, or only a header
    (b"b", b"--b\r\n--b\r\n\r\n--b\r\nX: y\r\n--b\r\nX: y\r\n\r\n--b\r\n\r\n\r\n--b--", PLAIN % (0, 0) * 5),
    # no end
    (b"b", b"--b\r\n\r\none\r\n--b\r\n", PLAIN % (3, 0) + PLAIN % (0, 0)),
    (b"b", b"--b\r\n\r\none\r\n--b", PLAIN % (3, 0)),
    # a boundary that begins another; the same boundary twice
    (b"b", parts(b"Content-Type: multipart/alternative; boundary=bb\r\n\r\n"
                 b"--bb\r\n\r\n1\r\n--bb\r\n\r\n2\r\n--bb--", b"\r\n3"),
     b"(" + PLAIN % (1, 0) * 2 + b' "alternative" ("boundary" "bb") NIL NIL NIL)' + PLAIN % (1, 0)),
    (b"b", parts(b"Content-Type: multipart/alternative; boundary=b\r\n\r\n"
                 b"--b\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--", b"\r\n3"),
     b"(" + PLAIN % (1, 0) * 2 + b' "alternative" ("boundary" "b") NIL NIL NIL)' + PLAIN % (1, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("boundary", "body", "children"), MULTI)
def test_multiparts(boundary: bytes, body: bytes, children: bytes) -> None:
    """RFC 2046 §5.1."""
    content = typed(b"multipart/mixed; boundary=" + boundary, body)
    assert render_bodystructure(content) == b"(" + children + b' "mixed" ("boundary" "b") NIL NIL NIL)'


def test_messages_within() -> None:
    """RFC 2046 §5.2.1: size and lines are those of the whole message inside; digests hold messages."""
    inner = b"Subject: in\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\n\r\nx\r\n--q--\r\n"
    envelope = b'(NIL "in" NIL NIL NIL NIL NIL NIL NIL NIL)'
    assert render_bodystructure(typed(b"message/rfc822; x=y", inner)) == (
        b'("message" "rfc822" ("x" "y") NIL NIL "7bit" 75 ' + envelope + b" (" + PLAIN % (1, 0)
        + b' "mixed" ("boundary" "q") NIL NIL NIL) 7 NIL NIL NIL NIL)'
    )  # fmt: skip
    digest = typed(
        b"multipart/digest; boundary=b",
        parts(b"\r\nSubject: x\r\n\r\nbody", b"Content-Type: text/plain\r\n\r\n2"),
    )
    assert render_body(digest) == (
        b'(("message" "rfc822" NIL NIL NIL "7bit" 18 (NIL "x" NIL NIL NIL NIL NIL NIL NIL NIL)'
        b' ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 4 0) 2)'
        b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0) "digest")'
    )


def test_a_closing_boundary_right_before_the_outer_one() -> None:
    """The CRLF before a boundary line is the boundary's, RFC 2046 §5.1.1; Dovecot counts it twice over."""
    inner = b"Content-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--i--"
    content = typed(b"multipart/mixed; boundary=b", parts(inner))
    child = parse(content).children[0]
    assert content[child.body.start : child.body.end] == b"--i\r\n\r\nx\r\n--i--"


def test_depth_and_number_of_parts_are_bounded() -> None:
    """Neither a deep nor a wide message costs more than it is long."""
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000)
    )
    assert depth(parse(deep)) == DEEPEST + 1
    assert depth(parse(b"Content-Type: message/rfc822\r\n\r\n" * 3000)) == DEEPEST + 1
    wide = typed(b"multipart/mixed; boundary=b", b"--b\r\n\r\n" * 3 * MOST_PARTS)
    assert sum(1 for _ in parse(wide).walk()) == MOST_PARTS
    render_bodystructure(deep)
    render_bodystructure(wide)


def depth(part: Part) -> int:
    """Levels of the tree."""
    levels, row = 0, [part]
    while row:
        levels, row = levels + 1, [child for parent in row for child in parent.children]
    return levels


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", [
    typed(b"multipart/mixed; boundary=b", b"--b\r\nX: y\r\n" * 100_000),
    typed(b"multipart/mixed; boundary=x", b"--b\r\n" * 500_000),
    typed(b"text/plain" + b"; a=b" * 100_000),
    typed(b"text/plain" + b"".join(b"; a*%d=b" % number for number in range(10_000))),
    typed(b"text/plain; " + b"(" * 500_000),
    typed(b"text/plain; x=" + b'"\\' * 500_000),
    typed(b"text/plain" + b"; " * 500_000),
    b"x" * 1_000_000 + b"\r\n" + b"y\r\n" * 100_000,
    b"Content-Language: " + b"en," * 100_000 + b"\r\n\r\n",
    b"To: " + b"a@b.c, " * 100_000 + b"\r\n\r\n",
    b"To: " + b"()" * 200_000 + b'"' * 100_001 + b"\r\n\r\n",
    b"To: x@" + b". " * 300_000 + b"\r\n\r\n",
    b"To: a@b\r\n" * 50_000 + b"\r\n",
], ids=range(13))  # fmt: skip
def test_hostile_messages_are_rendered_in_linear_time(content: bytes) -> None:
    """Quadratic ones would take minutes; the time-out is the test."""
    assert render_bodystructure(b"Content-Type: message/rfc822\r\n\r\n" + content).startswith(b"(")


def spans_are_sound(content: bytes, part: Part) -> None:
    """Children lie inside their parents, one after the other."""
    assert part.header.start <= part.header.end == part.body.start <= part.body.end <= len(content)
    position = part.body.start
    for child in part.children:
        assert position <= child.header.start
        spans_are_sound(content, child)
        position = child.body.end
    assert position <= part.body.end


PIECES = [
    b"Content-Type: multipart/mixed; boundary=b\r\n", b"--b\r\n", b"--b--\r\n", b"X: y\r\n",
    b"Content-Type: multipart/digest; boundary=bb\r\n", b"--bb\r\n", b"--bb--",
    b"Content-Type: message/rfc822\r\n",
    b"\r\n", b"text", b"--", b"\r", b"\n", b"\xff", b"\0",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_octets_have_a_sound_tree(pieces: list[bytes]) -> None:
    """RFC 7103: no input is an error."""
    content = b"".join(pieces)
    spans_are_sound(content, parse(content))
    render_bodystructure(content)
    render_body(content)


TEXTS = st.from_regex(r"[a-z.\- \r\n]{0,20}", fullmatch=True).map(
    lambda text: text.replace("\r", "").replace("\n", "\r\n")
)


@st.composite
def messages(draw: st.DrawFn, level: int = 0) -> bytes:
    """A valid entity, header and body."""
    if level < 3 and draw(st.booleans()):
        boundary = b"=_%d_%d" % (level, draw(st.integers(0, 99)))
        children = draw(st.lists(messages(level + 1), min_size=1, max_size=3))
        body = (
            b"".join(b"--" + boundary + b"\r\n" + child + b"\r\n" for child in children)
            + b"--"
            + boundary
            + b"--\r\n"
        )
        return b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n\r\n' + body
    if level < 3 and draw(st.booleans()):
        return b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n" + draw(messages(level + 1))
    return b"Content-Type: text/plain\r\n\r\n" + draw(TEXTS).encode()


def leaves(message: Message) -> list[bytes]:
    """The bodies of the standard library's leaves."""
    return [part.get_payload().encode() for part in message.walk() if not part.is_multipart()]  # type: ignore[union-attr]


@given(messages())
def test_valid_messages_have_the_parts_that_the_standard_library_finds(content: bytes) -> None:
    """The oracle is stdlib's email."""
    mine = [content[part.body.start : part.body.end] for part in parse(content).walk() if not part.children]
    assert mine == leaves(email.message_from_bytes(content))
