"""Replies, whole or in pieces, friendly or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.wire.smtp_reply import Reply, ReplyError, ReplyReader, parse_extensions


def read(data: bytes) -> list[Reply]:
    reader = ReplyReader()
    replies = []
    for at in range(len(data)):
        reader.feed(data[at : at + 1])
        if (reply := reader.take()) is not None:
            replies.append(reply)
    return replies


def test_lines_of_one_reply_belong_together() -> None:
    """RFC 5321 §4.2.1, fed byte by byte; a bare LF ends a line too."""
    assert read(b"250-a\r\n250-b\n250 c\r\n354\r\n") == [Reply(250, ("a", "b", "c")), Reply(354, ("",))]


@pytest.mark.parametrize(
    ("text", "dsn"), [("5.1.1 who?", "5.1.1"), ("who?", "5.0.0"), ("2.0.0 odd", "5.0.0"), ("5.1.1", "5.1.1")]
)
def test_the_enhanced_code_must_fit_the_reply(text: str, dsn: str) -> None:
    """RFC 2034 §4: its class is the reply's."""
    assert Reply(550, (text,)).dsn == dsn


@pytest.mark.parametrize(
    "data", [b"hello\r\n", b"999 x\r\n", b"25\r\n", b"250_x\r\n", b"250 " + b"x" * 3000, b"250-x\r\n" * 300]
)
def test_what_is_no_reply_is_an_error(data: bytes) -> None:
    """Nonsense, endless lines and endless replies are bounded."""
    with pytest.raises(ReplyError):
        read(data)


@given(st.binary(max_size=200))
def test_no_reply_carries_control_characters(noise: bytes) -> None:
    """What goes into logs and bounces is printable."""
    reader = ReplyReader()
    reader.feed(b"250 " + noise.replace(b"\n", b"") + b"\r\n")
    reply = reader.take()
    assert reply is not None
    assert all(char.isprintable() for char in str(reply))


def test_extensions() -> None:
    """EHLO's keywords, the old AUTH= form included."""
    reply = Reply(250, ("mx.test", "SIZE 100", "auth PLAIN", "AUTH=LOGIN", "PIPELINING"))
    assert parse_extensions(reply) == {"SIZE": "100", "AUTH": "PLAIN LOGIN ", "PIPELINING": ""}
