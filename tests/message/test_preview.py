"""Previews: short, plain, and never an exception. RFC 8970 §3.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message.preview import LONGEST, preview


def message(body: bytes, kind: bytes = b"text/plain; charset=utf-8") -> bytes:
    return b"Content-Type: " + kind + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (message(b"Hello,\r\n\r\n  world!\r\n"), "Hello, world!"),
        (message(b"> old\r\nnew\r\n-- \r\nme\r\n"), "new"),
        (message("grüße\u200b \ufeffx".encode()), "grüße x"),
        (message(b"a\x00\x1b[31mred"), "a[31mred"),
        (message(b""), ""),
        (message(b"<style>p{}</style><!-- no --><p>Hi&nbsp;<b>you</b></p>", b"text/html"), "Hi you"),
        (message(b"<head><title>x<body><p>Hi", b"text/html"), "Hi"),
        (message(b"<style>never closed <p>Hi", b"text/html"), ""),
        (message(b"AAAA", b"application/pdf"), ""),
        (b"Content-Disposition: attachment\r\n\r\nhidden\r\n", ""),
        (b"", ""),
    ],
)
def test_words(content: bytes, words: str) -> None:
    """Markup, quotes, signatures and control characters are no words."""
    assert preview(content) == words


def test_plain_text_comes_before_html() -> None:
    """An alternative in whatever order."""
    parts = b"--b\r\nContent-Type: text/html\r\n\r\n<i>h</i>\r\n--b\r\n\r\nplain\r\n--b--\r\n"
    assert preview(message(parts, b"multipart/alternative; boundary=b")) == "plain"


@given(st.binary(max_size=600))
def test_any_message_has_one(content: bytes) -> None:
    """RFC 8970 §3.3: never longer than 256 characters, on one line."""
    for kind in (b"text/plain", b"text/html; charset=utf-16", b"multipart/mixed; boundary=b"):
        words = preview(message(content, kind))
        assert (len(words) <= LONGEST and words.isprintable()) or not words.isascii()


def test_hostile_markup_costs_little() -> None:
    """Unclosed tags and comments by the thousand: linear."""
    for piece in (b"<", b"<!--", b"<style>", b"<style ", b"&#", b"</style"):
        preview(message(piece * 20_000, b"text/html"))
